"""Outputs of the submodules of a Linen model, by Flax's `capture_intermediates`.

Which of them are features, and along which axis the images lie, is found by tracing the
model for two batch sizes: the axis that grows with the batch is that of the images.
"""

import inspect
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations, product
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from fssd_jax.checks import InputError
from fssd_jax.outputs import only

# What models call the argument that turns dropout and BatchNorm to training.
SWITCHES = (
    *("train", "training", "is_training", "deterministic", "use_running_average"),
    *("inference", "eval", "is_eval", "mode"),
)
LIFTED = (
    "it runs inside a lifted transform such as nn.scan, {}; give the transform "
    'variable_axes={{"intermediates": 0}} beside those of the params'
)
INSIDE = (
    "it runs inside a transform of JAX, such as jax.lax.scan or jax.vmap; use Flax's "
    "own, such as nn.scan or nn.vmap"
)
Path = tuple[str, ...]
Shape = tuple[int, ...]


class Place(NamedTuple):
    """Where the feature of a layer lies in what its submodule returned."""

    path: Path
    number: int  # of the call, where one submodule is called several times
    batch_axis: int
    stacked: Shape  # axes along which nn.scan or nn.vmap put layers together
    index: Shape  # which of these layers it is


class Layers(NamedTuple):
    places: OrderedDict[str, Place]  # from input to output
    refused: dict[str, str]  # what has a name, but no feature → why


class _Output(NamedTuple):
    inner: Shape | None  # as the submodule returned it; None if that is not one array
    final: Shape | None  # as Flax gives it, and a transform may have changed it
    told: str  # what it is
    why: str = ""  # there is none, if there is none


def layers_of(model: nn.Module, variables, x, call_kwargs: Mapping) -> Layers:
    """All layers of a model, for inputs like `x`. Nothing is computed."""
    count = len(jax.tree.leaves(x)[0])
    here = _trace(model, variables, x, call_kwargs, count)
    try:
        there = _trace(model, variables, x, call_kwargs, count + 1)
    except Exception:  # of a model that takes one batch size only
        there = None
    calls = Counter(path for path, _ in here)
    found = {
        key: _axes(output, there.get(key) if there else None, count, there is None)
        for key, output in here.items()
    }
    of_path = {path: axes for (path, _), axes in found.items()}
    order, groups, refused = [], {}, {}
    for position, (key, output) in enumerate(here.items()):
        path, number = key
        name = "/".join(path) + (f"#{number}" if calls[path] > 1 else "")
        axes = found[key]
        if isinstance(axes, str):
            refused[name] = axes
            continue
        batch, stacked = axes
        # Of a scan in a scan, the outer comes first: its axis is where it is in what
        # the outer module returns.
        outer = [of_path.get(path[:k]) for k in range(1, len(path))]
        first = [axis for of in outer if isinstance(of, tuple) for axis in of[1]]
        stacked = tuple(dict.fromkeys([*(a for a in first if a in stacked), *stacked]))
        if stacked:
            refused[name] = f"it is several, which a transform put together: {name}/0 …"
            groups.setdefault(path, position)
        assert output.final is not None  # or there were no axes
        sizes = [range(output.final[axis]) for axis in stacked]
        for index in product(*sizes):
            place = Place(path, number, batch, stacked, index)
            order.append((position, "/".join([name, *map(str, index)]), place))

    begun: dict[Path | None, int] = {}  # where the first part of a scan was called

    def turn(entry) -> tuple:
        """Layers of one scan come one after the other, each with all its parts."""
        position, _, place = entry
        roots = [place.path[:k] for k in range(1, len(place.path) + 1)]
        root = next((root for root in roots if root in groups), None)
        first = begun.setdefault(root, position) if root else position
        return first, place.index, position

    places = OrderedDict((name, place) for _, name, place in sorted(order, key=turn))
    return Layers(places, refused)


def read(place: Place, intermediates: Mapping) -> jax.Array:
    """The feature [batch, ...] of a layer."""
    value: Any = intermediates
    for part in (*place.path, "__call__"):
        value = value[part]
    value = only(value[place.number])
    for axis, index in sorted(zip(place.stacked, place.index, strict=True))[::-1]:
        value = jnp.take(value, index, axis=axis)
    return jnp.moveaxis(
        value,
        place.batch_axis - sum(axis < place.batch_axis for axis in place.stacked),
        0,
    )


def run(model: nn.Module, variables, x, call_kwargs, wanted) -> Mapping:
    """Flax's intermediates of the paths that `wanted(path)` is true of."""

    def keep(module: nn.Module, method: str) -> bool:
        return method == "__call__" and bool(module.path) and wanted(module.path)

    with advised(model, variables, call_kwargs):
        _, state = model.apply(
            variables,
            x,
            capture_intermediates=keep,
            mutable=["intermediates"],
            **call_kwargs,
        )
    return dict(state).get("intermediates", {})


