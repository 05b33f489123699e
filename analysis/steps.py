"""What a run must be to be followed step by step: all of it, and of plain SGD."""

import operator
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.parameters import difference, wide, with_parameters
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
    nothing = difference(before, before)
    step = with_parameters(nothing, jax.tree.map(lambda g: -rate * g, gradient))
    # Counters and keys, which have no derivative, may go on.
    trees = zip(*map(jax.tree.leaves, (before, after, step)), strict=True)
    real = [leaves for leaves in trees if leaves[2].dtype != bool]
    plain = [b + s for b, _, s in real]
    gap = size([a - p for (_, a, _), p in zip(real, plain, strict=True)])
    lost = size([(p - b) - s for (b, _, s), p in zip(real, plain, strict=True)])
    whole = size([s for *_, s in real])
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


def later(last: int | None, step: SupportsIndex) -> int:
    """The number of a step that is recorded after step `last`, if there was one.

    Raises:
      InputError: it is none, or before it.
    """
    number = operator.index(step)  # perhaps of a scalar of JAX
    if last is not None and number < last:
        raise checks.InputError(
            f"the recorder was called for step {number} after step {last}: what it has "
            "is relative to the start of its run, so another run, or one that was "
            "begun again, wants a recorder of its own"
        )
    return number


def begins(start: int, step: int, what: str) -> bool:
    """Whether what is recorded from step `start` on begins now, or later.

    Raises:
      InputError: that step was left out.
    """
    if step > start:
        raise checks.InputError(
            f"the recorder was first called at step {step}; {what} before step {start},"
            f" so call it at every step; a run that was resumed, or begun before, can "
            f"be recorded from there: start={step}"
        )
    return step == start


class Followed:
    """Which steps of a run were followed: all from step `start` on, in turn.

    Raises:
      InputError: `start` is no step's number.
    """

    def __init__(self, start: int = 0):
        if not isinstance(start, int | np.integer) or start < 0:
            raise checks.InputError(
                f"start: the number of a step, 0 or more, got {start!r}"
            )
        self.start, self._seen = int(start), 0

    def takes(self, step: int) -> bool:
        """Whether this step is to be followed; `InputError` if one was left out."""
        if step < self.start and not self._seen:
            return False
        expected = self.start + self._seen
        if step != expected and not self._seen:
            raise checks.InputError(
                f"first called for step {step}, where all steps from {self.start} on "
                "are to be followed; a run that was resumed, or begun before, can be "
                f"followed from there: start={step}"
            )
        if step != expected:
            raise checks.InputError(
                f"called for step {step} where step {expected} was to come: all steps "
                "are followed, in turn, and another run, or one that was resumed, "
                "wants a form of its own"
            )
        self._seen += 1
        return True

    def check(self, done: bool = True) -> None:
        """Raise `InputError` unless a step was followed, and that is done."""
        if not (self._seen and done):
            late = f" (from step {self.start} on)" if self.start else ""
            raise checks.InputError(
                f"no step was followed yet{late}: train(..., on_step=...)"
            )


def check_initial(initial: Variables, before: Variables) -> None:
    """Raise `InputError` unless the run began with these weights."""
    names, began = map(_names, (initial, before))
    if jax.tree.structure(initial) != jax.tree.structure(before):
        raise checks.InputError(
            f"initial: not the arrays that the run began with: {len(names)} of them, "
            f"those of the run are {len(began)}, and in one alone are "
            f"{sorted({*names} ^ {*began})[:5]}; give the variables before the first "
            "step that is followed, as they are given with each step, or None"
        )
    pairs = zip(jax.tree.leaves(initial), jax.tree.leaves(before), strict=True)
    same = [
        jnp.array_equal(jnp.asarray(a, b.dtype), b)
        # Keys of dropout and counters decide nothing here.
        if jnp.issubdtype(jnp.result_type(b), jnp.inexact)
        else True
        for a, b in pairs
    ]
    others = [name for name, equal in zip(names, same, strict=True) if not equal]
    if others:
        raise checks.InputError(
            f"initial: not the weights that the run began with, {len(others)} of "
            f"{len(names)} arrays are others, such as {others[0]}; give the variables "
            "before the first step that is followed, to train(..., initial=...) too if "
            "that is step 0"
        )


def _names(tree) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def size(tree) -> Float[Array, ""]:
    """The length of all its arrays as one vector; in 16 bits squares would be 0."""
    leaves = [leaf.astype(wide(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves))
