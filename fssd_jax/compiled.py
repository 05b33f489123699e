"""What is compiled is kept, found again by value, and let go when it is old.

Every compiled function maps memory, and a process may have 65,530 maps: some 600
trainings, each compiled anew, reach them.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache, partial, wraps
from types import BuiltinFunctionType, FunctionType
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

PROGRAMS = 64  # compiled programs that one function keeps
PLAIN = (bool, int, float, complex, str, bytes, Enum, type, np.dtype)
FUNCTIONS = (FunctionType, BuiltinFunctionType)
OBJECTS = 64  # functions that one maker keeps


def compiled(static: int, donate: Sequence[int] = ()) -> Callable[[Callable], Any]:
    """A decorator: `jax.jit`, of which the least recently used programs are let go.

    Args:
      static: the first so many arguments are known when compiling: functions, and what
        else can be hashed. Functions are told apart by identity; those of a maker
        `by_value` are the same for equal arguments.
      donate: numbers of further arguments, static ones counted, whose memory may be
        used for the result.
    """

    def decorate(function: Callable) -> Callable:
        @lru_cache(maxsize=PROGRAMS)
        def program(fixed, signature):
            # One function a signature, so that letting it go lets go of one program.
            donated = tuple(number - static for number in donate)
            return jax.jit(partial(function, *fixed), donate_argnums=donated)

        @wraps(function)
        def call(*args, **kwargs):
            fixed, arrays = args[:static], args[static:]
            leaves, structure = jax.tree.flatten((arrays, kwargs))
            signature = structure, tuple(map(_shape_and_type, leaves))
            return program(fixed, signature)(*arrays, **kwargs)

        return call

    return decorate


def by_parts(score: Callable) -> Callable:
    """A decorator: of a score that calls what is compiled, and need not be compiled.

    `map_batches` does not compile it as a whole. For many parts that are one program
    this saves compiling it for each; under `jit` it works, too.
    """
    score.by_parts = True  # pyright: ignore[reportFunctionMemberAccess]
    return score


def by_value(make: Callable) -> Callable:
    """A decorator: the same object for equal arguments, so that its programs serve.

    What could change unseen makes a new one: a model that holds a list, an array, or an
    object of a class of yours.
    """

    @lru_cache(maxsize=OBJECTS)
    def kept(args, options, _):
        return make(*args, **dict(options))

    @wraps(make)
    def call(*args, **options):
        key = args, tuple(sorted(options.items()))
        if not _fixed(key):
            return make(*args, **options)
        # 1, 1.0 and True are equal, but make other networks: so does how they print.
        return kept(*key, repr(key))

    return call


def _fixed(value: Any) -> bool:
    """Whether a value stays what it is: plain data, functions, and models of these."""
    if isinstance(value, tuple | frozenset):
        return all(map(_fixed, value))
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        try:
            hash(value)  # those that can be changed cannot be hashed
        except TypeError:
            return False
        if isinstance(value, Mapping):
            return all(map(_fixed, value.values()))
        names = (field.name for field in dataclasses.fields(value))
        return all(_fixed(getattr(value, name, None)) for name in names)
    if value is None or isinstance(value, PLAIN + FUNCTIONS):
        return True
    # jax.nn.relu and jnp.float32 are of classes of JAX's own.
    return type(value).__module__.split(".")[0] in ("jax", "jaxlib", "flax")


def spelled(program: ClosedJaxpr) -> tuple[str, list[Any]]:
    """A program as text, the same in every process, and the constants in it.

    (JAX's own text depends on which of its parts were traced before, and so are shared;
    it has the addresses of functions, and no large constants.)
    """
    constants: list[Any] = []

    def told(value) -> str:
        if isinstance(value, ClosedJaxpr):
            constants.extend(value.consts)
            return told(value.jaxpr)
        if isinstance(value, Jaxpr):
            return lines(value)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return f"({', '.join(map(told, value))})"
        if isinstance(value, np.ndarray | jax.Array):
            constants.append(value)
            return "constant"
        if callable(value):
            return getattr(value, "__qualname__", type(value).__name__)
        return re.sub("0x[0-9a-f]+", "", str(value))

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
            how = [f"{k}={told(v)}" for k, v in sorted(eqn.params.items())]
            into = row(eqn.outvars)
            text.append(f"{into} = {eqn.primitive} {how} {row(eqn.invars)}")
        return "\n".join([*text, f"out {row(jaxpr.outvars)}"])

    return told(program), constants


def _shape_and_type(leaf) -> tuple:
    return np.shape(leaf), getattr(leaf, "dtype", type(leaf))
