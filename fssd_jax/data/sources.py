"""Data sets that fit in memory: where each is looked for, and what was found."""

import hashlib
import logging
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import glyphs, idx
from fssd_jax.data.embedded import COLOUR_SIDE, EMBEDDED, Arrays
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
    sha256: str  # of the arrays as loaded, before any selection

    __repr__ = brief

    def select(self, chosen) -> "ArrayDataset":
        """A part of the set; the source and digest stay those of the whole."""
        part = getattr(self.x, "part", self.x.__getitem__)
        return self._replace(x=part(chosen), y=self.y[chosen])


def load(name: str, split: str, data_dir: str | Path | None = None) -> ArrayDataset:
    """Load one split of a data set.

    - `fashion_mnist`, `mnist`: splits `train` and `test`, from the first of these that
      has them: `data_dir` alone if given (its subfolder of that name, or itself, with
      IDX files, plain or .gz); TensorFlow Datasets, prepared or downloaded; the folder
      of a Debian package; the folder that `fssd fetch` fills.
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
    # Classes of a set in colour, which lies in folders of images, not in IDX files.
    classes: int | None = None


# By the name that TFDS has for it. A new set is a row here.
TFDS = {
    "fashion_mnist": Published(
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        debian=("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist"),
        unnamed=True,
    ),
    "mnist": Published("storage.googleapis.com", unnamed=True),
    "kmnist": Published("codh.rois.ac.jp"),
    "cifar10": Published("www.cs.toronto.edu", classes=10),
    "svhn_cropped": Published("ufldl.stanford.edu", classes=10),
}


def _first_found(name: str, split: str, data_dir: str | Path | None) -> Arrays:
    if data_dir is not None:
        folders = [Path(data_dir) / name]
        if TFDS[name].unnamed:
            folders.append(Path(data_dir))
        found = [_from_folder(name, folder, split) for folder in folders]
        for arrays in found:
            if not isinstance(arrays, str):
                return arrays
        raise InputError(f"{name}/{split}: {'; '.join(map(str, found))}")
    own = fetched_dir() / name
    colour = TFDS[name].classes is not None
    debian = [] if colour else [("a Debian package", lambda: _from_debian(name, split))]
    tried = []
    for where, look in (
        ("TensorFlow Datasets", lambda: from_tfds(name, split)),
        *debian,
        ("its own folder" if colour else FETCH, lambda: _from_folder(name, own, split)),
    ):
        arrays = look()
        if not isinstance(arrays, str):
            return arrays
        tried.append(f"  {where}: {arrays}")
    files = "class folders of images" if colour else "IDX files, plain or .gz"
    raise InputError(
        f"{name}/{split} was not found. Tried, in this order:\n"
        + f"  data_dir, or --data-dir: not given; a folder of {files}\n"
        + "\n".join(tried)
        + "\nThe quickest way out: "
        + (f"put its images into {own / split}/CLASS/" if colour else FETCH)
    )


def _from_folder(name: str, folder: Path, split: str) -> Arrays | str:
    """The arrays, or why there are none."""
    classes = TFDS[name].classes
    if classes is None:
        return _from_idx(folder, split)
    return _from_images(folder, split, classes)


def _from_images(folder: Path, split: str, classes: int) -> Arrays | str:
    """Images in colour of a folder SPLIT, or of SPLIT.npz.

    Raises:
      InputError: other classes than the set has, of which each has its number; what
        `load_images` raises.
    """
    from fssd_jax.data.folders import load_images  # it has its classes from here

    paths = [folder.absolute() / f"{split}{ending}" for ending in (".npz", "")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return f"neither a folder {paths[1]} nor a file {paths[0]}"
    found = load_images(path, size=COLOUR_SIDE, channels=3)
    present = np.unique(found.y).tolist()
    if present != list(range(classes)):
        raise InputError(
            f"{path}: holds images of {len(present)} classes, expected {classes}, "
            "whose numbers are those of its subfolders in sorted order, or 0 to "
            f"{classes - 1} in y; put in what is missing"
        )
    if path.is_dir():
        _check_names(path)
        endings = sorted({file.suffix.lower() for file in path.glob("*/*.*")})
        return found.x, found.y, f"{found.source}; image files {' '.join(endings)}"
    return found.x, found.y, found.source


def _check_names(path: Path) -> None:
    """Raise unless its classes, numbered by name, are those of the other splits."""

    def names(folder: Path) -> set[str]:
        found = (part.name for part in folder.iterdir() if part.is_dir())
        return {name for name in found if not name.startswith(".")}

    for other in path.parent.iterdir():
        if other.is_dir() and other.name in ("train", "test"):
            if differ := names(other) ^ names(path):
                raise InputError(
                    f"{path} and {other} have classes of other names, "
                    f"{sorted(differ)}; rename these folders, whose sorted names are "
                    "numbered"
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


OWN_SPLITS = {
    "digits": ("train", "test"),
    "photo_patches": ("test",),
    "colour_patches": ("test",),
    "cns_glyphs": ("train",),
}


def known_splits() -> dict[str, tuple[str, ...]]:
    """The splits of every set that `load` knows."""
    return OWN_SPLITS | {name: of.splits for name, of in TFDS.items()}
