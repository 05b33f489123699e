"""From a data set in memory to batches on the device, and scores back.

Every batch has the same shape (the last one is padded), so a function compiles once;
memory on the device is that of one batch, whatever the size of the data set.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from fssd_jax import checks
from fssd_jax.compiled import compiled


def as_float(x) -> np.ndarray:
    """Integers 0–255 become float32 in [0, 1]; floats become float32."""
    x = np.asarray(x)
    if np.issubdtype(x.dtype, np.integer):
        return x.astype(np.float32) / np.float32(255)
    return x.astype(np.float32, copy=False)


def pad(x: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill a short batch up to `size` with its first row; the mask tells real rows.

    A real row, not zeros: a network may not be finite on an input it never sees.
    """
    mask = np.arange(size) < len(x)
    if len(x) < size:
        x = np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])
    return x, mask


def fitting(count: int, batch_size: int) -> int:
    """Rows of a batch for so few images: `batch_size`, or a smaller power of two.

    Not their very number, which would be compiled for anew.
    """
    return min(batch_size, 1 << (count - 1).bit_length())


def padded_batches(
    data: Any, batch_size: int, name: str = "images", *, unit_range: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (x [size, ...] float32, mask [size]) of one size, checked.

    Args:
      data: one array [n, ...], or an iterable of arrays [batch, ...], of which none
        may be larger than the first; then `batch_size` is not used.
    """
    if not hasattr(data, "shape"):
        parts: Iterable = data
        size = None
    else:
        checks.images(data, name, unit_range=unit_range)
        checks.at_least_one("batch_size", batch_size)
        starts = range(0, len(data), batch_size)
        parts = (data[start : start + batch_size] for start in starts)
        size = fitting(len(data), batch_size)
    for part in parts:
        x = as_float(checks.images(part, name, unit_range=unit_range))
        size = size or len(x)
        if len(x) > size:
            raise checks.InputError(
                f"{name}: a batch of {len(x)} after a first one of {size}; make the "
                "first batch the largest, so that one compilation serves all"
            )
        yield pad(x, size)


@compiled(static=2)
def _score_batch(score, apply_fn, variables, state, x, **kwargs):
    return score(apply_fn, variables, state, x, **kwargs)


def _call_parts(score, apply_fn, *arrays, **kwargs):
    # Here, or each part would have NumPy arrays copied to the device.
    arrays, kwargs = jax.device_put((arrays, kwargs))
    return score(apply_fn, *arrays, **kwargs)


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
    progress: str | None = None,
    **kwargs,
) -> np.ndarray:
    """`score(apply_fn, variables, state, x, **kwargs)` over a data set, in batches.

    Args:
      score: any function of that signature: a detector's `score`, or `fssd.fssd`. It
        is compiled as a whole, but for one marked `compiled.by_parts`.
      apply_fn: a `FeatureFn` or `LogitFn`. Reuse one object of your own: what is
        compiled is found again by the identity of `score` and `apply_fn`. (Those of
        `make_feature_fn` and its like are one object for equal arguments.)
      variables: the network's variables.
      state: what `score` takes third.
      x: [n, ...], integers 0–255 or floats in [0, 1] (`unit_range=False`: any).
      batch_size: images per compiled call; small ones (32–64) are best on a CPU.
      batch_axis: the axis of the result along which the images lie.
      unit_range: whether floats outside [0, 1] are an error.
      with_mask: whether `score` takes `mask=` [batch], false for padded rows; only
        one whose images depend on each other needs it.
      progress: a title for a progress bar; None for no bar.

    Returns:
      The scores, with n images along `batch_axis`.

    Raises:
      InputError: an empty set, NaN, infinite or out-of-range pixels.
    """
    results = scored_batches(
        *(score, apply_fn, variables, state, x),
        batch_size=batch_size,
        unit_range=unit_range,
        with_mask=with_mask,
        progress=progress,
        **kwargs,
    )
    real = [
        np.asarray(scores).take(np.flatnonzero(mask), axis=batch_axis)
        for scores, mask in results
    ]
    return np.concatenate(real, axis=batch_axis)


def scored_batches(
    score: Callable,
    apply_fn: Any,
    variables: Any,
    state: Any,
    x,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
    with_mask: bool = False,
    progress: str | None = None,
    **kwargs,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield (what `score` returns, mask [size] of the real rows), batch by batch.

    Args: as in `map_batches`, but that `score` may return any pytree, and `apply_fn`
      may be anything hashable that it takes first.
    """
    checks.images(x, unit_range=unit_range)
    checks.at_least_one("batch_size", batch_size)
    size = fitting(len(x), batch_size)
    bar = tqdm(
        total=len(x), desc=progress, disable=progress is None, **bar_options("image")
    )
    call = _call_parts if getattr(score, "by_parts", False) else _score_batch
    # One batch in flight while the next is prepared, so that the device never waits.
    waiting = None
    with bar:
        for start in range(0, len(x), size):
            part, mask = pad(as_float(x[start : start + size]), size)
            if with_mask:
                kwargs["mask"] = mask
            scores = call(score, apply_fn, variables, state, part, **kwargs)
            if waiting:
                yield waiting
            waiting = scores, mask
            bar.update(int(mask.sum()))
        if waiting:
            yield waiting


def bar_options(unit: str) -> dict[str, Any]:
    """Progress bars: lively on a terminal, a line now and then in a log file."""
    seconds = 0.2 if sys.stderr.isatty() else 15.0
    return {"unit": unit, "mininterval": seconds, "dynamic_ncols": True}
