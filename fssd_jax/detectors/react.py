"""ReAct: the energy of penultimate features that are clipped from above.

    score(x) = log Σ_y exp(Wᵀ min(h, c) + b)_y,   c the 90th percentile of h

h are the penultimate features; the percentile is of all their units together, on the
training set.

Sun, Guo and Li (2021), "ReAct: Out-of-distribution Detection With Rectified
Activations".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import quantile
from fssd_jax.checks import share_of_hundred
from fssd_jax.head import Head, energy, hidden_of, hidden_of_training
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    head: Head
    clip: Float[Array, ""]  # c

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
    """c, in one pass and little memory (see `quantile`).

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      head: its last layer, as `head.find` gives it.
      train: training images, data as of `pipeline.batches`; no labels.
      percentile: 0 to 100.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    share = share_of_hundred("percentile", percentile)
    counts = quantile.nothing()
    for h in hidden_of_training(
        *(feature_fn, variables, head, train),
        batch_size=batch_size,
        unit_range=unit_range,
    ):
        quantile.add(counts, h)
    return State(head, jax.device_put(np.float32(quantile.at(counts, share))))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The energy of min(h, c)."""
    h = hidden_of(feature_fn, variables, state.head, x)
    return energy(state.head, jnp.minimum(h, state.clip))
