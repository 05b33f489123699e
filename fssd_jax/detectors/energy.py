"""Energy: score(x) = T · log Σ_y exp(f_y(x) / T), at T = 1.

Liu, Wang, Owens and Li (2020), "Energy-based Out-of-distribution Detection".
"""

from typing import NamedTuple

import jax
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
    """The negative free energy, log Σ_y exp f_y(x)."""
    return jax.nn.logsumexp(logits_of(logit_fn, variables, x), axis=-1)
