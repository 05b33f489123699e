"""Data sets that come with scikit-learn.

It is imported by what needs it, because that takes longer than importing JAX, and all
scripts know of these sets.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

from fssd_jax.checks import InputError

SIDE = 28
COLOUR_SIDE = 32  # of CIFAR-10 and SVHN

Arrays = tuple[np.ndarray, np.ndarray, str]  # x, y and the source


def _digits(split: str) -> Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data: Any = load_digits()
    images = enlarge(data.images.astype(np.float32) / 16, SIDE)
    labels = data.target.astype(np.int32)
    parts = train_test_split(
        np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0
    )
    chosen = np.sort(parts[0] if split == "train" else parts[1])
    return images[chosen, :, :, None], labels[chosen], _embedded("digits")


def _photo_patches(split: str) -> Arrays:
    return _patches(photo_patches((SIDE, SIDE, 1)))


def _colour_patches(split: str) -> Arrays:
    side = COLOUR_SIDE
    return _patches(photo_patches((side, side, 3), every=side))


def _patches(x: np.ndarray) -> Arrays:
    return x, np.zeros(len(x), np.int32), _embedded("china.jpg and flower.jpg")


def photo_patches(
    shape: tuple[int, int, int], every: int = SIDE
) -> Float[np.ndarray, "n h w channels"]:
    """Patches of scikit-learn's two photographs (427×640), in [0, 1].

    Args:
      shape: height, width and channels of a patch; 3 channels, or 1 for grey.
      every: pixels from one to the next: larger patches than that overlap, and are no
        independent sample.

    Raises:
      InputError: larger patches than photographs, or other channels.
    """
    from sklearn.datasets import load_sample_images

    *size, channels = shape
    photos = load_sample_images().images
    if channels not in (1, 3) or np.any(np.greater(size, photos[0].shape[:2])):
        raise InputError(
            f"photo_patches: no patches of shape {shape} in photographs of shape "
            f"{photos[0].shape}; give a smaller size, and 1 or 3 channels"
        )
    patches = []
    for photo in photos:
        pixels = photo.astype(np.float32)
        if channels == 1:
            # ITU-R 601 luma, as in "L" images of Pillow and in MNIST-like conversions.
            luma = np.array([0.299, 0.587, 0.114], np.float32)
            pixels = (pixels @ luma)[..., None]
        windows = sliding_window_view(pixels / 255, size, axis=(0, 1))
        grid = np.moveaxis(windows[::every, ::every], 2, -1)
        patches.append(grid.reshape(-1, *shape))
    return np.concatenate(patches).clip(0, 1)


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, [n, h, w] to [n, side, side], pixel centres aligned at half pixels."""
    rows, columns = (bilinear(n, side) for n in images.shape[1:])
    return np.einsum("ih,nhw,jw->nij", rows, images, columns)


def bilinear(n: int, side: int) -> Float[np.ndarray, "side n"]:
    """What each of `side` pixels in a row has of each of `n`."""
    at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n))).astype(np.float32)


def _embedded(what: str) -> str:
    return f"scikit-learn {version('scikit-learn')}, {what}"


EMBEDDED: dict[str, Callable[[str], Arrays]] = {
    "digits": _digits,
    "photo_patches": _photo_patches,
    "colour_patches": _colour_patches,
}
