"""Data sets that fit in memory: where each is looked for, and what was found."""

import hashlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from fssd_jax.checks import InputError
from fssd_jax.data import glyphs, idx
from fssd_jax.extras import FETCH, command
from fssd_jax.shown import brief

SIDE = 28


class ArrayDataset(NamedTuple):
    # [n, height, width, channel], uint8 or float32 in [0, 1]; ids [n, length], int8
    x: np.ndarray
    y: np.ndarray  # [n] int32; zeros where a set has no classes
    name: str
    split: str
    source: str  # where it was found: a path, or a package and its version
    sha256: str  # of the arrays as loaded, before any selection

    __repr__ = brief

    def select(self, chosen) -> "ArrayDataset":
        """A part of the set; the source and digest stay those of the whole."""
        return self._replace(x=self.x[chosen], y=self.y[chosen])


Arrays = tuple[np.ndarray, np.ndarray, str]  # x, y and the source


def load(name: str, split: str, data_dir: str | Path | None = None) -> ArrayDataset:
    """Load one split of a data set.

    - `fashion_mnist`, `mnist`: splits `train` and `test`, from the first of these that
      has them: `data_dir` alone if given (its subfolder of that name, or itself, with
      IDX files, plain or .gz); TensorFlow Datasets, prepared or downloaded; the folder
      of a Debian package; the folder that `fssd fetch` fills.
    - `kmnist`: 70,000 cursive Japanese characters, in splits and sources as `mnist`
      but that of `data_dir` only the subfolder counts.
    - `cns_glyphs`: 20,000 printed Chinese characters, by the National Development
      Council of Taiwan (OGDL-TW-1.0), in the file `cns_glyphs/glyphs.npz` of `data_dir`
      or else of the folder that `fssd fetch` fills. The only split is `train`.
    - `digits`: scikit-learn's 1,797 real 8×8 digits, enlarged to 28×28. Splits `train`
      (60 %), `test` (40 %): a fixed stratified cut.
    - `photo_patches`: 28×28 grey patches, not overlapping, of scikit-learn's two
      photographs; the only split is `test`.

    Raises:
      InputError: an unknown name or split (the error lists the right ones), nothing
        found (it lists what was tried and what mends it), a damaged file.
    """
    splits = known_splits()
    if name not in splits:
        raise InputError(f"unknown data set {name!r}; choose from {sorted(splits)}")
    if split not in splits[name]:
        raise InputError(f"{name} has no split {split!r}; choose from {splits[name]}")
    if name in EMBEDDED:
        if data_dir is not None:
            raise InputError(
                f"{name} is embedded in scikit-learn and takes no data_dir"
            )
        x, y, source = EMBEDDED[name](split)
    elif name == "cns_glyphs":
        x, y, source = _cns_glyphs(data_dir)
    else:
        x, y, source = _first_found(name, split, data_dir)
    return ArrayDataset(x, y, name, split, source, digest(x, y))


def digest(*arrays) -> str:
    """SHA-256 of the arrays' dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for a in map(np.asarray, arrays):
        total.update(f"{a.dtype.str}{a.shape}".encode())
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


def fetched_dir() -> Path:
    """What `fssd fetch` fills: $FSSD_JAX_DATA, or a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FSSD_JAX_DATA") or Path(cache) / "fssd_jax")


# ---- sets that are looked for -------------------------------------------------------


class Published(NamedTuple):
    """A set of TensorFlow Datasets with features `image` and `label`."""

    # That TFDS downloads from; asked first, because without a network TFDS takes
    # minutes to give up.
    host: str
    splits: tuple[str, ...] = ("train", "test")
    # Where a Debian package puts its IDX files, and the package's name.
    debian: tuple[str, str] | None = None
    # Whether files in `data_dir` itself, not in its subfolder of the set's name, may be
    # the set: those without its name are of the set to which others are the outliers.
    unnamed: bool = False


# By the name that TFDS has for it. A new set is a row here.
TFDS = {
    "fashion_mnist": Published(
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        debian=("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist"),
        unnamed=True,
    ),
    "mnist": Published("storage.googleapis.com", unnamed=True),
    "kmnist": Published("codh.rois.ac.jp"),
}


def _first_found(name: str, split: str, data_dir: str | Path | None) -> Arrays:
    if data_dir is not None:
        folders = [Path(data_dir) / name]
        if TFDS[name].unnamed:
            folders.append(Path(data_dir))
        found = [_from_idx(folder, split) for folder in folders]
        for arrays in found:
            if not isinstance(arrays, str):
                return arrays
        raise InputError(f"{name}/{split}: {'; '.join(map(str, found))}")
    tried = []
    for where, look in (
        ("TensorFlow Datasets", lambda: from_tfds(name, split)),
        ("a Debian package", lambda: _from_debian(name, split)),
        (FETCH, lambda: _from_idx(fetched_dir() / name, split)),
    ):
        arrays = look()
        if not isinstance(arrays, str):
            return arrays
        tried.append(f"  {where}: {arrays}")
    raise InputError(
        f"{name}/{split} was not found. Tried, in this order:\n"
        + "  data_dir, or --data-dir: not given; a folder of IDX files, plain or .gz\n"
        + "\n".join(tried)
        + f"\nThe quickest way out: {FETCH}"
    )


