"""ASH: the energy of penultimate features of which only the largest are kept.

With h the penultimate features of an image, s their sum, and of the k largest, a tenth
of them, the sum t, the others become 0 and these

    ASH-S: exp(s / t) h      ASH-B: s / k      ASH-P: h

    score(x) = log Σ_y exp(Wᵀ h' + b)_y

`score` is ASH-S, the paper's best on ImageNet and what SCALE continues; `score_b` and
`score_p` are the others.

Djurisic, Bozanic, Ashok and Liu (2023), "Extremely Simple Activation Shaping for
Out-of-Distribution Detection".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fssd_jax.head import Head, count_kept, energy, hidden_of
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    head: Head
    ranks: Int[Array, " k"]  # 1 … k: a shape is known when compiling, a value is not

    __repr__ = brief


def fit(head: Head, *, percentile: float = 90.0) -> State:
    """Nothing is fitted.

    Args:
      head: the last layer, as `head.find` gives it.
      percentile: of the numbers of h that become 0, 0 to 100.
    """
    return State(head, jnp.arange(1, 1 + count_kept(head, percentile)))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """ASH-S."""
    h = hidden_of(feature_fn, variables, state.head, x)
    values, at = _kept(state, h)
    return energy(state.head, _placed(h, sharpening(h, values) * values, at))


def score_b(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """ASH-B."""
    h = hidden_of(feature_fn, variables, state.head, x)
    values, at = _kept(state, h)
    equal = h.sum(-1, keepdims=True) / len(state.ranks)
    return energy(state.head, _placed(h, jnp.broadcast_to(equal, values.shape), at))


def score_p(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """ASH-P."""
    h = hidden_of(feature_fn, variables, state.head, x)
    return energy(state.head, _placed(h, *_kept(state, h)))


def sharpening(
    h: Float[Array, "batch dim"], largest: Float[Array, "batch k"]
) -> Float[Array, "batch 1"]:
    """exp(s / t); of features of zeros 1."""
    total = largest.sum(-1, keepdims=True)
    ratio = h.sum(-1, keepdims=True) / jnp.where(total == 0, 1, total)
    return jnp.exp(jnp.where(total == 0, 0, ratio))


def _kept(state: State, h):
    return jax.lax.top_k(h, len(state.ranks))


def _placed(h, values, at) -> Float[Array, "batch dim"]:
    return jnp.put_along_axis(jnp.zeros_like(h), at, values, axis=-1, inplace=False)
