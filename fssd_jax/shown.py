"""What a fitted state looks like when it is printed: names, shapes, a few numbers.

`__repr__ = brief` in a NamedTuple. Never whole arrays; and it never raises, whatever
stands in the fields: tracers, shapes, arrays whose memory was given away.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

WIDTH = 88  # columns
FEW = 8  # numbers, or layers, that are shown one by one
READ = 4096  # numbers at most that are looked at, for their range


def brief(self: Any) -> str:
    """The text of a NamedTuple; fields that do not fit one line have one each.

    Numbers that there are one of for each layer stand by the layers' names.
    """
    return _tuple(self, _layers(self), 0)


def _layers(value: Any) -> list[str]:
    """Names of the layers of a state: the keys of the first dict by layer in it."""
    if _is_named(value):
        for name, field in zip(value._fields, value, strict=True):
            found = _layers(field) if name != "config" else []
            if found:
                return found
    elif isinstance(value, Mapping) and hasattr(value, "move_to_end"):  # OrderedDict
        return [str(name) for name in value]
    return []


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _tuple(state: Any, layers: list[str], depth: int) -> str:
    cls = type(state)
    module = cls.__module__.rpartition(".")[2]
    title = f"{module}.{cls.__name__}" if cls.__name__ == "State" else cls.__name__
    fields = dict(zip(state._fields, state, strict=True))
    texts = []
    # Elsewhere as many numbers may be something else: steps that were tried, say.
    layers_here = layers if "alpha" in fields else []
    for name, value in fields.items():
        if name.removesuffix("_ci95") in fields and name.endswith("_ci95"):
            continue  # beside its value
        inner = layers if _is_named(value) else layers_here
        text = _text(value, inner, depth + 1)
        interval = fields.get(f"{name}_ci95")
        if interval is not None:
            text += f" {_text(interval, [], depth + 1)}"
        texts.append(f"{name}: {text}")
    line = f"{title}({', '.join(texts)})"
    if "\n" not in line and 2 * depth + len(line) <= WIDTH:
        return line
    indent = "\n" + "  " * (depth + 1)
    return f"{title}({indent}{indent.join(texts)})"


def _text(value: Any, layers: list[str], depth: int) -> str:
    if _is_named(value):
        return _tuple(value, layers, depth)
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, tuple | list):
        return f"[{_joined([_text(v, layers, depth) for v in value])}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value, layers)
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return f"a {type(value).__name__}"


def _mapping(value: Mapping) -> str:
    """By name; of variables, which are nested, only how many there are."""
    if any(isinstance(v, Mapping) for v in value.values()):
        sizes = list(_sizes(value))
        count = f"{len(sizes)} arrays of {sum(sizes):,} numbers"
        return f"{count}, {{{_joined(list(value))}}}"
    texts = [
        f"{k}: {_spec(v) if getattr(v, 'shape', ()) else _text(v, [], 0)}"
        for k, v in value.items()
    ]
    return f"{{{_joined(texts)}}}"


def _sizes(value: Any) -> Iterator[int]:
    """How many numbers each array of a nested dict has."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _sizes(inner)
    elif hasattr(value, "shape"):
        yield int(np.prod(value.shape))


def _joined(texts: list) -> str:
    """All of a few; of many the first and the last."""
    if len(texts) > FEW:
        texts = [*texts[: FEW // 2], f"… {len(texts)} in all …", *texts[-FEW // 4 :]]
    return ", ".join(map(str, texts))


def _array(value: Any, layers: list[str]) -> str:
    numbers = _numbers(value)
    if numbers is None:
        return _spec(value)
    if numbers.ndim == 0:
        return _number(numbers.item())
    if layers and numbers.shape == (len(layers),):
        named = zip(layers, numbers.tolist(), strict=True)
        return f"{{{_joined([f'{k}: {_number(v)}' for k, v in named])}}}"
    if numbers.ndim == 1 and numbers.size <= FEW:
        return f"[{', '.join(map(_number, numbers.tolist()))}]"
    if numbers.ndim == 2 and numbers.shape[1] == 2:  # such as loss and accuracy
        return f"{_spec(value)}, last [{', '.join(map(_number, numbers[-1].tolist()))}]"
    low, high = numbers.min().item(), numbers.max().item()
    return f"{_spec(value)}, {_number(low)} to {_number(high)}"


def _spec(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _numbers(value: Any) -> np.ndarray | None:
    """Those of a small array of one axis or none, or None where they cannot be had."""
    try:
        if isinstance(value, Tracer) or len(value.shape) > 2:
            return None
        if not 0 < int(np.prod(value.shape)) <= READ:
            return None
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return None
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "biuf":  # bfloat16 and its like
            numbers = numbers.astype(np.float32)
        return numbers
    except Exception:  # given away, on another host, an object that only has a shape
        return None