def _from_idx(folder: str | Path, split: str) -> Arrays | str:
    """The arrays, or why there are none."""
    files = idx.find(Path(folder), split)
    if files is None:
        return f"no IDX files of split {split} in {Path(folder).absolute()}"
    return *idx.read(*files), str(files[0].parent.absolute())


def _from_debian(name: str, split: str) -> Arrays | str:
    debian = TFDS[name].debian
    if debian is None:
        return f"there is none for {name}"
    folder, package = debian
    found = _from_idx(folder, split)
    return f"{found} (apt-get install {package})" if isinstance(found, str) else found


def from_tfds(name: str, split: str, download: bool = True) -> Arrays | str:
    """By `tfds.data_source`, which needs no TensorFlow; a string says why not."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        return f"not installed ({error.name}): {command('tensorflow_datasets')}"
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # TFDS warns of every folder that is not there
    try:
        builder = tfds.builder(name, file_format="array_record")
        if not builder.is_prepared():
            if not download:
                return f"not prepared in {builder.data_dir}"
            host = TFDS[name].host
            if not _reachable(host):
                return (
                    f"not prepared in {builder.data_dir}, and {host} "
                    "cannot be reached; set TFDS_DATA_DIR, or get online"
                )
            builder.download_and_prepare()
        rows: Any = list(builder.as_data_source(split))  # pyright: ignore
    except Exception as error:  # whatever the network or another TFDS version does
        return f"failed ({type(error).__name__}: {error}); set TFDS_DATA_DIR"
    finally:
        log.setLevel(level)
    x = np.stack([row["image"] for row in rows])
    y = np.array([row["label"] for row in rows], np.int32)
    return x, y, f"tensorflow_datasets {builder.info.full_name}"


def _reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 80), timeout=5).close()
    except OSError:
        return False
    return True


def _cns_glyphs(data_dir: str | Path | None) -> Arrays:
    folder = fetched_dir() if data_dir is None else Path(data_dir)
    path = (folder / "cns_glyphs" / glyphs.FILE).absolute()
    if not path.is_file():
        raise InputError(
            f"cns_glyphs/train: there is no {path}; `{FETCH}` gets it into "
            f"{fetched_dir()}, where there is apt-get"
        )
    x = glyphs.read(path)
    return x, np.zeros(len(x), np.int32), str(path.parent)


# ---- sets that are embedded in scikit-learn -----------------------------------------


def _digits(split: str) -> Arrays:
    data: Any = load_digits()
    images = enlarge(data.images.astype(np.float32) / 16, SIDE)
    labels = data.target.astype(np.int32)
    parts = train_test_split(
        np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0
    )
    chosen = np.sort(parts[0] if split == "train" else parts[1])
    return images[chosen, :, :, None], labels[chosen], _embedded("digits")


def _photo_patches(split: str) -> Arrays:
    x = photo_patches((SIDE, SIDE, 1))
    return x, np.zeros(len(x), np.int32), _embedded("china.jpg and flower.jpg")


def photo_patches(shape: tuple[int, int, int]) -> Float[np.ndarray, "n h w channels"]:
    """Patches of scikit-learn's two photographs (427×640), in [0, 1].

    One every 28 pixels: larger ones overlap, and are no independent sample.

    Args:
      shape: height, width and channels of a patch; 3 channels, or 1 for grey.

    Raises:
      InputError: larger patches than photographs, or other channels.
    """
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
        grid = np.moveaxis(windows[::SIDE, ::SIDE], 2, -1)
        patches.append(grid.reshape(-1, *shape))
    return np.concatenate(patches).clip(0, 1)


def enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Bilinear, [n, h, w] to [n, side, side], pixel centres aligned at half pixels."""

    def weights(n):
        at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n))).astype(np.float32)

    rows, columns = weights(images.shape[1]), weights(images.shape[2])
    return np.einsum("ih,nhw,jw->nij", rows, images, columns)


def _embedded(what: str) -> str:
    return f"scikit-learn {sklearn.__version__}, {what}"


EMBEDDED: dict[str, Callable[[str], Arrays]] = {
    "digits": _digits,
    "photo_patches": _photo_patches,
}
OWN_SPLITS = {
    "digits": ("train", "test"),
    "photo_patches": ("test",),
    "cns_glyphs": ("train",),
}


def known_splits() -> dict[str, tuple[str, ...]]:
    """The splits of every set that `load` knows."""
    return OWN_SPLITS | {name: of.splits for name, of in TFDS.items()}
