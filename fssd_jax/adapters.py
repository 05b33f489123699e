"""Networks that are not of Linen as functions: NNX, Equinox, features from elsewhere.

    network = from_nnx(model, ["conv2", "fc1", "head"])
    state = fssd.fit(network.feature_fn, network.variables, noise)

Any function `(variables, x) -> OrderedDict` of layer name to [batch, ...] is a
feature_fn as it is; these write it, for libraries that have modules with names.
"""

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.extend.core import get_opaque_trace_state

from fssd_jax.checks import InputError
from fssd_jax.compiled import traced_once
from fssd_jax.outputs import FeatureFn, LogitFn, Variables, only


class Network(NamedTuple):
    feature_fn: FeatureFn
    logit_fn: LogitFn
    variables: Variables
    layer_names: Callable[[Any], list[str]]  # of inputs [batch, ...]: all layers


def from_nnx(
    model: Any, layers: Sequence[str] | None = None, *, call: Callable | None = None
) -> Network:
    """A network of Flax NNX, as it evaluates: `model.eval()` of a copy.

    A layer is a submodule, by the path of attributes to it joined by "/", with "#0",
    "#1", … where it is called several times. (What runs inside `nnx.scan`,
    `jax.lax.scan` and their like is not seen.)

    Args:
      model: a `flax.nnx.Module`, called with a batch.
      layers: whose outputs are features; None takes `model.feature_layers`.
      call: `(model, x) -> output`, if it is not `model(x)`.

    Returns:
      `variables` are {"params": its `nnx.Param`s, "rest": all others}, as `nnx.State`.

    Raises:
      InputError: no such module; layers that it does not have, when first called.
    """
    from flax import nnx

    if not isinstance(model, nnx.Module):
        raise InputError(f"from_nnx: got a {type(model).__name__}, no flax.nnx.Module")
    copy = nnx.clone(model)
    copy.eval()
    graph, rngs, params, rest = nnx.split(copy, nnx.RngState, nnx.Param, ...)
    # As of Linen: what is trained is told from BatchNorm's statistics.
    variables = {"params": params, "rest": rest}

    def run(variables, x, watch: bool):
        # Made anew, because within a transform none may be changed from outside.
        own = jax.tree.map(lambda a: a, rngs)
        # All in one State, as `nnx.state` gives it, will do, too.
        parts = variables.values() if isinstance(variables, dict) else [variables]
        whole = nnx.merge(graph, own, *parts)
        found = {
            "/".join(map(str, path)): module
            for path, module in nnx.iter_modules(whole)
            if path
        }
        with _tapped(found if watch else {}) as calls:
            output = call(whole, x) if call else whole(x)
        return output, _named(calls)

    return _network(run, variables, layers, model)


def from_equinox(
    model: Any, layers: Sequence[str] | None = None, *, call: Callable | None = None
) -> Network:
    """A network of Equinox, as it infers: `eqx.nn.inference_mode(model)`.

    A layer is a submodule, named as of `from_nnx`, such as "layers/0".

    Args:
      model: an `equinox.Module`, called with one example, as is usual there; it is
        mapped over the batch.
      layers: whose outputs are features; None takes `model.feature_layers`.
      call: `(model, example) -> output`, if it is not `model(example)`: of a model with
        state, `lambda model, x: model(x, state)[0]`.

    Raises:
      InputError: no such module; layers that it does not have, when first called.
    """
    try:
        import equinox as eqx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("from_equinox needs Equinox: pip install equinox") from error

    if not isinstance(model, eqx.Module):
        raise InputError(f"from_equinox: got a {type(model).__name__}, no eqx.Module")
    variables, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)

    def run(variables, x, watch: bool):
        whole = eqx.combine(variables, static)
        found = {name: m for name, m in _walk(whole, eqx.Module) if name}

        def of_one(example):
            with _tapped(found if watch else {}) as calls:
                output = call(whole, example) if call else whole(example)
            return output, _named(calls)

        return jax.vmap(of_one)(x)

    return _network(run, variables, layers, model)


