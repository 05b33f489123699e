"""Data sets that fit in memory, where each came from, and its digest."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from fssd_jax.checks import InputError

SIDE = 28


class ArrayDataset(NamedTuple):
    x: np.ndarray  # [n, height, width, channel], uint8 or float32 in [0, 1]
    y: np.ndarray  # [n] int32; zeros where a set has no classes
    name: str
    split: str
    source: str  # where it was found: a path, or a package and its version
    sha256: str  # of the arrays as loaded, before any selection

    def select(self, chosen) -> "ArrayDataset":
        """A part of the set; the source and digest stay those of the whole."""
        return self._replace(x=self.x[chosen], y=self.y[chosen])


def load(name: str, split: str, data_dir: str | None = None) -> ArrayDataset:
    """Load one split of a data set.

    - `digits`: scikit-learn's 1,797 real 8×8 digits, enlarged to 28×28. Splits `train`
      (60 %), `test` (40 %): a fixed stratified cut.
    - `photo_patches`: 28×28 grey patches, not overlapping, of scikit-learn's two
      photographs; the only split is `test`.

    Raises:
      InputError: an unknown name or split (the error lists the right ones).
    """
    if name not in LOADERS:
        raise InputError(f"unknown data set {name!r}; choose from {sorted(LOADERS)}")
    loader, splits = LOADERS[name]
    if split not in splits:
        raise InputError(f"{name} has no split {split!r}; choose from {splits}")
    if data_dir is not None:
        raise InputError(f"{name} is embedded in scikit-learn and takes no data_dir")
    x, y, source = loader(split)
    return ArrayDataset(x, y, name, split, source, digest(x, y))


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the arrays' dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for a in arrays:
        total.update(f"{a.dtype.str}{a.shape}".encode())
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


def _digits(split: str):
    data: Any = load_digits()
    images = enlarge(data.images.astype(np.float32) / 16, SIDE)
    labels = data.target.astype(np.int32)
    parts = train_test_split(
        np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0
    )
    chosen = np.sort(parts[0] if split == "train" else parts[1])
    return images[chosen, :, :, None], labels[chosen], _embedded("digits")


def _photo_patches(split: str):
    try:
        photos = load_sample_images().images
    except ImportError as error:
        raise InputError("the photographs need Pillow: pip install pillow") from error
    patches = []
    for photo in photos:
        # ITU-R 601 luma, as in "L" images of Pillow and in MNIST-like conversions.
        grey = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        rows, columns = (n // SIDE for n in grey.shape)
        grey = grey[: rows * SIDE, : columns * SIDE] / 255
        grid = grey.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
        patches.append(grid.reshape(-1, SIDE, SIDE, 1))
    x = np.concatenate(patches).clip(0, 1)
    return x, np.zeros(len(x), np.int32), _embedded("china.jpg and flower.jpg")


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, [n, h, w] to [n, side, side], pixel centres aligned at half pixels."""

    def weights(n):
        at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n))).astype(np.float32)

    rows, columns = weights(images.shape[1]), weights(images.shape[2])
    return np.einsum("ih,nhw,jw->nij", rows, images, columns)


def _embedded(what: str) -> str:
    return f"scikit-learn {sklearn.__version__}, {what}"


LOADERS = {
    "digits": (_digits, ("train", "test")),
    "photo_patches": (_photo_patches, ("test",)),
}
