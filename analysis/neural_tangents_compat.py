"""neural-tangents 0.6.5, its last release (December 2023), on the JAX of today.

    from analysis.neural_tangents_compat import nt, predict, stax

Only what is used and tested here is mended: `stax`, `predict.gradient_descent_mse` and
`gradient_descent_mse_ensemble` outside of `jit`, and `empirical_ntk_fn` with the
implementations 1 (JACOBIAN_CONTRACTION) and 3 (STRUCTURED_DERIVATIVES). AUTO fails.

While neural-tangents is imported it is lent the names that it expects of `jax.core`,
`jax.interpreters.ad` and `jax.util`, and an empty `neural_tangents.experimental`, the
only part that wants TensorFlow; afterwards all of these are taken away again. Then five
of its internal functions are replaced by ones that use public JAX.
"""

import contextlib
import functools
import importlib
import itertools
import math
import sys
import types
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.extend.source_info_util
import jax.numpy as jnp
from jax.interpreters import ad

from fssd_jax.extras import MissingExtraError, command

EXPERIMENTAL = "neural_tangents.experimental"


@contextlib.contextmanager
def _lent():
    """JAX as of 2023, as far as neural-tangents looks at it while it is imported."""
    core = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    names = [(jax.core, name, getattr(jax.extend.core, name)) for name in core]
    # A key of its tables of rules, which nothing emits any more.
    names.append((ad, "zeros_like_p", jax.extend.core.Primitive("unused_zeros_like")))
    names = [entry for entry in names if entry[1] not in vars(entry[0])]
    modules: list[Any] = [types.ModuleType("jax.util"), types.ModuleType(EXPERIMENTAL)]
    modules[0].safe_map = lambda f, *xs: list(map(f, *_equally_long(xs)))
    modules[0].safe_zip = lambda *xs: list(zip(*_equally_long(xs), strict=True))
    modules = [module for module in modules if module.__name__ not in sys.modules]
    for owner, name, value in names:
        setattr(owner, name, value)
    sys.modules.update((module.__name__, module) for module in modules)
    try:
        yield
    finally:
        for owner, name, _ in names:
            delattr(owner, name)
        for module in modules:
            del sys.modules[module.__name__]


def _equally_long(xs):
    xs = [list(x) for x in xs]
    if len({len(x) for x in xs}) > 1:
        raise ValueError(f"lengths differ: {[len(x) for x in xs]}")
    return xs


def _imported() -> Any:
    # Who imported it before has made it work, and their copy serves here too.
    if sys.modules.get("neural_tangents") is not None:
        return sys.modules["neural_tangents"]
    try:
        with _lent():
            module = importlib.import_module("neural_tangents")
    except ModuleNotFoundError as error:
        if error.name not in ("neural_tangents", "frozendict"):
            raise
        raise MissingExtraError(
            f"kernels by neural-tangents: the package {error.name} is not installed; "
            f"{command('neural_tangents')}, or without TensorFlow (1.9 GB, not used "
            "here) "
            "`pip install --no-deps neural-tangents==0.6.5 frozendict`"
        ) from error
    except AttributeError as error:
        raise ImportError(
            f"neural-tangents cannot be imported on JAX {jax.__version__} ({error}); "
            'expected 0.10: `pip install "jax<0.11"`'
        ) from error
    # The empty one: whoever wants the real part may import it.
    vars(module).pop("experimental", None)
    return module


def _get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
    """f(primals) and its transposed derivative, by `linearize` and `make_jaxpr`."""
    flat, tree_in = jax.tree.flatten(primals_in)
    tree_out: Any = None

    def flat_fn(*flat):
        nonlocal tree_out
        out, tree_out = jax.tree.flatten(fn(*tree_in.unflatten(flat)))
        return out

    # The rules of neural-tangents are for single operations, not for calls of `jit`.
    with jax.disable_jit():
        primals_out, derivative = jax.linearize(flat_fn, *flat)
        closed = jax.make_jaxpr(derivative)(*flat)

    def pullback_fn(*cotangents):
        out = _empirical._backward_pass(
            closed.jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cotangents)),
            _j_rules=_j_rules,
            _s_rules=_s_rules,
            _fwd=_fwd,
        )
        return tree_in.unflatten(out)

    return tree_out.unflatten(primals_out), pullback_fn


def _eqn_vjp_fn(eqn, cts_in, *invals):
    """Cotangents of the undefined inputs of one linear operation."""
    if eqn is None:
        return (cts_in,)
    linear = [i for i, v in enumerate(invals) if isinstance(v, ad.UndefinedPrimal)]
    out: list[Any] = [None] * len(invals)
    if isinstance(cts_in, ad.Zero):
        for i in linear:
            out[i] = ad.Zero(invals[i].aval)
        return tuple(out)

    def apply(*args):
        values = list(invals)
        for i, value in zip(linear, args, strict=True):
            values[i] = value
        return eqn.primitive.bind(*values, **eqn.params)

    avals = [invals[i].aval for i in linear]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    for i, value in zip(
        linear, jax.linear_transpose(apply, *shapes)(cts_in), strict=True
    ):
        out[i] = value
    return tuple(out)


def _std_basis(pytree):
    """The identity matrix, its columns as pytrees like this one."""
    leaves = jax.tree.leaves(pytree)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    eye = jnp.eye(size, dtype=jax.dtypes.result_type(*leaves))
    return _unravel_array_into_pytree(pytree, 1, eye)


def _unravel_array_into_pytree(pytree, axis, arr):
    """One axis of an array becomes a pytree like this one."""
    leaves, tree = jax.tree.flatten(pytree)
    axis %= max(arr.ndim, 1)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    parts = jnp.split(arr, list(itertools.accumulate(sizes[:-1])), axis)
    before, after = arr.shape[:axis], arr.shape[axis + 1 :]
    return tree.unflatten(
        part.reshape(before + leaf.shape + after)
        for part, leaf in zip(parts, leaves, strict=True)
    )


def _get_fx_axis_and_dtype(fx, fx_axis, params):
    """No axis for every leaf unless given, and the dtype of the parameters."""
    if fx_axis is None:
        fx_axis = jax.tree.map(lambda _: None, fx)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)]
    return fx_axis, functools.reduce(jnp.promote_types, dtypes) if dtypes else None


def _namespace(module, **extra):
    """A module and a few names beside its own; the module itself is not touched."""
    return types.SimpleNamespace(**vars(module) | extra)


nt = _imported()
stax, predict = nt.stax, nt.predict
_empirical: Any = importlib.import_module("neural_tangents._src.empirical")
_replacements = (
    _get_primals_out_and_pullback,
    _eqn_vjp_fn,
    _std_basis,
    _unravel_array_into_pytree,
    _get_fx_axis_and_dtype,
)
missing = [f.__name__ for f in _replacements if not hasattr(_empirical, f.__name__)]
if missing:
    raise ImportError(
        f"neural-tangents {nt.__version__} has no {missing}; expected version 0.6.5: "
        "`pip install --no-deps neural-tangents==0.6.5`"
    )
vars(_empirical).update({f.__name__: f for f in _replacements})
_empirical.core = _namespace(
    jax.core,
    Var=jax.extend.core.Var,
    Primitive=jax.extend.core.Primitive,
    DShapedArray=type("DShapedArray", (), {}),  # dynamic shapes have left JAX
)
_empirical.ad = _namespace(
    ad,
    source_info_util=jax.extend.source_info_util,
    config=types.SimpleNamespace(jax_enable_checks=False),
)
