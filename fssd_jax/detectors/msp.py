"""MSP, the paper's "Base": the maximum softmax probability max_y p(y | x).

Hendrycks and Gimpel (2017), "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples in Neural Networks".
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from fssd_jax.features import LogitFn, Variables, float32
from fssd_jax.shown import brief


class State(NamedTuple):
    """Nothing is fitted."""

    __repr__ = brief


def fit() -> State:
    return State()


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """max_y softmax(logits)_y."""
    return jax.nn.softmax(float32(logit_fn(variables, x)), axis=-1).max(axis=-1)
