"""GEN: the generalised entropy of the largest probabilities, negated.

    score(x) = −Σ_{j ≤ M} p_j^γ (1 − p_j)^γ,   p_1 ≥ p_2 ≥ … the softmax probabilities

with γ = 0.1 and M = 100, or all classes if they are fewer.

Liu, Lochman and Zach (2023), "GEN: Pushing the Limits of Softmax-Based
Out-of-Distribution Detection".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fssd_jax.checks import at_least_one
from fssd_jax.outputs import Inputs, LogitFn, Variables, logits_of, margin
from fssd_jax.shown import brief


class State(NamedTuple):
    gamma: Float[Array, ""]
    ranks: Int[Array, " most"]  # 1 … M: a shape is known when compiling

    __repr__ = brief


def fit(*, gamma: float = 0.1, most: int = 100) -> State:
    """Nothing is fitted.

    Args:
      gamma: γ.
      most: M.
    """
    at_least_one("most", most)
    return State(jnp.float32(gamma), jnp.arange(1, most + 1))


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The entropy, negated."""
    logits = logits_of(logit_fn, variables, x)
    logs = jax.nn.log_softmax(logits, axis=-1)
    logs, _ = jax.lax.top_k(logs, min(len(state.ranks), logits.shape[-1]))
    # With m = log p/(1 − p): exact also where the largest p rounds to 1.
    m = margin(logits)[:, None]
    first = -jax.nn.softplus(-m) - jax.nn.softplus(m)
    others = logs[:, 1:] + jnp.log1p(-jnp.exp(logs[:, 1:]))
    both = jnp.concatenate([first, others], 1)
    return -jnp.exp(state.gamma * both).sum(-1)
