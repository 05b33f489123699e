"""Through which layers does all of the loss pass? Eq. (2) holds for these alone.

    dL/dθ = Σ_m (∂F(x_m)/∂θ)ᵀ ∂_mL,   θ: the parameters that F depends on

where they reach L through F and no other way: F is a *bottleneck*. A branch beside a
skip connection, the queries of attention, a layer whose weights are used again above
it, are none. This is read off the program that JAX traces, not off its values, which
may hide a way at the first step: behind weights that begin at zero no gradient flows.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jaxtyping import Array

from analysis.parameters import parameters, with_parameters
from fssd_jax import checks
from fssd_jax.compiled import spelled
from fssd_jax.devices import apart
from fssd_jax.outputs import FeatureFn, Variables, features_of

# Calls whose inside is part of the program: a layer may lie in there. (What has a rule
# of its own for derivatives is kept whole, and so are loops.)
INLINED = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")


class Operation(NamedTuple):
    run: Callable[..., Sequence[Any]]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    differentiable: bool


class Program:
    """What a function computes, as operations on numbered values.

    Operations that are alike, of the same operands, stand there once: so a layer's
    output that one function returns is found inside another that only goes through it.

    Args:
      function: to be traced.
      *args: pytrees of arrays; only shapes and types are looked at.
    """

    def __init__(self, function: Callable, *args):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        self._known: dict[Any, tuple[int, ...]] = {}  # what it is → the numbers
        self._types: list[Any] = []
        self._constants: dict[int, Any] = {}
        self._operations: list[Operation] = []
        # The numbers of all arguments' arrays, one after the other.
        self.inputs = [
            self._numbers(("input", i), [v])[0]
            for i, v in enumerate(closed.jaxpr.invars)
        ]
        found = self._walk(closed.jaxpr, closed.consts, self.inputs)
        # Like what the function returns, with numbers in place of arrays.
        self.outputs = jax.tree.unflatten(jax.tree.structure(shapes), found)

    def __call__(self, shifts: Mapping[int, Array], *args) -> Any:
        """What the function returns, with some values shifted where they arise."""
        values = dict(self._constants)

        def arise(numbers: Iterable[int], arrays: Iterable[Any]) -> None:
            for number, array in zip(numbers, arrays, strict=True):
                shifted = array + shifts[number] if number in shifts else array
                values[number] = shifted

        arise(self.inputs, jax.tree.leaves(args))
        for operation in self._operations:
            operands = (values[number] for number in operation.operands)
            arise(operation.results, operation.run(*operands))
        return jax.tree.map(values.__getitem__, self.outputs)

    def behind(self, number: int) -> set[int]:
        """The values, by number, that a value has gradients by, and itself."""
        found = {number}
        for operation in reversed(self._operations):
            if operation.differentiable and not found.isdisjoint(operation.results):
                found.update(filter(self._real, operation.operands))
        return found

    def passes(self, sources: Collection[int], through: int, to: int) -> bool:
        """Whether all that these values give to the value `to` passes `through`."""
        found = {*sources} - {through}
        for operation in self._operations:
            if operation.differentiable and not found.isdisjoint(operation.operands):
                found.update(filter(self._real, operation.results))
                found.discard(through)
        return to not in found

    def _walk(self, jaxpr: Jaxpr, consts: Sequence, operands: Sequence[int]):
        """Take in the operations; the numbers of the results."""
        of = dict(zip(jaxpr.invars, operands, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            alone = jaxpr.replace(
                constvars=[var], invars=[], outvars=[var], eqns=[], effects=frozenset()
            )
            of[var] = self._constant(spelled(ClosedJaxpr(alone, [value])), var, value)

        def number(atom) -> int:
            if isinstance(atom, Literal):
                return self._constant((repr(atom.val), str(atom.aval)), atom, atom.val)
            return of[atom]

        for eqn in jaxpr.eqns:
            if eqn.primitive.name in INLINED:
                inner: Any = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
                body, inside = (
                    getattr(inner, "jaxpr", inner),
                    getattr(inner, "consts", ()),
                )
                results = self._walk(body, inside, list(map(number, eqn.invars)))
            else:
                # Literals stay what they are.
                taken = [a for a in eqn.invars if not isinstance(a, Literal)]
                taken = list(dict.fromkeys(taken))
                alone = jaxpr.replace(
                    constvars=[], invars=taken, outvars=eqn.outvars, eqns=[eqn],
                    effects=eqn.effects,
                )  # fmt: skip
                operands = tuple(of[var] for var in taken)
                results = self._operation(ClosedJaxpr(alone, []), operands)
            of.update(zip(eqn.outvars, results, strict=True))
        return list(map(number, jaxpr.outvars))

    def _operation(self, alone: ClosedJaxpr, operands: tuple[int, ...]):
        """The numbers of its results; new ones, if it was not seen before."""
        key = spelled(alone), _rule(alone), operands
        if key not in self._known:
            (eqn,) = alone.eqns
            results = self._numbers(key, eqn.outvars)
            # What is stopped, and whole numbers, have no gradients.
            flows = eqn.primitive.name != "stop_gradient"
            run = jaxpr_as_fun(alone)
            self._operations.append(Operation(run, operands, results, flows))
        return self._known[key]

    def _constant(self, key: Any, atom: Any, value: Any) -> int:
        (number,) = self._numbers(key, [atom])
        self._constants[number] = value
        return number

    def _numbers(self, key: Any, atoms: Sequence[Any]) -> tuple[int, ...]:
        """Of the values that `key` stands for."""
        if key not in self._known:
            first = len(self._types)
            self._types += [atom.aval.dtype for atom in atoms]
            self._known[key] = tuple(range(first, len(self._types)))
        return self._known[key]

    def _real(self, number: int) -> bool:
        """Whether gradients can flow through a value: not through integers."""
        return jnp.issubdtype(self._types[number], jnp.inexact)


def _rule(alone: ClosedJaxpr) -> Any:
    """What tells operations from each other that differ in their derivatives alone.

    Such as scaling a gradient, whose value is the operand itself.
    """
    if "custom_" not in str(alone):
        return None
    run = jaxpr_as_fun(alone)

    def is_real(array) -> bool:
        return jnp.issubdtype(array.dtype, jnp.inexact)

    def pulled(*args):
        outs, back = jax.vjp(lambda *a: [*filter(is_real, run(*a))], *args)
        return [*filter(is_real, back([jnp.ones_like(out) for out in outs]))]

    try:
        return spelled(jax.make_jaxpr(pulled)(*alone.in_avals))
    except Exception:  # whatever a rule raises that is never asked for
        return None


class GradientFn:
    """The gradient of a batch's loss by the parameters and by each feature.

    Calling it as `(variables, x, y)` gives ∇_θL, and layer → ∂L/∂F [batch, ...] of the
    layers that the loss is computed from: the gradient by a shift of zero that is added
    to the layer's output there.
    """

    def __init__(self, loss_fn: Callable, feature_fn: FeatureFn):
        self._loss_fn, self._feature_fn = loss_fn, feature_fn
        self._gradients = jax.jit(self._trace_gradients)

    @apart
    def __call__(self, variables: Variables, x, y) -> tuple[Any, OrderedDict]:
        return self._gradients(variables, x, y)

    @apart
    def bottlenecks(self, variables: Variables, x, y) -> list[str]:
        """The layers through which all of the loss passes; nothing is computed."""
        program = self._program(variables, x, y)
        value, features = program.outputs
        params = {*program.inputs[: len(jax.tree.leaves(parameters(variables)))]}
        reached = program.behind(value)
        return [
            layer
            for layer, number in features.items()
            if number in reached  # of another no loss passes at all
            and program.passes(program.behind(number) & params, number, value)
        ]

    def _program(self, variables, x, y) -> Program:
        def both(params, variables, x, y):
            variables = with_parameters(variables, params)
            value = self._loss_fn(variables, x, y)
            if jnp.shape(value) != ():
                raise checks.InputError(
                    "loss: expected one number, the mean of the batch, got shape "
                    f"{jnp.shape(value)}"
                )
            return value, features_of(self._feature_fn, variables, x)

        return Program(both, parameters(variables), variables, x, y)

    def _trace_gradients(self, variables, x, y):
        program = self._program(variables, x, y)
        value, features = program.outputs
        behind = program.behind(value)
        numbers = OrderedDict((k, n) for k, n in features.items() if n in behind)
        of = partial(features_of, self._feature_fn)
        shapes = jax.eval_shape(of, variables, x)
        zeros = {n: jnp.zeros_like(shapes[k]) for k, n in numbers.items()}

        def loss_fn(params, shifts):
            return program(shifts, params, variables, x, y)[0]

        gradients = jax.grad(loss_fn, argnums=(0, 1))
        gradient, by_number = gradients(parameters(variables), zeros)
        return gradient, OrderedDict((k, by_number[n]) for k, n in numbers.items())
