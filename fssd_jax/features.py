"""Functions of Linen models: the features of every layer, and the logits."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from fssd_jax import capture
from fssd_jax.checks import InputError
from fssd_jax.compiled import Recent, compiled, traced_once
from fssd_jax.outputs import (
    FeatureFn,
    LogitFn,
    StochasticLogitFn,
    Variables,
    features_of,
    row_kinds,
)

KEPT = 64  # kinds of input that the layers of a model are remembered for


def make_feature_fn(
    model: nn.Module, layers: Sequence[str] | None = None, **call_kwargs
) -> FeatureFn:
    """Return `(variables, x) -> OrderedDict` of layer name to [batch, ...] features.

    A layer is a submodule of any Linen model, and its feature is what the submodule
    returns: a name is the submodule's path joined by "/", with "#0", "#1", … appended
    where one submodule is called several times, and "/0", "/1", … where `nn.scan` or
    `nn.vmap` runs it for several layers. The features are unpooled, batch first, and in
    the order in which the forward pass makes them, whatever the order of `layers`.
    Under `jit`, what no returned feature needs is not computed. It is traced once for
    each kind of input: if an object that the module reads is changed, make it anew.

    Args:
      model: any Linen module.
      layers: names; None takes `model.feature_layers`. `layer_names` lists them all.
      **call_kwargs: passed to the model's `__call__`, such as `train=False`.

    Raises:
      InputError: no Linen module; a name that stands twice. And the returned function,
        when first called: a name that the model does not have (the error lists the
        right ones), a layer that does not return one array with a row an image, or a
        model in training mode.
    """
    _check_linen(model)
    if isinstance(layers, str):
        raise InputError(
            f"layers: expected a list of names, got {layers!r}: [{layers!r}]"
        )
    wanted = tuple(getattr(model, "feature_layers", ()) if layers is None else layers)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"layers: a name stands twice in {list(wanted)}")
    known = Recent(KEPT)

    @traced_once
    def feature_fn(variables: Variables, x: Any) -> OrderedDict[str, Array]:
        kind = jax.tree.structure(variables), row_kinds(x)
        found = known.get(kind)
        if found is None:
            found = capture.layers_of(model, variables, x, call_kwargs)
            known.put(kind, found)
        _check_names(model, wanted, found)
        places = {name: at for name, at in found.places.items() if name in wanted}
        paths = {at.path for at in places.values()}
        kept = capture.run(model, variables, x, call_kwargs, paths.__contains__)
        return OrderedDict(
            (name, capture.read(at, kept)) for name, at in places.items()
        )

    feature_fn.is_checked = True  # pyright: ignore[reportFunctionMemberAccess]
    return feature_fn


def layer_names(model: nn.Module, variables: Variables, x, **call_kwargs) -> list[str]:
    """Names of all layers that `make_feature_fn` can return, from input to output."""
    _check_linen(model)
    return list(capture.layers_of(model, variables, x, call_kwargs).places)


def _check_linen(model: Any) -> None:
    if isinstance(model, nn.Module):
        return
    what = model.__name__ if isinstance(model, type) else type(model).__name__
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(f"model: got the class {what}; give an instance: {what}()")
    raise InputError(
        f"model: expected a flax.linen.Module, got a {what}; fssd_jax.adapters has "
        "from_nnx and from_equinox, and any function (variables, x) -> OrderedDict of "
        "layer name to features is a feature_fn as it is"
    )


def _check_names(model, wanted: Sequence[str], found: capture.Layers) -> None:
    for name in wanted:
        if name in found.refused and name not in found.places:
            raise InputError(
                f"layer {name!r} is no feature: {found.refused[name]}. Layers of "
                f"{type(model).__name__} with a row for each image of the batch: "
                f"{list(found.places)}"
            )
    missing = [name for name in wanted if name not in found.places]
    if missing or not wanted:
        what = (
            f"unknown layer {', '.join(map(repr, missing))}"
            if missing
            else "the model has no attribute `feature_layers`"
        )
        raise InputError(
            f"{what}; choose layers=[...] from {list(found.places)}, the layers of "
            f"{type(model).__name__}"
        )


def make_init_fn(model: nn.Module) -> Callable[[PRNGKeyArray, Any], Variables]:
    """Return `(key, x) -> variables`, compiled."""
    return partial(_initial, model.init)


@compiled(static=1)
def _initial(init, key, x) -> Variables:
    return init(key, x)


def make_logit_fn(
    model: nn.Module, *, output: int | str | Callable | None = None, **call_kwargs
) -> LogitFn:
    """Return `(variables, x) -> [batch, classes]`, the model's own output.

    Args:
      model: any Linen module.
      output: where the logits are in what the model returns, if it returns several
        arrays: a position, a key, or a function of what it returns.
      **call_kwargs: passed to the model's `__call__`, such as `train=False`.
    """
    _check_linen(model)

    @traced_once
    def logit_fn(variables: Variables, x: Any) -> Any:
        with capture.advised(model, variables, call_kwargs):
            returned = model.apply(variables, x, **call_kwargs)
        return _selected(returned, output)

    return logit_fn


def _selected(returned: Any, output: int | str | Callable | None) -> Any:
    if output is None:
        return returned
    if callable(output):
        return output(returned)
    try:
        return returned[output]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"output={output!r}: the model returns {jax.tree.map(jnp.shape, returned)}"
        ) from error


def make_stochastic_logit_fn(
    model: nn.Module, *, output: int | str | Callable | None = None, **call_kwargs
) -> StochasticLogitFn:
    """Return `(variables, x, key) -> [batch, classes]`, with the "dropout" rng `key`.

    BatchNorm uses its stored statistics, though it be in training mode: what is random
    is dropout alone, and an image's logits do not depend on the others.

    Args:
      model: any Linen module.
      output: as of `make_logit_fn`.
      **call_kwargs: what turns its dropout on, such as `train=True`.
    """
    _check_linen(model)

    @traced_once
    def logit_fn(variables: Variables, x: Any, key: PRNGKeyArray) -> Any:
        rngs = {"dropout": key}
        with capture.advised(model, variables, call_kwargs):
            with nn.intercept_methods(_with_stored_statistics):
                returned = model.apply(variables, x, rngs=rngs, **call_kwargs)
        return _selected(returned, output)

    return logit_fn


def _with_stored_statistics(next_fun, args, kwargs, context):
    """An interceptor of Flax's: BatchNorm outside of training."""
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
        # Flax takes it as a field or as an argument, but not as both.
        if context.module.use_running_average is None:
            args, kwargs = args[:1], kwargs | {"use_running_average": True}
        else:
            object.__setattr__(context.module, "use_running_average", True)
    return next_fun(*args, **kwargs)


def join(feature_fns: Mapping[str, FeatureFn]) -> FeatureFn:
    """Several networks as one: every layer of all of them is a layer "NETWORK/LAYER".

    The result takes a dict of the networks' variables, by the same names.
    """

    def feature_fn(variables: Variables, x: Any) -> OrderedDict[str, Array]:
        return OrderedDict(
            (f"{network}/{layer}", f)
            for network, of_one in feature_fns.items()
            for layer, f in features_of(of_one, variables[network], x).items()
        )

    return feature_fn
