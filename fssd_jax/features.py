"""Features of every layer from one forward pass, by Flax's `capture_intermediates`."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from fssd_jax.checks import InputError
from fssd_jax.compiled import compiled

Variables = dict[str, Any]
# OrderedDict, not dict: `jit` sorts the keys of a plain dict, and layer order matters.
FeatureFn = Callable[[Variables, ArrayLike], OrderedDict[str, Array]]
LogitFn = Callable[[Variables, ArrayLike], Array]
# (variables, x, key): dropout is on, and the key decides what is dropped.
StochasticLogitFn = Callable[[Variables, ArrayLike, PRNGKeyArray], Array]


def make_feature_fn(
    model: nn.Module, layers: Sequence[str] | None = None, **call_kwargs
) -> FeatureFn:
    """Return `(variables, x) -> OrderedDict` of layer name to [batch, ...] features.

    A layer is a submodule of any Linen model, and its feature is what the submodule
    returns: a name is the submodule's path joined by "/", with "#0", "#1", … appended
    where one submodule is called several times. The features are unpooled and in the
    order in which the forward pass makes them, whatever the order of `layers`.
    Under `jit`, what no returned feature needs is not computed.

    Args:
      model: any Linen module.
      layers: names; None takes `model.feature_layers`. `layer_names` lists them all.
      **call_kwargs: passed to the model's `__call__`, such as `train=False`.

    Raises (the returned function, when first called):
      InputError: a name that the model does not have (the error lists the right
        ones), or a layer that does not return one array.
    """
    wanted = tuple(getattr(model, "feature_layers", ()) if layers is None else layers)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"layers: a name stands twice in {list(wanted)}")

    def feature_fn(variables: Variables, x: ArrayLike) -> OrderedDict[str, Array]:
        found = _capture(model, variables, x, set(wanted), call_kwargs)
        missing = [name for name in wanted if name not in found]
        if missing or not wanted:
            what = (
                f"unknown layer {', '.join(map(repr, missing))}"
                if missing
                else "the model has no attribute `feature_layers`"
            )
            raise InputError(
                f"{what}; choose layers=[...] from {list(found)}, the layers of "
                f"{type(model).__name__}"
            )
        features = OrderedDict((k, v) for k, v in found.items() if k in wanted)
        for name, value in features.items():
            if not isinstance(value, jax.Array) or value.ndim < 2:
                raise InputError(
                    f"layer {name!r} returns {jax.tree.map(jnp.shape, value)}, not one "
                    "array [batch, ...]; give the wanted output a named submodule"
                )
        return features

    return feature_fn


def make_init_fn(model: nn.Module) -> Callable[[PRNGKeyArray, ArrayLike], Variables]:
    """Return `(key, x) -> variables`, compiled."""
    return partial(_initial, model.init)


@compiled(static=1)
def _initial(init, key, x) -> Variables:
    return init(key, x)


def layer_names(model: nn.Module, variables: Variables, x, **call_kwargs) -> list[str]:
    """Names of all layers that `make_feature_fn` can return, from input to output."""
    seen = []
    jax.eval_shape(
        lambda: seen.extend(_capture(model, variables, x, set(), call_kwargs))
    )
    return seen


def make_logit_fn(model: nn.Module, **call_kwargs) -> LogitFn:
    """Return `(variables, x) -> [batch, classes]`, the model's own output."""

    def logit_fn(variables: Variables, x: ArrayLike) -> Array:
        return cast(Array, model.apply(variables, x, **call_kwargs))

    return logit_fn


def make_stochastic_logit_fn(model: nn.Module, **call_kwargs) -> StochasticLogitFn:
    """Return `(variables, x, key) -> [batch, classes]`, with the "dropout" rng `key`.

    Args:
      model: any Linen module.
      **call_kwargs: what turns its dropout on, such as `train=True`.
    """

    def logit_fn(variables: Variables, x: ArrayLike, key: PRNGKeyArray) -> Array:
        rngs = {"dropout": key}
        return cast(Array, model.apply(variables, x, rngs=rngs, **call_kwargs))

    return logit_fn


def float32(f: Array) -> Float[Array, "..."]:
    """`f` in float32, or in float64 if it is: what a network's output is scored in.

    Sums of thousands of bfloat16 lose their digits, and its 8 bits cannot tell a
    probability of 0.997 from 1.
    """
    return f.astype(jnp.promote_types(f.dtype, jnp.float32))


def join(feature_fns: Mapping[str, FeatureFn]) -> FeatureFn:
    """Several networks as one: every layer of all of them is a layer "NETWORK/LAYER".

    The result takes a dict of the networks' variables, by the same names.
    """

    def feature_fn(variables: Variables, x: ArrayLike) -> OrderedDict[str, Array]:
        return OrderedDict(
            (f"{network}/{layer}", f)
            for network, of_one in feature_fns.items()
            for layer, f in of_one(variables[network], x).items()
        )

    return feature_fn


def same_layers(fitted: Iterable[str], features: Iterable[str]) -> None:
    """Raise `InputError` unless the features are of the layers that a state is of.

    In the same order, too: columns of distances and weights have no names.
    """
    if list(features) != list(fitted):
        raise InputError(
            f"the state was fitted on layers {list(fitted)}, the features are of "
            f"{list(features)}; use one feature_fn for both, or fit again"
        )


def pool(
    features: OrderedDict[str, Float[Array, "batch ..."]],
    how: Literal["flatten", "mean"],
) -> OrderedDict[str, Float[Array, "batch _"]]:
    """Flatten each feature, or average it over all axes but the first and the last.

    The result is float32 or float64.
    """
    if how == "flatten":
        reduce = lambda f: f.reshape(f.shape[0], -1)  # noqa: E731
    elif how == "mean":
        reduce = lambda f: f.mean(axis=tuple(range(1, f.ndim - 1)))  # noqa: E731
    else:
        raise InputError(f"pool: expected 'flatten' or 'mean', got {how!r}")
    return OrderedDict((name, reduce(float32(f))) for name, f in features.items())


def _capture(model, variables, x, wanted, call_kwargs) -> OrderedDict[str, Any]:
    """Outputs by layer name, in call order; None for those that are not wanted."""
    calls: list[tuple[str, ...]] = []
    bases = {name.split("#")[0] for name in wanted}

    # Flax asks this filter as each call ends, which is the only record of the order:
    # the collection that it returns is sorted by name.
    def keep(module: nn.Module, method: str) -> bool:
        if method != "__call__" or not module.path:
            return False
        calls.append(module.path)
        return "/".join(module.path) in bases

    _, state = model.apply(
        variables,
        x,
        capture_intermediates=keep,
        mutable=["intermediates"],
        **call_kwargs,
    )
    found: OrderedDict[str, Any] = OrderedDict()
    for i, path in enumerate(calls):
        name, number = "/".join(path), calls[:i].count(path)
        values: Any = (None,) * calls.count(path)
        if name in bases:
            values = state.get("intermediates", {})
            for part in (*path, "__call__"):
                if part not in values:
                    raise InputError(
                        f"layer {name!r} runs inside a lifted transform such as "
                        "nn.scan, which keeps its output; give the transform "
                        'variable_axes={"intermediates": 0}'
                    )
                values = values[part]
        if number < len(values):  # a lifted transform may trace one call twice
            suffix = f"#{number}" if len(values) > 1 else ""
            found[name + suffix] = values[number]
    return found
