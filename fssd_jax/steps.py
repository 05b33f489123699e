"""The input step, for many scores of one image and many ε.

    x̃ = x + ε · sign(∇ₓ score(x))       (Algorithm 1, step 2; Liang et al. 2018)

A network is traced once for all scores that read it, and sign(∇ₓ score), which does not
depend on ε, is computed once for all ε.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from fssd_jax.checks import InputError
from fssd_jax.compiled import Recent, compiled, hashable
from fssd_jax.outputs import Inputs, as_pixels


def gradient(score_fn: Callable[[Any], Float[Array, " batch"]], x: Inputs) -> Any:
    """∇ₓ score(x) per example: no example's score may depend on another's.

    Of a pytree each array has its own; integers have no gradient, and 0 here.
    """
    floating = [jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(x)]
    if not any(floating):
        raise InputError(
            "an input step needs a gradient, which integers (token ids) do not have: "
            "fit with epsilons=(0.,)"
        )
    found = jax.grad(lambda x: score_fn(x).sum(), allow_int=True)(x)
    # JAX gives integers a gradient of a type that has no values.
    own = lambda a, g: g if g.dtype == a.dtype else jnp.zeros(a.shape)  # noqa: E731
    return jax.tree.map(own, x, found)


def sign(gradient: Any) -> Any:
    """sign(∇ₓ score); 0 of a mask, whose numbers have none."""
    return jax.tree.map(lambda g: g if g.dtype == bool else jnp.sign(g), gradient)


def step(x: Any, along: Any, epsilon: float | Float[Array, ""]) -> Any:
    """x + ε · along, of each array whose numbers are floats."""

    def one(a, s):
        return a + epsilon * s if jnp.issubdtype(a.dtype, jnp.floating) else a

    return jax.tree.map(one, x, along)


class Scores(NamedTuple):
    """Scores that read one network: of(apply_fn, variables, state, name, x) → [batch].

    It is what programs are found again by: functions of a module, and no arrays.
    """

    of: Callable[..., Float[Array, " batch"]]
    apply_fn: Callable  # a FeatureFn or LogitFn
    names: tuple  # of the scores: layers, …


def sweep_each(
    scores: Scores,
    arrays: tuple,
    x: Inputs,
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch score"]:
    """score(x + ε · sign(∇ₓ score(x))) for many ε and several scores of one image.

    Args:
      scores: what they are; each takes its own step.
      arrays: (variables, state), which they take.
      x: images.
      epsilons: input steps, in the units of x.
    """
    x = as_pixels(x)
    return at_steps(scores, arrays, x, signs(scores, arrays, x), epsilons)


@compiled(static=1)
def signs(scores: Scores, arrays: tuple, x: Inputs) -> list[Any]:
    """sign(∇ₓ score(x)) of each score."""
    return [sign(slope) for slope in gradients(scores, arrays, x)]


@compiled(static=1)
def gradients(scores: Scores, arrays: tuple, x: Inputs) -> list[Any]:
    """∇ₓ score(x) of each score; they share the forward pass."""
    evaluate = _traced_once(scores, arrays)
    return [gradient(partial(evaluate, k), x) for k in scores.names]


@compiled(static=1)
def at_step(
    scores: Scores,
    arrays: tuple,
    x: Inputs,
    steps: Sequence[Inputs],
    epsilon: float | Float[Array, ""],
) -> Float[Array, "batch score"]:
    """score(x + ε · step) of each score, with a step each."""
    evaluate = _traced_once(scores, arrays)
    stepped = zip(scores.names, steps, strict=True)
    return jnp.stack([evaluate(k, step(x, along, epsilon)) for k, along in stepped], -1)


def at_steps(
    scores: Scores,
    arrays: tuple,
    x: Inputs,
    steps: Sequence[Inputs],
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch score"]:
    """`at_step` for many ε, compiled for one: a call each, or a loop under `jit`."""
    # In the precision of x, which may be a pytree, with ids beside.
    types = [a.dtype for a in jax.tree.leaves(x)]
    types = [t for t in types if jnp.issubdtype(t, jnp.floating)]
    epsilons = jnp.asarray(epsilons, *types[:1])
    if epsilons.ndim != 1 or not len(epsilons):
        raise InputError(f"epsilons: one or more, [epsilon]; got {epsilons.shape}")
    at = partial(at_step, scores, arrays, x, steps)
    if any(isinstance(a, Tracer) for a in jax.tree.leaves((x, epsilons))):
        return jax.lax.map(at, epsilons)
    return _stacked([at(epsilon) for epsilon in epsilons])


@compiled(static=0)
def _stacked(parts: Sequence[Array]) -> Array:
    return jnp.stack(parts)


def _traced_once(scores: Scores, arrays: tuple) -> Callable:
    """(name, x) → score, for use under `jit`: the network is traced once for all.

    XLA sees each call, merges what they have in common, and drops what is not used.
    """
    network = jax.jit(_ordered(scores.apply_fn))
    variables, state = arrays
    return lambda name, x: scores.of(network, variables, state, name, x)


_ORDERED: Recent = Recent(256)  # one for each network: `jit` traces by identity


def _ordered(apply_fn: Callable) -> Callable:
    """The same, but that `jit` does not sort the layers of what it returns."""
    known = _ORDERED.get(hashable(apply_fn))
    if known is not None:
        return known

    def ordered(variables, x):
        found = apply_fn(variables, x)
        return OrderedDict(found) if isinstance(found, Mapping) else found

    ordered.stands_for = apply_fn  # what was checked of it holds for this one
    _ORDERED.put(hashable(apply_fn), ordered)
    return ordered


def each(f: Callable, values):
    """Stack f(value) over the first axis, one after the other in one compiled call."""
    # Rolled loops around convolutions are slow on a CPU.
    if jax.default_backend() == "cpu":
        f = jax.jit(f)  # traced once
        return jnp.stack([f(value) for value in values])
    return jax.lax.map(f, values)
