"""What people bring as data, taken apart into checked arrays of rows.

One array, a pytree of arrays, or batches of either, with labels or without, of NumPy,
JAX, PyTorch or TensorFlow; or single records by number. `pipeline.batches` cuts and
joins what comes out here.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fssd_jax import checks
from fssd_jax.checks import InputError, as_input, to_numpy
from fssd_jax.data.records import Reading, single_records

# What TFDS calls the parts of an example.
TFDS_NAMES = {"image", "label", "id", "file_name"}
SLICE = 256  # rows that are looked at at once
FORMS = (
    "give one array [n, ...], a dict of arrays for a network of several inputs, or an "
    "iterable of batches of either; beside them may stand labels [batch]: (x, y)"
)


class Rows(NamedTuple):
    """Some rows of a data set, or all of them."""

    x: Any  # an array [rows, ...], or a pytree of such
    y: Any  # labels [rows] as they were given, or None


def count_rows(data: Any) -> int | None:
    """How many rows there are; None if only going through them tells."""
    if isinstance(data, Watched):
        return count_rows(data.data)
    whole = _whole(data, "data")
    if whole is not None:
        return len(jax.tree.leaves(whole.x)[0])
    records = single_records(data)
    if records is not None:
        return len(records)
    return len(data.files) if hasattr(data, "files") else None  # an ImageStream


def has_numbers(data: Any) -> bool:
    """Whether any row can be had by its number, and not only all in their order."""
    return _whole(data, "data") is not None or single_records(data) is not None


def rows(
    data: Any,
    size: int,
    name: str = "images",
    *,
    unit_range: bool = True,
    chosen: Callable[[int], list[slice]] | None = None,
) -> Iterator[Rows]:
    """Yield all rows, checked and converted, in order and in parts of any number.

    Args:
      data: see `FORMS`; or `records.Records`, or a source of labelled records.
      size: rows of a part, of arrays.
      name: what it is, for errors.
      unit_range: whether floats outside [0, 1] are an error. Of a pytree, only arrays
        of four axes or more are taken for images.
      chosen: of their number, which rows are yielded, in parts of these; if they have
        one (`has_numbers`).

    Raises:
      InputError: no data, or none of these forms; values that are not finite or out of
        range, before anything is yielded if the data are in memory.
    """
    whole = _whole(data, name)
    if whole is not None:
        count = _check(whole.x, name, 0, unit_range)
        y = _labels(whole.y, count, name)
        for at in chosen(count) if chosen else _parts(count, size):
            x = jax.tree.map(lambda a, at=at: a[at], whole.x)
            yield Rows(_converted(x, name), None if y is None else y[at])
        return
    records = single_records(data)
    if records is not None:
        reading = Reading(records, name, unit_range=unit_range)
        count = reading.count()
        slices = chosen(count) if chosen else _parts(count, size)
        numbers = np.concatenate([np.r_[0:0], *(np.r_[at] for at in slices)])
        parts = reading.parts(numbers, ahead=2 * size)
        yield from (Rows(x, y) for x, y in parts)
        return
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise InputError(f"{name}: got a {type(data).__name__}; {FORMS}")
    start, first = 0, None
    for number, item in enumerate(data):
        of = f"{name}, batch {number}"
        x, y = pair(item, of)
        beside = [] if y is None or isinstance(y, list | tuple) else [y]
        if any(np.ndim(leaf) == 0 for leaf in [*jax.tree.leaves(x), *beside]):
            raise InputError(
                f"{of}: has single numbers where [batch, ...] is expected: single "
                "examples? Join them first: torch.utils.data.DataLoader(data, "
                "batch_size=64), or data.batch(64)"
            )
        if not len(jax.tree.leaves(x)[0]):
            continue
        count = _check(x, of, start, unit_range)
        x = _converted(x, of)
        kind = jax.tree.map(lambda a: f"{a.dtype}{[*a.shape[1:]]}", x)
        y = _labels(y, count, of)
        first = first or (kind, y is None)
        if kind != first[0]:
            raise InputError(f"{of}: its rows are {kind}, those before it {first[0]}")
        if (y is None) != first[1]:
            raise InputError(f"{of}: labels stand beside some batches, but not all")
        start += count
        yield Rows(x, y)
    if not start:
        raise InputError(
            f"{name}: the set is empty; at least one batch is needed. (A generator is "
            "empty when it was gone through before: make it anew, or give a list.)"
        )


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Watched:
    """Data as batches of rows, of which is remembered what range their floats have."""

    def __init__(self, data: Any, name: str, *, unit_range: bool = True):
        self.data, self.name, self.unit_range = data, name, unit_range
        self.range: tuple[float, float] | None = None  # None: no floats were seen

    def __iter__(self) -> Iterator[Any]:
        for part in rows(self.data, SLICE, self.name, unit_range=self.unit_range):
            for leaf in jax.tree.leaves(part.x):
                if np.issubdtype(leaf.dtype, np.floating):
                    low, high = self.range or (np.inf, -np.inf)
                    self.range = min(low, leaf.min()), max(high, leaf.max())
            yield part.x


def joined(data: Any, name: str = "images") -> Any:
    """One array of all rows; an array stays what it is."""
    if is_array(data):
        return data
    parts = [part.x for part in rows(data, SLICE, name, unit_range=False)]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def is_array(data: Any) -> bool:
    """Whether `data` is one array, of any library."""
    typed = hasattr(data, "dtype") or hasattr(data, "__array__")
    return hasattr(data, "shape") and typed


def _whole(data: Any, name: str) -> Rows | None:
    """A data set that is not given in batches; else None."""
    if isinstance(data, Rows):  # it is known which are the labels, whatever their axes
        return data
    if is_array(data):
        return Rows(data, None)
    if data is None or isinstance(data, str | os.PathLike):
        told = "None" if data is None else f"the path {os.fspath(data)}"
        raise InputError(
            f"{name}: got {told}; files are read by fssd_jax.data.folders.load_images "
            "and stream_images"
        )
    is_set = is_array(getattr(data, "x", None)) and hasattr(data, "y")
    if is_set or type(data) is tuple or _is_from_tfds(data):
        return Rows(*pair(data, name))
    if isinstance(data, list) and (not data or any(map(_holds_array, data))):
        return None  # batches
    if isinstance(data, list) and single_records(data) is not None:
        return None
    if isinstance(data, list):
        return Rows(to_numpy(data, name), None)  # numbers
    if isinstance(data, Mapping) and not _are_arrays(data):
        raise InputError(f"{name}: a dict of {_kinds(data.values())}; {FORMS}")
    is_stream = hasattr(data, "__next__")  # which JAX does not take for a pytree
    return None if is_stream or not _are_arrays(data) else Rows(data, None)


def _are_arrays(tree: Any) -> bool:
    """Whether this is an array, or a pytree of nothing but arrays."""
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(map(is_array, leaves))


def _holds_array(tree: Any) -> bool:
    return any(map(is_array, jax.tree.leaves(tree)))


def _is_from_tfds(item: Any) -> bool:
    return isinstance(item, Mapping) and {"image", "label"} <= item.keys() <= TFDS_NAMES


def pair(item: Any, name: str) -> tuple[Any, Any]:
    """(x, labels or None) of one batch, or of a whole set."""
    if _is_from_tfds(item):
        return item["image"], item["label"]
    if is_array(getattr(item, "x", None)) and hasattr(item, "y"):  # an ArrayDataset
        return item.x, item.y
    if type(item) not in (tuple, list):
        return item, None
    if not any(map(_holds_array, item)):
        return to_numpy(item, name), None  # numbers
    if len(item) == 1:
        return item[0], None
    if len(item) == 2 and _axes(item[1]) < 2:
        return item[0], item[1]
    raise InputError(
        f"{name}: a {type(item).__name__} of {_kinds(item)}: which of them are the "
        f"network's inputs is not known; {FORMS}"
    )


def _axes(y: Any) -> int:
    try:
        return np.ndim(y)
    except ValueError:  # rows of several lengths
        return 2


def _labels(y: Any, count: int, name: str) -> np.ndarray | None:
    if y is None:
        return None
    y = to_numpy(y, f"{name}: labels")
    if y.shape[:1] != (count,):
        raise InputError(f"{name}: {count} rows, and {y.size} labels")
    return y


def _kinds(items) -> list:
    return [list(getattr(item, "shape", [type(item).__name__])) for item in items]


def _check(x: Any, name: str, start: int, unit_range: bool) -> int:
    """Raise unless all rows can be scored; how many they are."""
    known = lambda a: isinstance(getattr(a, "dtype", None), np.dtype)  # noqa: E731
    if not all(map(known, jax.tree.leaves(x))):
        x = jax.tree.map(lambda a: to_numpy(a, name), x)
    if is_array(x):
        checks.images(x, name, unit_range=unit_range, start=start)
        return len(x)
    counts = {}
    for path, leaf in jax.tree.leaves_with_path(x):
        of = f"{name}{jax.tree_util.keystr(path)}"
        images = unit_range and np.ndim(leaf) >= 4
        checks.images(leaf, of, unit_range=images, start=start, rank=1, ids=True)
        counts[of] = len(leaf)
    if len(set(counts.values())) != 1:
        raise InputError(f"{name}: the arrays have different numbers of rows: {counts}")
    return min(counts.values())


def _converted(x: Any, name: str) -> Any:
    if is_array(x):
        return as_input(x, name)
    # A mask beside ids stays a mask.
    keep = lambda a: a if a.dtype == bool else as_input(a, name)  # noqa: E731
    return jax.tree.map(lambda leaf: keep(to_numpy(leaf, name)), x)
