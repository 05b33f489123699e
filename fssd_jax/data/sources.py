"""Data sets that fit in memory: where each is looked for, and what was found."""

import hashlib
import logging
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import glyphs, stored
from fssd_jax.data.embedded import EMBEDDED, Arrays
from fssd_jax.data.image_files import located
from fssd_jax.extras import FETCH, command
from fssd_jax.shown import brief


class ArrayDataset(NamedTuple):
    # [n, height, width, channel], uint8 or float32 in [0, 1], or `decoded.Decoded`,
    # which is as good; ids [n, length], int8
    x: Any
    y: np.ndarray  # [n] int32; zeros where a set has no classes
    name: str
    split: str
    source: str  # where it was found: a path, or a package and its version
    # Of the arrays as loaded, before any selection; of `Decoded`, of which records they
    # are, and the files' names and sizes.
    sha256: str
    classes: tuple[str, ...] | None = None  # their names by label, where it has some
    files: np.ndarray | None = None  # [n] of text: below the folder that was read

    __repr__ = brief

    def select(self, chosen) -> "ArrayDataset":
        """A part of the set; the source and digest stay those of the whole."""
        part = getattr(self.x, "part", self.x.__getitem__)
        files = None if self.files is None else self.files[chosen]
        return self._replace(x=part(chosen), y=self.y[chosen], files=files)

    def described(self, chosen) -> np.ndarray | None:
        """What is known of these images, each a text: its file, or else its class.

        None of a set of one class without a name, and without files.
        """
        if self.files is not None:
            return self.files[chosen]
        y = self.y[chosen]
        if self.classes is not None:
            return np.array(self.classes)[y]
        if (self.y == self.y[:1]).all():
            return None
        return np.array([f"class {label}" for label in y])