def _trace(
    model, variables, x, call_kwargs, count: int
) -> OrderedDict[tuple[Path, int], _Output]:
    """What each call of a submodule returns for `count` rows, in call order."""
    calls: list[tuple[Path, Shape | None, bool]] = []
    found: OrderedDict[tuple[Path, int], _Output] = OrderedDict()

    def record(next_fun, args, kwargs, context):
        value = next_fun(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            # Where the module's variables come from, and not deeper in a transform,
            # out of which its output cannot be taken.
            seen = context.module.scope.trace_level == get_opaque_trace_state()
            calls.append((context.module.path, _shape(value), seen))
        return value

    def trace(variables, x):
        with nn.intercept_methods(record):
            intermediates = run(model, variables, x, call_kwargs, lambda path: True)
        counts: Counter[Path] = Counter()
        for path, inner, seen in calls:
            values: Any = intermediates
            for part in (*path, "__call__"):
                values = values.get(part, {})
            number = counts[path]
            counts[path] += 1
            if not seen:
                found[path, number] = _Output(inner, None, "", INSIDE)
            elif not values and not number:
                why = LIFTED.format("which keeps its output")
                found[path, 0] = _Output(inner, None, "", why)
            elif number < len(values):  # a transform may trace one call twice
                told = str(jax.tree.map(jnp.shape, values[number]))
                found[path, number] = _Output(inner, _shape(values[number]), told)

    rows = lambda a: jax.ShapeDtypeStruct((count, *a.shape[1:]), a.dtype)  # noqa: E731
    jax.eval_shape(trace, variables, jax.tree.map(rows, x))
    return found


def _shape(value: Any) -> Shape | None:
    value = only(value)
    is_array = isinstance(value, jax.Array) and value.ndim
    return value.shape if is_array else None


def _axes(
    a: _Output, b: _Output | None, count: int, once: bool
) -> tuple[int, Shape] | str:
    """(axis of the images, axes of stacked layers), or why there are none.

    Args:
      a, b: of `count` rows, and of one more; b is None if that was not traced.
      once: whether nothing of one more could be traced.
    """
    if a.why:
        return a.why
    if a.inner is None or a.final is None:
        return f"it returns {a.told}, not one array; name a submodule that returns one"
    b = a if once else b
    if b is None or b.inner is None or b.final is None or len(a.final) != len(b.final):
        return "it returns something else for another number of images"
    grown = [k for k, (m, n) in enumerate(zip(a.final, b.final, strict=True)) if m != n]
    grown = [0] if once and a.final[0] == count else grown
    if len(grown) != 1 or a.final[grown[0]] != count:
        return f"its output {a.told} for {count} images does not have a row for each"
    found = {
        tuple(axis for axis in axes if axis not in grown)
        for axes in combinations(range(len(a.final)), len(a.final) - len(a.inner))
        if _without(a.final, axes) == a.inner and _without(b.final, axes) == b.inner
    }
    if len(found) != 1:
        return LIFTED.format("and which axis is that of layers cannot be told")
    return grown[0], found.pop()


def _without(shape: Shape, axes: Shape) -> Shape:
    return tuple(n for axis, n in enumerate(shape) if axis not in axes)


@contextmanager
def advised(model: nn.Module, variables, call_kwargs: Mapping) -> Iterator[None]:
    """Turn what Flax raises for a wrong call into `InputError`s that say what to do."""
    name = type(model).__name__
    if not isinstance(variables, Mapping):
        raise InputError(
            f"variables: expected a dict such as {{'params': …}}, as {name}.init "
            f"returns it, got a {type(variables).__name__}"
        )
    parameters = inspect.signature(type(model).__call__).parameters
    try:
        yield
    except (flax.errors.ModifyScopeVariableError, flax.errors.InvalidRngError) as error:
        switches = [s for s in SWITCHES if s in parameters and s not in call_kwargs]
        how = (
            f"{switches[0]}={switches[0] in SWITCHES[3:7]}"
            if switches
            else "its argument that turns this off, such as train=False"
        )
        raise InputError(
            f"{name} runs in training mode ({_first_line(error)}); pass {how} where "
            "its function is made, as in make_feature_fn(model, train=False), or in "
            "make_logit_fn(model, train=False), which may stand for the model"
        ) from error
    except (
        flax.errors.ScopeParamNotFoundError,
        flax.errors.ScopeVariableNotFoundError,
        flax.errors.ScopeCollectionNotFound,
        flax.errors.ApplyScopeInvalidVariablesStructureError,
        flax.errors.ApplyScopeInvalidVariablesTypeError,
    ) as error:
        raise InputError(
            f"variables do not fit {name} ({_first_line(error)}): expected the whole "
            f"dict that its init returns, with 'params' (and 'batch_stats'), got "
            f"{sorted(map(str, variables))}"
        ) from error
    except flax.errors.ScopeParamShapeError as error:
        raise InputError(
            f"{name} does not take these inputs with these variables: "
            f"{_first_line(error)}"
        ) from error
    except TypeError as error:
        if "__call__() " not in str(error):
            raise
        given = [key for key in parameters if key != "self"]
        raise InputError(
            f"{_first_line(error)}: {name} takes {given}; name them where its function "
            "is made, as in make_feature_fn(model, train=False), or in "
            "make_logit_fn(model, train=False), which may stand for the model"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].split(" (https://")[0]
