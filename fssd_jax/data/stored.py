"""A split of a set as it lies in a folder: IDX files, SPLIT.npz, or class folders."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import idx, image_files
from fssd_jax.data.embedded import COLOUR_SIDE, SIDE, Arrays


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


def read(found: Stored, classes: int, *, grey: bool) -> Arrays:
    """The arrays: 28×28 in grey, or 32×32 in colour; those of IDX files as they are.

    Raises:
      InputError: a damaged file, images of another shape or range; what `check` and
        `folders.load_images` raise.
    """
    x, y, source = _loaded(found, grey=grey)
    if len(found.paths) > 1:
        return x, y, source
    check(found.where, y, classes, grey=grey)
    if found.where.is_dir():
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


def check(path: Path, y: np.ndarray, classes: int, *, grey: bool) -> None:
    """Raise `InputError` unless each class has its number.

    Args:
      path: SPLIT.npz; or the folder SPLIT, whose classes are numbered by their sorted
        names, so that they are to be those of the other splits beside it. Those of a
        set in grey are 0 to 9: FashionMNIST's own numbers are not in order of names.
      y: labels.
      classes: how many the set has.
      grey: as of `read`.
    """
    present = np.unique(y).tolist()
    if present != list(range(classes)):
        raise InputError(
            f"{path}: holds images of {len(present)} classes, expected {classes}; the "
            f"numbers {present[0]} to {present[-1]}, expected 0 to {classes - 1}, "
            "which are those in y, or of its subfolders in sorted order; renumber "
            "them, or put in what is missing"
        )
    if not path.is_dir():
        return
    if grey and (names := _names(path)) != {str(i) for i in range(classes)}:
        raise InputError(
            f"{path}: its subfolders are {sorted(names)}, expected the classes' numbers"
            f", 0 to {classes - 1}; rename them"
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