def given(layers: Sequence[str]) -> FeatureFn:
    """A feature_fn for features that were computed elsewhere.

    Its inputs are dicts of layer name to [batch, ...], its variables are nothing:

        feature_fn = given(["fc1", "logits"])
        state = fssd.fit(feature_fn, {}, noise, ind)

    They need not be in [0, 1] like images (whose functions have no `of_features`). An
    input step is not possible: fit with `epsilons=(0.,)`.
    """
    if isinstance(layers, str) or not layers:
        raise InputError(f"layers: expected a list of names, got {layers!r}")
    names = tuple(layers)

    def feature_fn(variables: Variables, x: Any) -> OrderedDict[str, jax.Array]:
        if not isinstance(x, Mapping):
            raise InputError(f"inputs: expected a dict of features of {list(names)}")
        missing = [name for name in names if name not in x]
        if missing:
            raise InputError(f"no features of layers {missing}, but of {sorted(x)}")
        return OrderedDict((name, x[name]) for name in names)

    feature_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return feature_fn


def _network(run: Callable, variables, layers, model) -> Network:
    if isinstance(layers, str):
        raise InputError(f"layers: expected a list of names, got {layers!r}")
    wanted = getattr(model, "feature_layers", ()) if layers is None else layers
    wanted = tuple(wanted)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"layers: a name stands twice in {list(wanted)}")

    @traced_once
    def feature_fn(variables: Variables, x: Any) -> OrderedDict[str, jax.Array]:
        _, found = run(variables, x, True)
        missing = [name for name in wanted if name not in found]
        if missing or not wanted:
            raise InputError(
                f"unknown layers {missing}; choose layers=[...] from {list(found)}, "
                f"the layers of {type(model).__name__}"
            )
        return OrderedDict((k, f) for k, f in found.items() if k in wanted)

    @traced_once
    def logit_fn(variables: Variables, x: Any) -> Any:
        return run(variables, x, False)[0]

    def layer_names(x: Any) -> list[str]:
        names: list[str] = []
        jax.eval_shape(lambda v, x: names.extend(run(v, x, True)[1]), variables, x)
        return names

    return Network(feature_fn, logit_fn, variables, layer_names)


@contextmanager
def _tapped(found: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """Note what these modules return, in call order, while the context lasts.

    Neither library has a way that sees all modules, so their classes are changed for as
    long as the network is traced, and put back.
    """
    calls: list[tuple[str, Any]] = []
    here = get_opaque_trace_state()
    running: set[int] = set()
    modules = {id(module): name for name, module in found.items()}
    kinds = {type(module) for module in found.values() if callable(module)}
    before = {kind: kind.__dict__.get("__call__") for kind in kinds}

    def watched(kind):
        inherited = kind.__call__

        def __call__(self, *args, **kwargs):
            name = modules.get(id(self))
            if name is None or id(self) in running:  # a class calls that it is made of
                return inherited(self, *args, **kwargs)
            running.add(id(self))
            try:
                output = inherited(self, *args, **kwargs)
            finally:
                running.discard(id(self))
            # Out of a transform within the network, no output can be taken.
            if get_opaque_trace_state() == here:
                calls.append((name, output))
            return output

        return __call__

    try:
        for kind, call in {kind: watched(kind) for kind in kinds}.items():
            type.__setattr__(kind, "__call__", call)
        yield calls
    finally:
        for kind, call in before.items():
            if call is None:
                type.__delattr__(kind, "__call__")
            else:
                type.__setattr__(kind, "__call__", call)


def _walk(tree: Any, kind: type, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, module) of all modules below, by attributes, in lists and in dicts."""
    if isinstance(tree, kind):
        yield name, tree
    if isinstance(tree, Mapping):
        parts = tree.items()
    elif isinstance(tree, list | tuple):
        parts = enumerate(tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = [
            (f.name, getattr(tree, f.name, None)) for f in dataclasses.fields(tree)
        ]
    else:
        return
    for key, part in parts:
        yield from _walk(part, kind, f"{name}/{key}" if name else str(key))


def _named(calls: list[tuple[str, Any]]) -> OrderedDict[str, jax.Array]:
    """The arrays that were returned, by name."""
    counts = Counter(name for name, _ in calls)
    seen: Counter[str] = Counter()
    found: OrderedDict[str, jax.Array] = OrderedDict()
    for name, output in calls:
        number = f"#{seen[name]}" if counts[name] > 1 else ""
        seen[name] += 1
        if isinstance(only(output), jax.Array):
            found[name + number] = only(output)
    return found
