"""What a network gives, checked: features [batch, ...] of its layers, and logits.

`features_of` and `logits_of` are the door between a network and all that reads it.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from fssd_jax.checks import InputError
from fssd_jax.compiled import Recent, hashable

Variables = Any  # a pytree; of Linen, a dict such as {"params": …}
# A batch of a network's inputs: floats or ids, or several arrays that belong together.
Inputs = PyTree[Shaped[Array | np.ndarray, "batch ..."]]
# OrderedDict, not dict: `jit` sorts the keys of a plain dict, and layer order matters.
FeatureFn = Callable[[Variables, Any], OrderedDict[str, Array]]
LogitFn = Callable[[Variables, Any], Array]
# (variables, x, key): dropout is on, and the key decides what is dropped.
StochasticLogitFn = Callable[[Variables, Any, PRNGKeyArray], Array]


def features_of(
    feature_fn: FeatureFn, variables: Variables, x: Inputs
) -> OrderedDict[str, Array]:
    """`feature_fn(variables, x)`, of which is checked that a row is an image.

    Args:
      feature_fn: any function that returns a mapping of layer name to [batch, ...].
      variables: its variables.
      x: a batch; uint8 are taken for pixels, and become floats in [0, 1].

    Raises:
      InputError: it returns something else, or a layer whose first axis does not grow
        with the batch.
    """
    x = as_pixels(x)
    found = _applied(feature_fn, variables, x)
    if not isinstance(found, Mapping):
        raise InputError(
            f"a feature_fn returns a mapping of layer name to features [batch, ...], "
            f"got a {type(found).__name__}; for one layer "
            "OrderedDict(features=...), and for Linen models make_feature_fn"
        )
    if not found:
        raise InputError("the feature_fn returns no layers; at least one is needed")
    found = OrderedDict((name, only(f)) for name, f in found.items())
    # What `jit` or `steps` have wrapped is known by what it stands for.
    wrapper = inspect.unwrap(feature_fn, stop=lambda f: hasattr(f, "stands_for"))
    feature_fn = getattr(wrapper, "stands_for", feature_fn)
    if not getattr(feature_fn, "is_checked", False):
        _check_rows(feature_fn, variables, x, found)
    for f in found.values():
        _check_real(f)
    return found


def logits_of(
    logit_fn: LogitFn | StochasticLogitFn, variables: Variables, x: Inputs, *also: Any
) -> Float[Array, "batch classes"]:
    """`logit_fn(variables, x, *also)` in float32 or float64, checked.

    Args: as of `features_of`; `also` may be the key of a `StochasticLogitFn`.

    Raises:
      InputError: it does not return one array [batch, classes] of two or more classes.
    """
    x = as_pixels(x)
    returned = _applied(logit_fn, variables, x, *also)
    # One layer of a feature_fn is not taken for logits, unless it is called so.
    is_other = isinstance(returned, Mapping) and list(returned) != ["logits"]
    logits: Any = returned if is_other else only(returned)
    if not hasattr(logits, "shape"):
        raise InputError(
            f"the network returns {jax.tree.map(jnp.shape, logits)}, and where its "
            "logits are is not known; say so: make_logit_fn(model, output=0), or a "
            "key, or give a function of your own"
        )
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != _count(x):
        raise InputError(
            f"the network returns {list(logits.shape)} for {_count(x)} images; "
            "expected logits [batch, classes] of two or more classes. One logit z "
            "[batch] of a sigmoid is two: let your logit_fn return "
            "jnp.stack([0 * z, z], -1)"
        )
    _check_real(logits)
    return float32(logits)


def _applied(apply_fn: Callable, variables: Variables, x: Any, *also: Any) -> Any:
    """What the network returns; what it raises becomes an `InputError`."""
    try:
        return apply_fn(variables, x, *also)
    except (InputError, RuntimeError, MemoryError):  # the latter are the device's
        raise
    except Exception as error:
        given = jax.tree.map(lambda a: f"{a.dtype}{[*a.shape]}", x)
        first_line = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"the network raises {type(error).__name__} for inputs {given}: "
            f"{first_line}. It is called as f(variables, inputs); uint8 are pixels and "
            "come as floats (give ids as int32), a dict of arrays comes as a dict, and "
            "labels are not among them: they stand beside the inputs, (x, y)"
        ) from error


def as_pixels(x: Any) -> Any:
    """uint8 as floats in [0, 1]: what a network takes, and what has a gradient."""
    convert = lambda a: jnp.float32(a) / 255 if a.dtype == jnp.uint8 else a  # noqa: E731
    return jax.tree.map(lambda leaf: convert(jnp.asarray(leaf)), x)


_CHECKED: Recent = Recent(256)  # functions, and kinds of rows, that were found right


def _check_rows(feature_fn, variables, x, found: Mapping) -> None:
    """Raise `InputError` unless the first axis of all arrays is that of the images.

    Found by tracing one image more, and not by comparing lengths, which may be equal by
    accident. Once for each function and kind of input.
    """
    key = hashable(feature_fn), row_kinds(x), tuple(found)
    count = _count(x)
    for name, f in found.items():
        if not hasattr(f, "shape") or not f.ndim or f.shape[0] != count:
            raise InputError(
                f"layer {name!r}: got {jax.tree.map(jnp.shape, f)} for {count} "
                "images, expected one array [batch, ...]"
            )
    if _CHECKED.get(key):
        return
    more = lambda a: jax.ShapeDtypeStruct((count + 1, *a.shape[1:]), a.dtype)  # noqa: E731
    try:
        other = jax.eval_shape(feature_fn, variables, jax.tree.map(more, x))
    except Exception:  # of a network that takes one batch size only
        return
    for name, f in found.items():
        expected, got = (count + 1, *f.shape[1:]), only(other[name]).shape
        if got != expected:
            raise InputError(
                f"layer {name!r}: its first axis is not the batch: {list(f.shape)} "
                f"for {count} images and {list(got)} for {count + 1}; move that axis "
                "to the front, as by jnp.moveaxis"
            )
    _CHECKED.put(key, True)


def _check_real(f: Array) -> None:
    if jnp.issubdtype(f.dtype, jnp.complexfloating):
        raise InputError(
            f"the network returns complex numbers, {f.dtype}{[*f.shape]}; take their "
            "absolute values, or their real and imaginary parts"
        )


def _count(x: Any) -> int:
    return len(jax.tree.leaves(x)[0])


def row_kinds(x: Any) -> Hashable:
    leaves, structure = jax.tree.flatten(x)
    return structure, tuple((jnp.shape(a)[1:], jnp.result_type(a)) for a in leaves)


def only(value: Any) -> Any:
    """The one array in what a network returns, such as (x,) or (x, None)."""
    leaves = jax.tree.leaves(value)
    return leaves[0] if len(leaves) == 1 else value


# ---- features -----------------------------------------------------------------------


def float32(f: Array) -> Float[Array, "..."]:
    """`f` in float32, or in float64 if it is: what a network's output is scored in.

    Sums of thousands of bfloat16 lose their digits, and its 8 bits cannot tell a
    probability of 0.997 from 1.
    """
    return f.astype(jnp.promote_types(f.dtype, jnp.float32))


def margin(logits: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
    """log p/(1 − p) of the largest probability p: its logit less all others' logsumexp.

    In the order of p, but where p rounds to 1 it still tells images apart, and its
    gradient does not vanish, as that of log p does.
    """
    top = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(top, -jnp.inf, logits), axis=-1)
    return jnp.where(top, logits, 0).sum(-1) - others


def log_mean_softmax(
    logits: Float[Array, "pass batch classes"],
) -> Float[Array, "batch classes"]:
    """log (1/P) Σ_p softmax(f_p), exact where a softmax rounds to 0 or 1."""
    logs = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(logits))


def same_layers(fitted: Iterable[str], features: Iterable[str]) -> None:
    """Raise `InputError` unless the features are of the layers that a state is of.

    In the same order, too: columns of distances and weights have no names.
    """
    if list(features) != list(fitted):
        raise InputError(
            f"the state was fitted on layers {list(fitted)}, the features are of "
            f"{list(features)}; use one feature_fn for both, or fit again"
        )


def same_sizes(
    fitted: Mapping[str, Any], features: Mapping[str, Float[Array, "batch dim"]]
) -> None:
    """Raise `InputError` unless the features have as many numbers as those fitted on.

    Args:
      fitted: by layer, an array whose last axis is that of the features.
      features: of the same layers, pooled.
    """
    for name, f in features.items():
        expected = fitted[name].shape[-1]
        if f.shape[-1] != expected:
            raise InputError(
                f"layer {name!r} has {f.shape[-1]} numbers for these inputs, and "
                f"{expected} for those that the state was fitted on: images of another "
                "size, or single ones without a batch axis?"
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
        reduce = lambda f: (  # noqa: E731
            f.mean(axis=tuple(range(1, f.ndim - 1))) if f.ndim > 1 else f[:, None]
        )
    else:
        raise InputError(f"pool: expected 'flatten' or 'mean', got {how!r}")
    return OrderedDict((name, reduce(float32(f))) for name, f in features.items())
