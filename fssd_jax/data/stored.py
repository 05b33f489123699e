"""A split of a set as it lies in a folder: IDX files, SPLIT.npz, or class folders."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import idx, image_files
from fssd_jax.data.embedded import COLOUR_SIDE, SIDE, Arrays

# SHA-256 of the labels, a byte each, of sets whose IDX files have the same names.
LABELS = {
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": "fashion_mnist",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": "fashion_mnist",
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13": "mnist",
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": "mnist",
}


class Expected(NamedTuple):
    """What a set is to be like."""

    name: str
    classes: int  # how many
    grey: bool  # 28×28 in grey; or 32×32 in colour
    names: tuple[str, ...] | None  # of classes, by label, if they are known


class Stored(NamedTuple):
    paths: Sequence[Path]  # IDX files of images and labels; or SPLIT.npz; or SPLIT

    @property
    def where(self) -> Path:
        """What is named when it is told where a set is."""
        return self.paths[0].parent if len(self.paths) > 1 else self.paths[0]


def find(
    folder: Path, split: str, *, grey: bool, idx_only: bool = False
) -> Stored | str:
    """What there is of a split, or a text of what there is not.

    Args:
      folder: of a set.
      split: "train" or "test".
      grey: whether IDX files are such a set, and come first.
      idx_only: whether nothing else is looked for.

    Raises:
      InputError: the folder may not be searched.
    """
    folder = image_files.located(folder)
    arrays, images = folder / f"{split}.npz", folder / split
    with _searched(folder):
        if grey and (files := idx.find(folder, split)):
            return Stored(files)
        for path in () if idx_only else (arrays, images):
            if path.exists():
                return Stored((path,))
    none = f"no IDX files of split {split} in {folder}"
    neither = f"neither a folder {images} nor a file {arrays}"
    if idx_only:
        return none
    return f"{neither}, and {none}" if grey else neither


def read(found: Stored, of: Expected) -> Arrays:
    """The arrays; those of IDX files are as large as they are.

    Raises:
      InputError: a damaged file, images of another shape or range; what `check` and
        `folders.load_images` raise.
    """
    x, y, source = _loaded(found, grey=of.grey)
    check(found, y, of)
    if len(found.paths) == 1 and found.where.is_dir():
        endings = {file.suffix.lower() for file in found.where.glob("*/*.*")}
        told = " ".join(sorted(endings & set(image_files.ENDINGS)))
        source = f"{source}; image files {told}"
    return x, y, source


def _loaded(found: Stored, *, grey: bool) -> Arrays:
    from fssd_jax.data.folders import load_images  # it has its classes from sources

    if len(found.paths) > 1:
        return *idx.read(*found.paths), str(found.where)
    size, channels = (SIDE, 1) if grey else (COLOUR_SIDE, 3)
    data = load_images(found.where, size=size, channels=channels)
    return data.x, data.y, data.source


def labels(found: Stored, *, grey: bool) -> np.ndarray:
    """Those of `read` before they are checked; images of folders are not opened.

    Raises:
      InputError: as of `read`.
    """
    if len(found.paths) == 1 and found.where.is_dir():
        return image_files.find(found.where).y
    return _loaded(found, grey=grey)[1]


def check(found: Stored, y: np.ndarray, of: Expected) -> None:
    """Raise `InputError` unless it is that set, and each class has its number.

    Classes of a folder SPLIT are numbered by their sorted names, so that these are to
    be the set's own, as in CIFAR-10, or 0 to 9, and those of the other splits beside
    it. In grey they are 0 to 9: FashionMNIST's numbers are not in order of names.
    """
    path = found.where
    labels = hashlib.sha256(y.astype(np.uint8).tobytes()).hexdigest()
    other = LABELS.get(labels, of.name)
    if other != of.name:
        raise InputError(
            f"{path}: holds {other}, where {of.name} is wanted; put each set into a "
            "subfolder of its name, and give the folder that holds these"
        )
    if len(found.paths) > 1:
        return
    present = np.unique(y).tolist()
    if present != list(range(of.classes)):
        raise InputError(
            f"{path}: holds images of {len(present)} classes, expected {of.classes}; "
            f"the numbers {present[0]} to {present[-1]}, expected 0 to "
            f"{of.classes - 1}, which are those in y, or of its subfolders in sorted "
            "order; renumber them, or put in what is missing"
        )
    if not path.is_dir():
        return
    names, own = _names(path), None if of.grey else of.names
    known = of.grey or own is not None
    if known and names not in ({*map(str, range(of.classes))}, {*(own or ())}):
        numbers = f"the classes' numbers, 0 to {of.classes - 1}"
        raise InputError(
            f"{path}: its subfolders are {sorted(names)}, expected {numbers}"
            f"{f', or their names, {sorted(own)}' if own else ''}; rename them"
        )
    for other in (path.with_name("train"), path.with_name("test")):
        if other.is_dir() and (differ := _names(other) ^ _names(path)):
            raise InputError(
                f"{path} and {other} have classes of other names, {sorted(differ)}; "
                "rename these folders, whose sorted names are numbered"
            )


def _names(folder: Path) -> set[str]:
    with _searched(folder):
        found = [part.name for part in folder.iterdir() if part.is_dir()]
    return {name for name in found if not name.startswith(".")}


@contextmanager
def _searched(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be searched ({error.strerror}); have its owner let you "
            "read it, or give another folder"
        ) from error
