"""fDBD: how far the decision boundaries are, in units of the distance to the mean.

    score(x) = 1/(C − 1) Σ_{c ≠ ŷ} |f_ŷ − f_c| / (‖w_ŷ − w_c‖ ‖h − μ‖)

h are the penultimate features, f = Wᵀ h + b, ŷ the predicted class, μ the mean of h on
the training set.

Liu and Qin (2024), "Fast Decision Boundary based Out-of-Distribution Detector".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.fssd import norm
from fssd_jax.head import Head, hidden_of, logits, mean_of_training
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    head: Head
    mean: Float[Array, " dim"]  # μ
    # 1 / ‖w_i − w_j‖; 0 of classes of equal weights, between which is no boundary.
    inverse: Float[Array, "classes classes"]

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    head: Head,
    train,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """μ, in one pass.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      head: its last layer, as `head.find` gives it.
      train: training images, data as of `pipeline.batches`; no labels.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    mean = mean_of_training(
        *(feature_fn, variables, head, train),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    (kernel,) = head.kernel.values()
    weights = np.asarray(kernel, np.float64).T
    gaps = np.stack([np.linalg.norm(weights - w, axis=1) for w in weights])
    inverse = np.where(gaps > 0, 1 / np.where(gaps > 0, gaps, 1), 0)
    return State(head, *(jax.device_put(np.float32(a)) for a in (mean, inverse)))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The mean distance, over ‖h − μ‖."""
    h = hidden_of(feature_fn, variables, state.head, x)
    f = logits(state.head, h)
    # To the predicted class itself the difference is 0.
    distance = (f.max(-1, keepdims=True) - f) * state.inverse[f.argmax(-1)]
    length = norm(h - state.mean[None])
    return distance.sum(-1) / (f.shape[1] - 1) / jnp.where(length == 0, 1, length)
