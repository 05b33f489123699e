"""Deep Ensembles: the maximum of the mean softmax of networks trained independently.

    score(x) = log p/(1 − p),   p = max_y (1/M) Σ_m softmax(f_m(x))_y

Lakshminarayanan, Pritzel and Blundell (2017), "Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles".
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fssd_jax.checks import InputError
from fssd_jax.compiled import compiled
from fssd_jax.outputs import (
    Inputs,
    LogitFn,
    Variables,
    log_mean_softmax,
    logits_of,
    margin,
)
from fssd_jax.shown import brief
from fssd_jax.steps import each


class State(NamedTuple):
    """Nothing is fitted: the members are the `variables`, stacked."""

    __repr__ = brief


def fit() -> State:
    return State()


def stack(members: Sequence[Variables]) -> Variables:
    """One Variables whose arrays have a first axis [member].

    Raises:
      InputError: no members, or members of different networks.
    """
    members = list(members)
    if not members:
        raise InputError("a deep ensemble needs one member or more")
    shapes = [jax.tree.map(jnp.shape, member) for member in members]
    kinds = {jax.tree.structure(member) for member in members}
    if len(kinds) > 1 or any(shape != shapes[0] for shape in shapes):
        raise InputError(
            "the members of a deep ensemble must be of one architecture: their "
            "variables differ in names or shapes, or are dicts of several kinds"
        )
    return _stacked(members)


@compiled(static=0)
def _stacked(members: list[Variables]) -> Variables:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """log p/(1 − p) of the maximum p of the mean softmax; `variables`: see `stack`."""
    count = len(jax.tree.leaves(variables)[0])

    def logits(m):
        return logits_of(logit_fn, jax.tree.map(lambda a: a[m], variables), x)

    return margin(log_mean_softmax(each(logits, jnp.arange(count))))
