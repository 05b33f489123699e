"""What a page needs to explore a run: rates at thresholds, images, a feature cloud.

explorer.npz holds images of both sets, where in these they stand, and which rows are
offered, and perhaps what each image is; the scores of all images are those of
scores.npz.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from experiments.harness.files import STRANGE, load_left
from fssd_jax import metrics
from fssd_jax.checks import InputError

SETS = ("in-distribution", "OoD")
LEVELS = 200  # acceptance rates of the slider, in equal steps
BINS = 48
EDGE = 0.005  # share of the scores that the outermost bins take in at either end
COLUMNS = 25  # of the sprite
LOSSLESS = 32  # pixels a side, at most


class Rates(NamedTuple):
    """At thresholds, the images that score as much or more: counts."""

    threshold: np.ndarray
    ind: np.ndarray
    ood: np.ndarray


def at_thresholds(ind: np.ndarray, ood: np.ndarray, threshold: np.ndarray) -> Rates:
    """How many images of either set are accepted at each threshold."""
    counts = (len(s) - np.searchsorted(np.sort(s), threshold) for s in (ind, ood))
    return Rates(threshold, *counts)


def at_levels(ind: np.ndarray, ood: np.ndarray) -> Rates:
    """At the first threshold that accepts k / LEVELS of `ind`, k from 1.

    The false-positive rates are those of `fssd_jax.metrics.fpr_at`.
    """
    least = -(-np.arange(1, LEVELS + 1) * len(ind) // LEVELS)  # rounded up
    return at_thresholds(ind, ood, np.sort(ind)[::-1][least - 1])


def read(folder: Path) -> dict[str, Any] | None:
    """What the page's explorer is told, as JSON can hold it; None if nothing is kept.

    Raises:
      InputError: a file is damaged, or the two are not of one run.
    """
    kept = folder / "explorer.npz"
    if not kept.exists():
        return None
    arrays, scores = load_left(kept), load_left(folder / "scores.npz")
    try:
        return _told(arrays, scores)
    except STRANGE as error:
        raise InputError(
            f"{kept} and scores.npz beside it are not of one run "
            f"({type(error).__name__}: {error}); delete {folder}, and run again"
        ) from error


def _told(arrays: Mapping[str, np.ndarray], scores) -> dict[str, Any]:
    index = [arrays[f"index/{name}"] for name in SETS]
    rows = {
        name: _row(scores[f"{name}/ind"], scores[f"{name}/ood"], index)
        for name in arrays["rows"].tolist()
    }
    sizes = {len(scores[f"{name}/ind"]): len(scores[f"{name}/ood"]) for name in rows}
    ((n, m),) = sizes.items()
    for name, at, total in zip(SETS, index, (n, m), strict=True):
        _check(arrays, name, at, total)
    images = [arrays[f"images/{name}"] for name in SETS if f"images/{name}" in arrays]
    points = np.concatenate([arrays[f"points/{name}"] for name in SETS])
    return {
        "sets": SETS,
        "shown": [len(of) for of in index],
        "totals": [n, m],
        "index": np.concatenate(index).tolist(),
        "names": _names(arrays, [len(of) for of in index]),
        "layer": str(arrays["layer"]),
        "points": _rounded(points),
        "star": _rounded(arrays["singularity"]),
        "share": _rounded(arrays["share"]),
        "sprite": sprite(np.concatenate(images)) if images else None,
        "rows": rows,
    }


def _check(arrays: Mapping[str, np.ndarray], name: str, at: np.ndarray, total: int):
    """Raise `ValueError` unless a set's arrays are of the images that `at` tells."""
    if (
        at.ndim != 1
        or at.dtype.kind not in "iu"
        or not np.all((at >= 0) & (at < total))
    ):
        raise ValueError(f"index/{name}: expected places in {total} scores")
    expected = {
        f"points/{name}": (len(at), 2),
        **dict.fromkeys(("singularity", "share"), (2,)),
    }
    for key, shape in expected.items():
        if arrays[key].shape != shape or not np.isfinite(arrays[key]).all():
            raise ValueError(f"{key}: expected finite numbers {shape}")
    if any(f"images/{of}" in arrays for of in SETS):
        images = arrays[f"images/{name}"]
        sizes = len(images), images.ndim, images.shape[-1] in (1, 3)
        if images.dtype != np.uint8 or sizes != (len(at), 4, True):
            raise ValueError(f"images/{name}: expected {len(at)} pictures of uint8")


def _names(arrays: Mapping[str, np.ndarray], shown: list[int]) -> list[str] | None:
    """Of each image its file or class, or ""; None where nothing is known of any."""
    if not any(f"names/{name}" in arrays for name in SETS):
        return None
    found = []
    for name, count in zip(SETS, shown, strict=True):
        of = arrays.get(f"names/{name}", np.full(count, "")).tolist()
        if len(of) != count:
            raise ValueError(f"{len(of)} names of {count} images")
        found += map(str, of)
    return found


def _row(ind: np.ndarray, ood: np.ndarray, index: list[np.ndarray]) -> dict[str, Any]:
    shown = np.concatenate([s[at] for s, at in zip((ind, ood), index, strict=True)])
    own, levels = at_thresholds(ind, ood, shown), at_levels(ind, ood)
    both = np.concatenate([ind, ood])
    low, high = np.quantile(both, [EDGE, 1 - EDGE])
    edges = np.linspace(low, max(high, np.nextafter(low, np.inf)), BINS + 1)
    bars = [np.histogram(np.clip(s, low, edges[-1]), edges)[0] for s in (ind, ood)]
    return {
        "auroc": metrics.auroc(ind, ood),
        "scores": _rounded(shown),
        "images": [own.ind.tolist(), own.ood.tolist()],
        "thresholds": _rounded(levels.threshold),
        "levels": [levels.ind.tolist(), levels.ood.tolist()],
        "edges": _rounded(edges),
        "bars": [b.tolist() for b in bars],
    }


def _rounded(values: np.ndarray) -> list:
    """To seven digits: what float32 holds."""
    flat = [float(f"{v:.7g}") for v in np.ravel(values).tolist()]
    return np.reshape(flat, np.shape(values)).tolist()


def sprite(images: np.ndarray) -> dict[str, Any]:
    """All images [n, h, w, 1 or 3] in one picture, row by row, as a data URL."""
    count, height, width, channels = images.shape
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, height, width, channels), np.uint8)
    sheet[:count] = images
    whole = sheet.reshape(rows, COLUMNS, height, width, channels).swapaxes(1, 2)
    whole = whole.reshape(rows * height, COLUMNS * width, channels)
    picture = Image.fromarray(whole[..., 0] if channels == 1 else whole)
    kind, more = ("png", {}) if width <= LOSSLESS else ("jpeg", {"quality": 85})
    file = io.BytesIO()
    picture.save(file, kind, **more)
    text = base64.b64encode(file.getvalue()).decode()
    return {
        "url": f"data:image/{kind};base64,{text}",
        "columns": COLUMNS,
        "rows": rows,
        "width": width,
        "height": height,
    }
