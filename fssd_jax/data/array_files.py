"""Images and labels of a .npz or .npy file, taken as they are."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from fssd_jax import checks
from fssd_jax.bounded import read_arrays
from fssd_jax.checks import InputError


def read(
    path: Path, wanted: tuple[int, int, int]
) -> tuple[np.ndarray, Int32[np.ndarray, " n"], str]:
    """Images [n, h, w, c] uint8 or float32, labels, and what was taken for images."""
    arrays = read_arrays(path, "write it with np.savez(path, x=..., y=...)")
    others = [key for key in arrays if key not in ("y", "labels")]
    named = [key for key in ("x", "images") if key in arrays][:1] or others
    if len(named) != 1:
        raise InputError(
            f"{path}: which array holds the images? Found {sorted(arrays)}; call it x"
        )
    x = arrays[named[0]]
    if (x.shape[1:] if x.ndim != 3 else (*x.shape[1:], 1)) != wanted:
        raise InputError(
            f"{path}: {named[0]} has shape {x.shape}, expected (n, *{wanted}); arrays "
            "are neither resized nor converted, so do that before"
        )
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"{path}: {named[0]} is of {x.dtype}, expected uint8 or floats in [0, 1]; "
            + checks.as_bytes_advice(x.dtype)
        )
    checks.images(x, f"{path}, {named[0]}", otherwise="and write the file again")
    what = f"{named[0]} as stored, {x.dtype}"
    x = (x if x.dtype == np.uint8 else x.astype(np.float32)).reshape(-1, *wanted)
    y = arrays.get("y", arrays.get("labels", np.zeros(len(x), np.int32)))
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"{path}: labels are {y.dtype}{list(y.shape)}, expected one integer for "
            f"each of {len(x)} images"
        )
    if np.any(y != y.astype(np.int32)):
        raise InputError(f"{path}: labels up to {y.max()}; renumber the classes")
    return x, y.astype(np.int32), what
