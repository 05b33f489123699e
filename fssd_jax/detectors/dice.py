"""DICE: the energy of a last layer of which only the largest contributions are kept.

    score(x) = log Σ_y exp((M ∘ W)ᵀ h + b)_y,   M = [W ∘ E h > its 90 % quantile]

h are the penultimate features, E h their mean on the training set: 10 % of the weights
remain (p = 0.9, the paper's choice for CIFAR-10, by Gaussian noise).

Sun and Li (2022), "DICE: Leveraging Sparsification for Out-of-Distribution Detection".
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.checks import share_of_hundred
from fssd_jax.head import Head, energy, hidden_of, mean_of_training
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    head: Head  # with zeros for the weights that are left out

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    head: Head,
    train,
    *,
    percentile: float = 90.0,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """The sparse last layer, in one pass.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      head: its last layer, as `head.find` gives it.
      train: training images, data as of `pipeline.batches`; no labels.
      percentile: of the weights that are left out, 0 to 100.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    share = share_of_hundred("percentile", percentile)
    mean = mean_of_training(
        *(feature_fn, variables, head, train),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    ((name, kernel),) = head.kernel.items()
    kernel = np.asarray(kernel)
    contribution = mean[:, None] * kernel
    kept = np.where(contribution > np.quantile(contribution, share), kernel, 0)
    return State(head._replace(kernel=OrderedDict([(name, jax.device_put(kept))])))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The energy of the sparse layer."""
    return energy(state.head, hidden_of(feature_fn, variables, state.head, x))
