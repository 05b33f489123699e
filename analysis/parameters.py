"""What of a network's variables is trained: of a Linen one, of NNX, of any function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fssd_jax import checks
from fssd_jax.features import make_logit_fn
from fssd_jax.outputs import Variables, only


def parameters(variables: Variables) -> Any:
    """`variables["params"]`, or all of `variables` where there is no such entry.

    Raises:
      InputError: if some of them are no floating-point numbers.
    """
    entry = has_entry(variables)
    params = variables["params"] if entry else variables
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            which = "of the parameters" if entry else 'without an entry "params" all'
            raise checks.InputError(
                f"variables: {which} are trained, but {jax.tree_util.keystr(path)} is "
                f"of {jnp.result_type(leaf)}; put what is trained, and nothing else, "
                'into an entry "params", and the rest beside it'
            )
    return params


def difference(after: Variables, before: Variables) -> Variables:
    """`after` − `before`; of what has no derivative, as counters, masks and keys, 0."""

    def of_leaf(a, b):
        if jnp.issubdtype(jnp.result_type(b), jnp.inexact):
            return a - b
        return jnp.zeros(jnp.shape(b), bool)

    return jax.tree.map(of_leaf, after, before)


def with_parameters(variables: Variables, params: Any) -> Variables:
    """`variables` with these parameters, and of the same kind; see `parameters`."""
    if not has_entry(variables):
        return params
    if isinstance(variables, dict):
        return {**variables, "params": params}
    # FrozenDict, NNX's State: others may not be put together of their entries.
    new = iter(jax.tree.leaves(params))
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables)
    return structure.unflatten(
        next(new) if getattr(path[0], "key", None) == "params" else leaf
        for path, leaf in leaves
    )


def directed(variables: Variables, of: Any) -> Variables:
    """A tree like the parameters as a part of `variables`."""
    return {"params": of} if has_entry(variables) else of


def zeros(params: Any) -> Any:
    """To sum many trees like the parameters in, in float32 at least.

    In 16 bits a sum ends where one more is less than half of its last digit.
    """
    return jax.tree.map(lambda p: jnp.zeros(p.shape, wide(p)), params)


def wide(array) -> Any:
    """Its type, or float32 if that has fewer bits."""
    return jnp.promote_types(array.dtype, jnp.float32)


def has_entry(variables: Variables) -> bool:
    """Of a mapping: asked of a list, `in` compares arrays."""
    return isinstance(variables, Mapping) and "params" in variables


def of_layer(features: Mapping[str, Any], layer: str) -> Any:
    """`features[layer]`; `InputError` with the layers' names if there is none."""
    if layer not in features:
        raise checks.InputError(
            f"unknown layer {layer!r}; choose one of {list(features)}"
        )
    return features[layer]


def logit_fn_of(model: nn.Module | Callable, **call_kwargs) -> Callable:
    """The call of a Linen module, or a function `(variables, x)` as it is."""
    if isinstance(model, nn.Module):
        return make_logit_fn(model, **call_kwargs)
    return partial(model, **call_kwargs)


def one_array(returned: Any) -> Any:
    """The logits that a network returns; `InputError` if it returns several arrays."""
    found = only(returned)
    if not hasattr(found, "shape"):
        raise checks.InputError(
            f"the network returns {jax.tree.map(jnp.shape, returned)}, and which of it "
            "the loss is of is not known; give make_logit_fn(model, output=0), or a "
            "function (variables, x) -> logits of yours, for the model"
        )
    return found
