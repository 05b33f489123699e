"""What is compiled is kept, found again by what it computes, and let go when it is old.

Tracing is cheap and is done anew for every new function, but for networks that nothing
can change (`traced_once`); compiling is not, and is done once for equal programs. So
nothing is stale that a function reads, and a function that is made in a loop is
compiled once. Every compiled function maps memory, and a process may have 65,530 maps:
some 600 trainings, each compiled anew, would reach them.

Outside of such programs NumPy computes, and `jax.device_put` takes to the device: a
single operation, `jnp.asarray` too, JAX compiles for each shape, and keeps, some 2 MiB.
"""

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.stages import Compiled, Traced

from fssd_jax.devices import apart

F = TypeVar("F", bound=Callable)
PROGRAMS = 256  # that are kept in all
TRACES = 256  # that each function remembers the programs of
CONFIGURATION = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl"),
    *("jax_threefry_partitionable", "jax_default_device", "jax_numpy_rank_promotion"),
)
# Rules of derivatives in a program that is not differentiated any more.
UNUSED_FUNCTIONS = ("custom_jvp_call", "custom_vjp_call")


class Recent(OrderedDict):
    """A dict whose least recently used items are let go."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def get(self, key: Hashable, default: Any = None) -> Any:
        if key in self:
            self.move_to_end(key)
            return self[key]
        return default

    def put(self, key: Hashable, value: Any) -> None:
        self[key] = value
        if len(self) > self.most:
            self.popitem(last=False)


class _Same:
    """Stands for an object that cannot be hashed: equal to itself only."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self):
        return id(self.value)


_PROGRAMS = Recent(PROGRAMS)


def compiled(static: int, donate: Sequence[int] = ()) -> Callable[[Callable], Any]:
    """A decorator: `jax.jit`, whose programs are found again by what they compute.

    Args:
      static: the first so many arguments are known when compiling: functions, and what
        else can be hashed. Another object is traced anew.
      donate: numbers of further arguments, static ones counted, whose memory may be
        used for the result.
    """
    donated = tuple(number - static for number in donate)

    def decorate(function: Callable) -> Callable:
        traces = Recent(TRACES)

        @wraps(function)
        @apart
        def call(*args, **kwargs):
            fixed, arrays = args[:static], args[static:]
            leaves, structure = jax.tree.flatten((arrays, kwargs))
            if any(isinstance(leaf, Tracer) for leaf in leaves):
                return function(*args, **kwargs)
            if _uncompiled():
                arrays, kwargs = jax.device_put((arrays, kwargs))
                return function(*fixed, *arrays, **kwargs)

            known = tuple(map(hashable, fixed)), structure, _kinds(leaves)
            known = known, _configuration()
            program = _PROGRAMS.get(traces.get(known))
            if program is None:
                jitted = jax.jit(partial(function, *fixed), donate_argnums=donated)
                traced = jitted.trace(*arrays, **kwargs)
                key = _key(traced, leaves)
                traces.put(known, key)
                program = _PROGRAMS.get(key) or _compile(key, traced)
            return program(*arrays, **kwargs)

        return call

    return decorate


def _uncompiled() -> bool:
    """Whether `jax.disable_jit` is on, to look into what is computed."""
    return getattr(jax.config, "jax_disable_jit")  # noqa: B009


def by_parts(score: Callable) -> Callable:
    """A decorator: of a score that calls what is compiled, and need not be compiled.

    `map_batches` does not compile it as a whole. For many parts that are one program
    this saves compiling it for each; under `jit` it works, too.
    """
    score.by_parts = True  # pyright: ignore[reportFunctionMemberAccess]
    return score


def traced_once(function: F) -> F:
    """A decorator: of a network, which all programs that ask it trace but once.

    A table of detectors asks one network some eighty times: `fssd score` of a ResNet-20
    took 33 s with all of it compiled before, and takes 24. Only for what reads nothing
    that may change.
    """
    inlined = jax.jit(function, inline=True)

    @wraps(function)
    def call(*args):
        within = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        return (inlined if within else function)(*args)

    return cast(F, call)


def executable(function: Callable, traced: Traced, leaves: Sequence[Any]) -> Callable:
    """The compiled program of a trace, or of an equal one before.

    Args:
      function: itself, to call it with `jax.disable_jit`.
      traced: of `jax.jit(function, ...).trace(...)`.
      leaves: of the arguments that it was traced with.
    """
    if _uncompiled():
        return lambda *args: function(*jax.device_put(args))
    key = _key(traced, leaves)
    return _PROGRAMS.get(key) or _compile(key, traced)


