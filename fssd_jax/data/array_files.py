"""Images and labels of a .npz or .npy file, taken as they are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from fssd_jax import checks
from fssd_jax.bounded import read_arrays
from fssd_jax.checks import InputError

IMAGES, LABELS = ("x", "images"), ("y", "labels")  # the names that are read


def read(
    path: Path, wanted: tuple[int, int, int]
) -> tuple[np.ndarray, Int32[np.ndarray, " n"], str]:
    """Images [n, h, w, c] uint8 or float32, labels, and what was taken for images."""
    arrays = read_arrays(path, "write it with np.savez(path, x=..., y=...)")
    named, labelled = _named(path, arrays)
    x = arrays[named]
    if (x.shape[1:] if x.ndim != 3 else (*x.shape[1:], 1)) != wanted:
        raise InputError(
            f"{path}: {named} has shape {x.shape}, expected (n, *{wanted}); arrays "
            "are neither resized nor converted, so do that before"
        )
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"{path}: {named} is of {x.dtype}, expected uint8 or floats in [0, 1]; "
            + checks.as_bytes_advice(x.dtype)
        )
    checks.images(x, f"{path}, {named}", otherwise="and write the file again")
    checks.not_bits(x, f"{path}, {named}")
    what = f"{named} as stored, {x.dtype}"
    x = (x if x.dtype == np.uint8 else x.astype(np.float32)).reshape(-1, *wanted)
    y = np.zeros(len(x), np.int32) if labelled is None else arrays[labelled]
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"{path}: labels are {y.dtype}{list(y.shape)}, expected one integer for "
            f"each of {len(x)} images"
        )
    if np.any(y != y.astype(np.int32)):
        raise InputError(f"{path}: labels up to {y.max()}; renumber the classes")
    if y.min(initial=0) < 0:
        raise InputError(
            f"{path}: labels down to {y.min()}; number the classes from 0 on, or leave "
            "out the labels, if they mean nothing"
        )
    return x, y.astype(np.int32), what


def _named(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[str, str | None]:
    """What the images are called, and the labels, if there are any; no array is left.

    Labels under a name that is not read would be taken for none, and all be 0.
    """
    images, labels = ([k for k in keys if k in arrays] for keys in (IMAGES, LABELS))
    images = images or [key for key in arrays if key not in LABELS]
    if len(images) != 1:
        raise InputError(
            f"{path}: which array holds the images? Found {sorted(arrays)}; call it x, "
            "and labels y, and leave others out"
        )
    if len(labels) > 1:
        raise InputError(f"{path}: holds labels y, and labels; leave one of them out")
    others = sorted(set(arrays) - {*images, *labels})
    if others:
        raise InputError(
            f"{path}: holds {others}, too, which is not read; images are x or images, "
            "and labels y or labels: rename what is meant, and leave out the rest"
        )
    return images[0], next(iter(labels), None)
