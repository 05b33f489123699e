"""The one door for data: batches on the devices, and scores back.

Every batch has the same number of rows (the last one is padded), so a function compiles
once; memory is that of a few batches, whatever the size of the data set.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from fssd_jax import checks, mates, processes
from fssd_jax.checks import InputError
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import Rows, count_rows, has_numbers, rows
from fssd_jax.devices import (
    AXIS,
    chosen_mesh,
    fetched,
    own_copy,
    own_rows,
    place,
    spans,
)


class Batch(NamedTuple):
    x: Any  # [size, ...], or a pytree of such, on the devices
    mask: np.ndarray  # [size], false for padded rows
    y: Any  # labels [size], if they were given


def batches(
    data: Any,
    batch_size: int = 64,
    name: str = "images",
    *,
    unit_range: bool = True,
    mesh: Mesh | None = None,
) -> Iterator[Batch]:
    """Yield batches of one size, checked, padded and placed on the devices.

    Args:
      data: one array [n, ...] (of NumPy, JAX, PyTorch, TensorFlow or a file), a pytree
        of arrays for a network of several inputs, or an iterable of batches of any
        size (a list, generator, `ImageStream`, PyTorch's DataLoader, tf.data, Grain).
        Labels may stand beside the images: (x, y), or TFDS's "image" and "label". Or
        single records by number: `records.Records`, or a source with labels.
        See `inputs.as_input` for what becomes of integers.
      batch_size: rows of a batch; of so few data that they are less, a power of two.
      name: what it is, for errors.
      unit_range: whether floats outside [0, 1] are an error.
      mesh: of one axis, "data", over which the rows of each batch are laid; by default
        that of all local devices. Over several processes' each reads its own rows, of
        data whose rows have a number; others have to come to all in the same order.

    Raises:
      InputError: as `inputs.rows`.
    """
    checks.at_least_one("batch_size", batch_size)
    mesh = chosen_mesh(mesh)
    devices = 1 if mesh is None else mesh.size
    if mesh is not None and spans(mesh) and has_numbers(data):
        yield from _own_batches(data, batch_size, name, unit_range, mesh)
        return
    size = 0
    for part in cut(rows(data, batch_size, name, unit_range=unit_range), batch_size):
        count = len(jax.tree.leaves(part.x)[0])
        if not size:
            size = -(-fitting(count, batch_size) // devices) * devices
        mask = np.arange(size) < count
        own = own_rows(mesh, size)
        x = jax.tree.map(lambda a, s=size, own=own: pad(a, s)[own], part.x)
        y = None if part.y is None else pad(part.y, size)
        yield Batch(place(x, mesh, AXIS), mask, y)


def _own_batches(
    data: Any, batch_size: int, name: str, unit_range: bool, mesh: Mesh
) -> Iterator[Batch]:
    """As `batches`, over a mesh that spans processes: each reads its own rows only."""
    count = count_rows(data) or 0
    size = -(-fitting(count, batch_size) // mesh.size) * mesh.size
    own = own_rows(mesh, size)
    width = own.stop - own.start

    def chosen(count: int) -> list[slice]:
        # Behind the end the last row, which fills the batch up.
        starts = [min(at + own.start, count - 1) for at in range(0, count, size)]
        return [slice(at, min(at + width, count)) for at in starts]

    parts = rows(data, width, name, unit_range=unit_range, chosen=chosen)
    for start, part in zip(range(0, count, size), cut(parts, width), strict=True):
        x, y = jax.tree.map(partial(pad, size=width), (part.x, part.y))
        if y is not None:
            _check_sent(y, name)
            y = fetched(place(y, mesh, AXIS), mesh)
        yield Batch(place(x, mesh, AXIS), np.arange(size) < count - start, y)


def _check_sent(y: np.ndarray, name: str) -> None:
    """Raise `InputError` for labels that do not come to other processes as they are."""
    whole = np.issubdtype(y.dtype, np.integer)
    if not whole or (y.size and np.abs(y).max() >= 2**31):
        raise InputError(
            f"{name}: labels are {y.dtype}; where several processes share a batch they "
            "are to be class numbers"
        )


def pad(x: np.ndarray, size: int) -> np.ndarray:
    """Fill a short batch up to `size` with its first row.

    A real row, not zeros: a network may not be finite on an input it never sees.
    """
    if len(x) < size:
        x = np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])
    return x


def fitting(count: int, batch_size: int) -> int:
    """Rows of a batch for so few images: `batch_size`, or a smaller power of two.

    Not their very number, which would be compiled for anew.
    """
    return min(batch_size, 1 << (count - 1).bit_length())


def cut(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same rows in parts of `size`, but for the last."""
    held: list[list[np.ndarray]] = []
    count, structure = 0, None
    for part in parts:
        leaves, structure = jax.tree.flatten(part)
        total, start = len(leaves[0]), 0
        while start < total:
            end = min(total, start + size - count)
            held.append([np.asarray(leaf[start:end]) for leaf in leaves])
            count, start = count + end - start, end
            if count == size:
                yield _joined(held, structure)
                held, count = [], 0
    if held:
        yield _joined(held, structure)


def _joined(held: list[list[np.ndarray]], structure) -> Rows:
    leaves = held[0] if len(held) == 1 else map(np.concatenate, zip(*held, strict=True))
    return jax.tree.unflatten(structure, leaves)


# ---- scores -------------------------------------------------------------------------


@compiled(static=2)
def _score_batch(score, apply_fn, variables, state, x, **kwargs):
    return score(apply_fn, variables, state, x, **kwargs)


@compiled(static=4)
def _score_shards(score, apply_fn, mesh, batch_axis, variables, state, x, kwargs):
    """Each device scores its rows, by itself: nothing is sent between them."""
    one = PartitionSpec()

    def of_shard(variables, state, x, kwargs):
        return score(apply_fn, variables, state, x, **kwargs)

    return jax.shard_map(
        of_shard,
        mesh=mesh,
        in_specs=(one, one, PartitionSpec(AXIS), one),
        out_specs=PartitionSpec(*[None] * batch_axis, AXIS),
        check_vma=False,  # a scan may begin with what is the same on all devices
    )(variables, state, x, kwargs)


def map_batches(
    score: Callable,
    apply_fn: Callable,
    variables: Any,
    state: Any,
    x,
    *,
    batch_size: int = 64,
    batch_axis: int = 0,
    unit_range: bool = True,
    with_mask: bool = False,
    progress: bool | str = False,
    mesh: Mesh | None = None,
    **kwargs,
) -> np.ndarray:
    """`score(apply_fn, variables, state, x, **kwargs)` over a data set, in batches.

    Args:
      score: any function of that signature: a detector's `score`, or `fssd.fssd`. It
        is compiled as a whole, but for one marked `compiled.by_parts`.
      apply_fn: a `FeatureFn` or `LogitFn`. Reuse one object of your own: what is
        compiled is found again by the identity of `score` and `apply_fn`, and else by
        what they compute, for which they are traced.
      variables: the network's variables.
      state: what `score` takes third.
      x: data, as of `batches`.
      batch_size: images per compiled call; small ones (32–64) are best on a CPU.
      batch_axis: the axis of the result along which the images lie.
      unit_range: whether floats outside [0, 1] are an error.
      with_mask: whether `score` takes `mask=` [batch], false for padded rows; only
        one whose images depend on each other needs it.
      progress: whether to show a progress bar, or its title.
      mesh: as of `batches`; by default over the devices of all processes, if they
        work together (see `processes`).

    Returns:
      The scores, with n images along `batch_axis`.

    Raises:
      InputError: data that cannot be scored; scores that are not finite; scores that
        depend on what else is in the batch (a network left in training mode?).
    """
    results = scored_batches(
        *(score, apply_fn, variables, state, x),
        batch_size=batch_size,
        batch_axis=batch_axis,
        unit_range=unit_range,
        with_mask=with_mask,
        progress=progress,
        mesh=mesh,
        **kwargs,
    )
    real = [
        np.asarray(scores).take(np.flatnonzero(mask), axis=batch_axis)
        for scores, mask, _ in results
    ]
    scores = np.concatenate(real, axis=batch_axis)
    check_finite("scores", np.moveaxis(scores, batch_axis, 0))
    return scores


def check_finite(what: str, values: np.ndarray) -> None:
    """Raise `InputError` unless all values [n, ...] are finite."""
    if not jnp.issubdtype(values.dtype, np.inexact):
        return
    bad = np.asarray(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.any():
        raise InputError(
            f"{what} of {bad.sum()} of {len(bad)} images are NaN or infinite (the "
            f"first is image {np.argmax(bad)}): the network overflows there, or its "
            "weights are not finite; look at the features of these images"
        )


def scored_batches(
    score: Callable,
    apply_fn: Any,
    variables: Any,
    state: Any,
    x,
    *,
    batch_size: int = 64,
    batch_axis: int = 0,
    unit_range: bool = True,
    with_mask: bool = False,
    progress: bool | str = False,
    mesh: Mesh | None = None,
    name: str = "images",
    **kwargs,
) -> Iterator[tuple[Any, np.ndarray, np.ndarray | None]]:
    """Yield (what `score` returns, mask [size] of the real rows, labels or None).

    Args: as in `map_batches`, but that `score` may return any pytree, and `apply_fn`
    may be anything hashable that it takes first. `name` is what the data are.
    """
    unit_range = unit_range and not getattr(apply_fn, "of_features", False)
    mesh = chosen_mesh(mesh, all_processes=True)
    variables, state, kwargs = place((variables, state, kwargs), mesh)

    def call(part: Any, mask: np.ndarray):
        return fetched(called(part, mask), mesh)

    def called(part: Any, mask: np.ndarray):
        also = kwargs | {"mask": mask} if with_mask else kwargs
        if mesh is not None and not with_mask:
            spread = score, apply_fn, mesh, batch_axis
            return _score_shards(*spread, variables, state, part, also)
        if getattr(score, "by_parts", False):
            return score(apply_fn, variables, state, part, **also)
        return _score_batch(score, apply_fn, variables, state, part, **also)

    # One batch in flight while the next is prepared, so that the device never waits.
    waiting, first = None, not with_mask
    with progress_bar(x, progress) as bar:
        for part, mask, y in batches(
            x, batch_size, name, unit_range=unit_range, mesh=mesh
        ):
            scores = call(part, mask)
            if first:
                mates.check(call, (score, apply_fn), part, mask, scores, batch_axis)
                first = False
            if waiting:
                yield own_copy(waiting[0], mesh), waiting[1], _labels(waiting[2])
            waiting = scores, mask, y
            bar.update(int(mask.sum()))
        if waiting:
            yield own_copy(waiting[0], mesh), waiting[1], _labels(waiting[2])


def _labels(y: Any) -> np.ndarray | None:
    return None if y is None else np.asarray(y)


def progress_bar(data: Any, progress: bool | str) -> tqdm:
    """A bar over the rows of `data`, with a title if `progress` is one."""
    title = progress if isinstance(progress, str) else None
    total = count_rows(data) if progress else None
    options = bar_options("image", bool(progress))
    return tqdm(total=total, desc=title, **options)


def bar_options(unit: str, progress: bool = True) -> dict[str, Any]:
    """Progress bars: lively on a terminal, a line now and then in a log file.

    Of several processes the first has one.
    """
    return {
        "unit": unit,
        "mininterval": 0.2 if sys.stderr.isatty() else 15.0,
        "dynamic_ncols": True,
        "disable": not (progress and processes.first()),
    }