def _key(traced: Traced, leaves: Sequence[Any]) -> Hashable:
    """All that decides a compiled program."""
    arguments = jax.tree.leaves(traced.args_info)
    return (
        *(*spelled(traced.jaxpr), _kinds(leaves)),
        *(jax.tree.structure(traced.args_info), traced.out_tree),
        tuple(argument.donated for argument in arguments),
        _configuration(),
    )


def _compile(key: Hashable, traced: Traced) -> Compiled:
    program = traced.lower().compile()
    _PROGRAMS.put(key, program)
    return program


def spelled(program: ClosedJaxpr) -> tuple[str, tuple[Any, ...]]:
    """A digest of what a program computes, the same in every process; its callbacks.

    (JAX's own text depends on which of its parts were traced before, and so are shared;
    it has the addresses of functions, and no large constants.)
    """
    functions: list[Any] = []
    known: dict[int, str] = {}  # parts that several others share

    def told(value, used: bool) -> str:
        # Since JAX 0.11 both are one class, and `jaxpr` is the program itself.
        if isinstance(value, ClosedJaxpr):
            return f"{body(value.jaxpr)} {told(value.consts, used)}"
        if isinstance(value, Jaxpr):
            return body(value)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return f"({', '.join(told(v, used) for v in value)})"
        if isinstance(value, np.ndarray | jax.Array):
            return _digest(value)
        if callable(value):
            if used:
                functions.append(hashable(value))
            return getattr(value, "__qualname__", type(value).__name__)
        return re.sub("0x[0-9a-f]+", "", str(value))

    def body(jaxpr: Jaxpr) -> str:
        if id(jaxpr) not in known:
            known[id(jaxpr)] = hashlib.sha256(lines(jaxpr).encode()).hexdigest()
        return known[id(jaxpr)]

    def lines(jaxpr: Jaxpr) -> str:
        numbers: dict[Any, int] = {}

        def operand(atom) -> str:
            if isinstance(atom, Literal):
                return f"{atom.val!r}:{atom.aval}"
            return f"v{numbers.setdefault(atom, len(numbers))}:{atom.aval}"

        def row(atoms) -> str:
            return " ".join(map(operand, atoms))

        text = [f"in {row([*jaxpr.constvars, *jaxpr.invars])}"]
        for eqn in jaxpr.eqns:
            used = eqn.primitive.name not in UNUSED_FUNCTIONS
            how = [f"{k}={told(v, used)}" for k, v in sorted(eqn.params.items())]
            into = row(eqn.outvars)
            text.append(f"{into} = {eqn.primitive} {how} {row(eqn.invars)}")
        return "\n".join([*text, f"out {row(jaxpr.outvars)}"])

    return told(program, True), tuple(functions)


def outline(program: ClosedJaxpr) -> list[str]:
    """What a program computes, less how it is cut into parts, which a process decides.

    Each operation with its numbers and results' shapes, as often as it stands there.
    """
    found: Counter[str] = Counter()

    def walk(value) -> None:
        if isinstance(value, ClosedJaxpr):
            found.update(map(_digest, map(jnp.asarray, value.consts)))
        if isinstance(value, list | tuple):
            for part in value:
                walk(part)
        elif isinstance(value, ClosedJaxpr | Jaxpr):
            for eqn in getattr(value, "jaxpr", value).eqns:
                inner = [v for v in eqn.params.values() if _has_jaxpr(v)]
                for part in inner:
                    walk(part)
                if not inner:
                    numbers = [
                        f"{v.val!r}" for v in eqn.invars if isinstance(v, Literal)
                    ]
                    shapes = [f"{v.aval}" for v in eqn.outvars]
                    # Axes, dimensions and the like.
                    how = [
                        f"{k}={re.sub('0x[0-9a-f]+', '', str(v))}"
                        for k, v in sorted(eqn.params.items())
                        if not callable(v)
                    ]
                    found[f"{eqn.primitive} {how} {numbers} {shapes}"] += 1

    walk(program)
    return sorted(f"{count} {what}" for what, count in found.items())


def _has_jaxpr(value) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_jaxpr, value))
    return isinstance(value, ClosedJaxpr | Jaxpr)


def hashable(value: Any) -> Hashable:
    """`value`, or what stands for it where it cannot be hashed."""
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


def _kinds(leaves: Sequence[Any]) -> tuple:
    """What a program is compiled for: shape, type and place of each array."""
    return tuple(
        (
            np.shape(leaf),
            getattr(leaf, "dtype", type(leaf)),
            getattr(leaf, "weak_type", None),
            getattr(leaf, "sharding", None),
        )
        for leaf in leaves
    )


def _digest(array: Any) -> str:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    text = f"{array.dtype} {array.shape} ".encode()
    return hashlib.sha256(text + array.tobytes()).hexdigest()


def _configuration() -> tuple:
    return tuple(getattr(jax.config, name) for name in CONFIGURATION)
