"""MSP, the paper's "Base": the maximum softmax probability p = max_y p(y | x).

    score(x) = log p/(1 − p)

has the order of p, and still tells images apart where p rounds to 1 (in float32, from
logits some 17 apart on).

Hendrycks and Gimpel (2017), "A Baseline for Detecting Misclassified and
Out-of-Distribution Examples in Neural Networks".
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from fssd_jax.outputs import Inputs, LogitFn, Variables, logits_of, margin
from fssd_jax.shown import brief


class State(NamedTuple):
    """Nothing is fitted."""

    __repr__ = brief


def fit() -> State:
    return State()


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """log p/(1 − p) of the maximum softmax probability p = sigmoid(score)."""
    return margin(logits_of(logit_fn, variables, x))
