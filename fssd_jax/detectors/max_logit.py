"""Maximum logit: score(x) = max_y f_y(x).

Hendrycks et al. (2022), "Scaling Out-of-Distribution Detection for Real-World
Settings".
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from fssd_jax.outputs import Inputs, LogitFn, Variables, logits_of
from fssd_jax.shown import brief


class State(NamedTuple):
    """Nothing is fitted."""

    __repr__ = brief


def fit() -> State:
    return State()


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """max_y f_y(x)."""
    return logits_of(logit_fn, variables, x).max(axis=-1)
