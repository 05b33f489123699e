"""Maximum logit: score(x) = max_y f_y(x).

Hendrycks et al. (2022), "Scaling Out-of-Distribution Detection for Real-World
Settings".
"""

from typing import NamedTuple

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
    """max_y f_y(x)."""
    return float32(logit_fn(variables, x)).max(axis=-1)
