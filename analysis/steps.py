"""What a run must be to be followed step by step: whole, and of plain SGD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from analysis.parameters import with_parameters
from fssd_jax import checks
from fssd_jax.outputs import Variables
from fssd_jax.shown import brief

TOLERANCE = 1e-3  # relative, of a step against −η∇L
LOST = 0.9  # relative, what rounding may take from a step


class StepError(NamedTuple):
    """Of a step against plain SGD's, relative to ‖η∇L‖."""

    gap: Float[Array, ""]  # what plain SGD, rounded like the step, does not explain
    lost: Float[Array, ""]  # what rounding takes from plain SGD's step

    __repr__ = brief


def sgd_error(before: Variables, after: Variables, gradient, rate) -> StepError:
    """How far a step is from fl(θ − η∇L), and that from θ − η∇L itself."""
    step = jax.tree.map(jnp.zeros_like, before)
    step = with_parameters(step, jax.tree.map(lambda g: -rate * g, gradient))
    plain = jax.tree.map(jnp.add, before, step)
    gap = size(jax.tree.map(jnp.subtract, after, plain))
    lost = size(jax.tree.map(lambda p, b, s: (p - b) - s, plain, before, step))
    whole = size(step)
    # At rate 0 nothing may change.
    return StepError(*(jnp.where(e > 0, e / whole, 0) for e in (gap, lost)))


def check_sgd(step: int, rate: float, error: StepError) -> None:
    """Raise `InputError` if a step was not one of plain SGD, or if none could tell."""
    gap, lost = map(float, error)
    # Where the step is near the spacing of floating-point numbers, an error of the
    # gradient in its last digits sends a few parameters to the next number.
    if not gap < TOLERANCE + lost / 50:
        raise checks.InputError(
            f"step {step} is not −{rate:g}·∇L, it differs by {gap:.1%} of it: "
            "this is for plain SGD, with this learning rate, without momentum, weight "
            "decay, dropout or BatchNorm in training, and all parameters take part "
            '(without an entry "params", all of the variables); PathForm is for any'
        )
    if not lost < LOST:
        raise checks.InputError(
            f"step {step}: cannot tell whether it is one of plain SGD: rounding takes "
            f"{lost:.0%} of −{rate:g}·∇L; use a larger learning rate, or "
            "JAX_ENABLE_X64 with parameters in float64; PathForm follows any step"
        )


def in_turn(step: int, seen: int) -> int:
    """The number of steps seen, with this one; `InputError` if one was left out."""
    if step != seen:
        raise checks.InputError(
            f"called for step {step} after {seen} steps: the sum goes over all steps "
            "from 0 on, so a run that was resumed, or begun before, cannot be followed"
        )
    return seen + 1


def check_initial(initial: Variables, before: Variables) -> None:
    """Raise `InputError` unless the run began with these weights."""
    names, began = map(_names, (initial, before))
    if jax.tree.structure(initial) != jax.tree.structure(before):
        raise checks.InputError(
            f"initial: not the arrays that the run began with: {len(names)} of them, "
            f"those of the run are {len(began)}, and in one alone are "
            f"{sorted({*names} ^ {*began})[:5]}; give the variables before the first "
            "step, as they are given with each step"
        )
    pairs = zip(jax.tree.leaves(initial), jax.tree.leaves(before), strict=True)
    same = [jnp.array_equal(jnp.asarray(a, b.dtype), b) for a, b in pairs]
    others = [name for name, equal in zip(names, same, strict=True) if not equal]
    if others:
        raise checks.InputError(
            f"initial: not the weights that the run began with, {len(others)} of "
            f"{len(names)} arrays are others, such as {others[0]}; give the variables "
            "before the first step, to train(..., initial=...) too"
        )


def _names(tree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def size(tree) -> Float[Array, ""]:
    """The length of all its arrays as one vector."""
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
