"""∂f/∂θ · tangent, also where a derivative has a rule for reverse mode alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fssd_jax import checks


def jvp(function: Callable, at: Any, tangent: Any) -> tuple[Any, Any]:
    """`function(at)` and its derivative along `tangent`, by one forward pass of both.

    Of what has a `jax.custom_vjp` (attention that saves memory, gradients that are
    scaled or reversed), which JAX does not differentiate forwards, J·tangent is the
    transpose of v → Jᵀv, at about twice the cost: the derivative is that of the rule,
    along which training goes, too.

    Args:
      function: of one pytree.
      at: arrays; those that are no floating-point numbers stay as they are.
      tangent: a tree like `at`, of any types: what was summed may have more bits.

    Raises:
      InputError: neither way is open, as for a rule that clips its gradients, or that
        is written in Pallas.
    """
    leaves, structure = jax.tree.flatten(at)
    moves = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]

    def of_moving(*moving):
        new = iter(moving)
        pairs = zip(leaves, moves, strict=True)
        whole = structure.unflatten(next(new) if m else leaf for leaf, m in pairs)
        return function(whole)

    moving = [leaf for leaf, m in zip(leaves, moves, strict=True) if m]
    along = [t for t, m in zip(jax.tree.leaves(tangent), moves, strict=True) if m]
    along = [
        jnp.asarray(t, jnp.result_type(leaf))
        for t, leaf in zip(along, moving, strict=True)
    ]
    # Asked of the program: what is raised may come when it is compiled, out of reach.
    if not has_rule(of_moving, *moving):
        return jax.jvp(of_moving, moving, along)
    value, pull = jax.vjp(of_moving, *moving)
    try:
        (pushed,) = jax.linear_transpose(pull, value)(tuple(along))
    except Exception as error:  # of whatever stands in the rule
        raise checks.InputError(
            "the network has a jax.custom_vjp, so J·tangent is had from v → Jᵀv, and "
            f"JAX cannot transpose it ({type(error).__name__}): a rule that clips or "
            "rounds is not linear, and has no tangent kernel; one in Pallas, a "
            "callback or a loop without a fixed end has no transpose. Follow the same "
            "network without the rule, or give the function a jax.custom_jvp"
        ) from error
    return value, pushed


def has_rule(function: Callable, *args: Any) -> bool:
    """Whether a `jax.custom_vjp` lies in what the function computes."""
    return "custom_vjp_call" in str(jax.make_jaxpr(function)(*args))
