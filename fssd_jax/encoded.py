"""A state as JSON and a list of arrays, and back: what `saving` writes.

Nothing is pickled: a file can name the NamedTuples of this package, and have nothing
else imported or called.
"""

import importlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from fssd_jax.checks import InputError


def encode(value, name: str, arrays: list[np.ndarray]) -> dict[str, Any]:
    """The structure of `value` as JSON; its arrays are appended to `arrays`."""
    cls = type(value)
    kind = cls.__name__
    if value is None or cls in (bool, int, float):
        return {"kind": "number", "value": value}
    if _own_class(f"{cls.__module__}:{kind}") is cls:
        kind, items = f"{cls.__module__}:{kind}", value._asdict().items()
    elif cls in (dict, OrderedDict) and all(type(key) in (str, int) for key in value):
        items = value.items()
    elif cls in (tuple, list):
        items = enumerate(value)
    else:
        array = to_numpy(value, name)
        _check_precision(array.dtype, name)
        arrays.append(array)
        is_key = value.dtype != array.dtype
        return {
            "kind": "array",
            "shape": array.shape,
            "dtype": array.dtype.name,
            "weak": getattr(value, "weak_type", False),
            "key": str(jax.random.key_impl(value)) if is_key else None,
        }
    children = [[k, encode(v, f"{name}/{k}", arrays)] for k, v in items]
    return {"kind": kind, "items": children}


def decode(node: dict[str, Any], arrays: Iterator[np.ndarray], name: str):
    """The inverse of `encode`."""
    kind = node["kind"]
    if kind == "number":
        return node["value"]
    if kind == "array":
        array = next(arrays)
        dtype = jnp.dtype(node["dtype"])
        if array.dtype not in (dtype, np.dtype((np.void, dtype.itemsize))):
            raise ValueError(f"an array of {array.dtype}, not {dtype}")
        if list(array.shape) != node["shape"]:
            raise ValueError(f"an array of shape {array.shape}, not {node['shape']}")
        array = array.view(dtype)  # .npy does not know bfloat16
        _check_precision(array.dtype, name)
        if node["key"]:
            return jax.random.wrap_key_data(jax.device_put(array), impl=node["key"])
        if node["weak"]:  # only Python numbers make a weak type, and `set` keeps it
            zeros = jnp.broadcast_to(array.dtype.type(0).item(), array.shape)
            return zeros.at[...].set(array)
        return jax.device_put(array)  # `jnp.asarray` is compiled for each shape
    items = {key: decode(child, arrays, name) for key, child in node["items"]}
    if kind in ("dict", "OrderedDict"):
        return OrderedDict(items) if kind == "OrderedDict" else items
    if kind in ("tuple", "list"):
        return tuple(items.values()) if kind == "tuple" else list(items.values())
    cls = _own_class(kind)
    if cls and cls._fields == tuple(items):
        return cls(**items)
    raise InputError(
        f"{name}: no NamedTuple {kind} with the fields {list(items)} in fssd_jax "
        f"{fssd_jax.__version__}; fit again, or use the version that saved it"
    )


def _own_class(kind: str) -> Any:
    """The NamedTuple "module:name" of our own; None if it is not one.

    So a file cannot have anything else imported or called.
    """
    module, _, name = kind.partition(":")
    if not module.startswith("fssd_jax."):
        return None
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    is_tuple = isinstance(found, type) and issubclass(found, tuple)
    own = is_tuple and hasattr(found, "_fields") and found.__module__ == module
    return found if own else None


def to_numpy(value, name: str) -> np.ndarray:
    """The numbers of an array, or the bits of PRNG keys."""
    what = type(value).__name__
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return np.asarray(jax.random.key_data(jnp.asarray(value)))
        if value.dtype == bool or jnp.issubdtype(value.dtype, np.number):
            return np.asarray(value)
        what = f"array of {value.dtype}"
    raise InputError(
        f"{name}: cannot save this {what}; a state holds arrays of numbers, numbers, "
        "None, tuples, lists, dicts and OrderedDicts with keys that are strings or "
        "integers, and NamedTuples of fssd_jax's modules; variables hold arrays"
    )


def _check_precision(dtype: np.dtype, name: str) -> None:
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InputError(
            f"{name}: JAX would shorten {dtype}; fit with 32 bits, or jax_enable_x64"
        )
