"""SCALE: the energy of penultimate features, scaled image by image.

    score(x) = log Σ_y exp(Wᵀ (r h) + b)_y,   r = exp(Σ h / Σ of the largest of h)

h are the penultimate features, the largest 15 % of them: ASH-S without pruning.

Xu, Chen, Franchi and Yao (2024), "Scaling for Training Time and Post-hoc
Out-of-distribution Detection Enhancement".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fssd_jax.detectors.ash import sharpening
from fssd_jax.head import Head, count_kept, energy, hidden_of
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    head: Head
    ranks: Int[Array, " k"]  # 1 … k: a shape is known when compiling, a value is not

    __repr__ = brief


def fit(head: Head, *, percentile: float = 85.0) -> State:
    """Nothing is fitted.

    Args:
      head: the last layer, as `head.find` gives it.
      percentile: of the numbers of h that are none of the largest, 0 to 100.
    """
    return State(head, jnp.arange(1, 1 + count_kept(head, percentile)))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The energy of r h."""
    h = hidden_of(feature_fn, variables, state.head, x)
    largest, _ = jax.lax.top_k(h, len(state.ranks))
    return energy(state.head, sharpening(h, largest) * h)