def load(name: str, split: str, data_dir: str | Path | None = None) -> ArrayDataset:
    """Load one split of a data set.

    - `fashion_mnist`, `mnist`: splits `train` and `test`, from the first of these that
      has them: `data_dir` alone if given (its subfolder of that name, or itself, with
      IDX files, plain or .gz); TensorFlow Datasets, prepared or downloaded; the folder
      of a Debian package; the folder that `fssd fetch` fills. A folder of its name may
      have what those of `cifar10` have instead, 28×28 in grey.
    - `kmnist`: 70,000 cursive Japanese characters, in splits and sources as `mnist`
      but that of `data_dir` only the subfolder counts.
    - `cifar10`, `svhn_cropped`: 32×32 in colour, of ten classes, splits `train` and
      `test`, from the first of these that has them: the subfolder of that name of
      `data_dir` alone if given; TensorFlow Datasets; the folder beside those that `fssd
      fetch` fills. A folder has image files in SPLIT/CLASS/, see `load_images`, or
      SPLIT.npz with arrays x and y, which is read faster.
    - `cns_glyphs`: 20,000 printed Chinese characters, by the National Development
      Council of Taiwan (OGDL-TW-1.0), in the file `cns_glyphs/glyphs.npz` of `data_dir`
      or else of the folder that `fssd fetch` fills. The only split is `train`.
    - `digits`: scikit-learn's 1,797 real 8×8 digits, enlarged to 28×28. Splits `train`
      (60 %), `test` (40 %): a fixed stratified cut.
    - `photo_patches`: 28×28 grey patches, not overlapping, of scikit-learn's two
      photographs; the only split is `test`.
    - `colour_patches`: likewise of 32×32 pixels in colour.

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
    return ArrayDataset(x, y, name, split, source, digest(x, y), CLASSES.get(name))


# By label; of other sets the label is the name, or there are no classes.
CLASSES = {
    "fashion_mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}


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
    return located(os.environ.get("FSSD_JAX_DATA") or Path(cache) / "fssd_jax")


def tfds_dir() -> Path:
    """Where TensorFlow Datasets prepares sets: $TFDS_DATA_DIR, or its default."""
    own = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return Path(own).expanduser()


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
    # In grey, 28×28, which IDX files may hold too; or in colour, 32×32.
    grey: bool = True
    classes: int = 10


# By the name that TFDS has for it. A new set is a row here.
TFDS = {
    "fashion_mnist": Published(
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        debian=("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist"),
        unnamed=True,
    ),
    "mnist": Published("storage.googleapis.com", unnamed=True),
    "kmnist": Published("codh.rois.ac.jp"),
    "cifar10": Published("www.cs.toronto.edu", grey=False),
    "svhn_cropped": Published("ufldl.stanford.edu", grey=False),
}


class Place(NamedTuple):
    title: str
    folder: Path
    idx_only: bool = False  # whether only IDX files there may be the set


def places(name: str, data_dir: str | Path | None) -> list[Place]:
    """The folders that may hold a set of `TFDS`, in order.

    Without `data_dir` what TFDS has prepared comes before them.
    """
    of = TFDS[name]
    if data_dir is not None:
        root = located(data_dir)
        found = [Place("data_dir", root / name)]
        return found + [Place("data_dir", root, idx_only=True)] * of.unnamed
    debian = []
    if of.debian is not None:
        debian = [Place("a Debian package", Path(of.debian[0]), idx_only=True)]
    own = FETCH if of.grey else "its own folder"
    return [*debian, Place(own, fetched_dir() / name)]


def expected(name: str) -> stored.Expected:
    """What a set of `TFDS` in a folder is to be like."""
    of = TFDS[name]
    return stored.Expected(name, of.classes, of.grey, CLASSES.get(name))


def _first_found(name: str, split: str, data_dir: str | Path | None) -> Arrays:
    of, tried = TFDS[name], []
    if data_dir is None:
        found = from_tfds(name, split)
        if not isinstance(found, str):
            return found
        tried.append(f"  TensorFlow Datasets: {found}")
    if data_dir is None and of.grey and of.debian is None:
        tried.append(f"  a Debian package: there is none for {name}")
    for title, folder, idx_only in places(name, data_dir):
        found = stored.find(folder, split, grey=of.grey, idx_only=idx_only)
        if not isinstance(found, str):
            return stored.read(found, expected(name))
        packed = of.debian is not None and folder == Path(of.debian[0])
        get = f" (apt-get install {of.debian[1]})" if packed else ""  # pyright: ignore
        tried.append(f"  {title}: {found}{get}")
    if data_dir is not None:
        told = "; ".join(line.partition(": ")[2] for line in tried)
        there = located(data_dir) / name / split
        get = f"`{FETCH}`" if of.grey else "TensorFlow Datasets"
        raise InputError(
            f"{name}/{split}: {told}; to get it, put its images into {there}/CLASS/, "
            f"or leave data_dir, --data-dir, out: then {get} gets it"
        )
    own = fetched_dir() / name / split
    raise InputError(
        f"{name}/{split} was not found. Tried, in this order:\n"
        "  data_dir, or --data-dir: not given; a folder of class folders of images, of "
        f"arrays{', or of IDX files' * of.grey}\n"
        + "\n".join(tried)
        + "\nThe quickest way out: "
        + (FETCH if of.grey else f"put its images into {own}/CLASS/")
    )


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
    folder = fetched_dir() if data_dir is None else located(data_dir)
    path = folder / "cns_glyphs" / glyphs.FILE
    if not path.is_file():
        raise InputError(
            f"cns_glyphs/train: there is no {path}; `{FETCH}` gets it into "
            f"{fetched_dir()}, where there is apt-get"
        )
    x = glyphs.read(path)
    return x, np.zeros(len(x), np.int32), str(path.parent)


OWN_SPLITS = {
    "digits": ("train", "test"),
    "photo_patches": ("test",),
    "colour_patches": ("test",),
    "cns_glyphs": ("train",),
}


def known_splits() -> dict[str, tuple[str, ...]]:
    """The splits of every set that `load` knows."""
    return OWN_SPLITS | {name: of.splits for name, of in TFDS.items()}
