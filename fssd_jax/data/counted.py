"""What is there of a set, in its layout: how many samples, of how many classes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import benchmarks, faces, genomics, imagenet, sequences, sources
from fssd_jax.data.image_files import ENDINGS
from fssd_jax.data.split_names import split_of


class Found(NamedTuple):
    where: str
    count: int | None  # None: it is there, but holds other parts than were asked for
    classes: int | None = None  # None: not known
    told: str = ""  # what else is to be said
    wrong: tuple[str, ...] = ()


def celeba(
    place: Path, split: str, look: Callable[[], faces.Faces | str] | None = None
) -> Found | None:
    """As the benchmark divides them; "all", as Outlier Exposure takes them."""
    if not place.is_dir():
        return None
    if split == "all" and look is None:
        files = faces.celeba_images(1, place.parent)
        return Found(str(place), len(files.x))
    try:
        of = faces.listed(place) if look is None else look()
        if isinstance(of, str):
            return Found(str(place), 0, wrong=(of,))
        if split == "all":
            return Found(str(place), len(of.blurry))
        found = faces.of_faces(of)
    except InputError as error:
        return Found(str(place), 0, wrong=(str(error),))
    sets = {"train": found.train, "test": found.test, "blurry": found.ood["celeba"]}
    count = len(sets[split].y)
    classes = None if split == "blurry" else len(np.unique(sets[split].y))
    return Found(str(place), count, classes)


def dogs(data_dir: str | Path | None) -> list[Found]:
    """As the benchmark draws them of ImageNet: to train, to test, and no dogs.

    Raises:
      InputError: they cannot be drawn.
    """
    *both, others = imagenet.dogs_of_imagenet(data_dir)
    found = [Found(of.source, len(of.y), len(np.unique(of.y))) for of in both]
    return [*found, Found(others.source, len(others.y))]


def genomics_reads(place: Path, split: str) -> Found | None:
    """By the lines of the published file, of which the first names the columns."""
    path = place / genomics.FILES[split]
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return Found(str(path), max(0, sum(1 for _ in file) - 1))


def cns_glyphs(place: Path, split: str) -> Found | None:
    if not place.is_dir():
        return None
    return Found(str(place), len(sources.load("cns_glyphs", split, place.parent).x))


def genomes(place: Path) -> Found | None:
    """Strains, and species; of those that the benchmark takes none may be missing."""
    if not place.is_dir():
        return None
    strains = sequences.find(place)
    missing = {*benchmarks.TRAINED, *benchmarks.HELD_OUT} - strains.keys()
    wrong = (f"cannot be used: no folders {sorted(missing)}",) if missing else ()
    return Found(str(place), sum(map(len, strains.values())), len(strains), wrong=wrong)


def in_classes(place: Path, split: str) -> Found | None:
    """Images in class folders, in the split's folder."""
    names = [split, *(p.name for p in folders(place) if split_of(p.name))]
    same = [name for name in names if split_of(name) == split_of(split)]
    found = (in_folder(place / name) for name in same)
    return next(filter(None, found), None)


def in_folder(folder: Path) -> Found | None:
    """Images at any depth, in class folders or without."""
    inner = [count_images(of) for of in folders(folder)]
    total = count_images(folder, deep=False) + sum(inner)
    classes = sum(map(bool, inner)) or None
    return Found(str(folder), total, classes) if total else None


def folders(place: Path) -> list[Path]:
    """Those in it that are not hidden."""
    try:
        with os.scandir(place) as entries:
            names = sorted(e.name for e in entries if e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [place / name for name in names if not name.startswith(".")]


def count_images(folder: Path, *, deep: bool = True) -> int:
    """Files that are images, by their names; hidden ones are none, as ._a.jpg."""
    total, waiting, seen = 0, [folder], set()
    while waiting:
        at = waiting.pop()
        try:
            of = at.stat()
            with os.scandir(at) as entries:
                names = [e.name.lower() for e in entries if not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            continue
        if (of.st_dev, of.st_ino) in seen:  # links in a circle have no end
            continue
        seen.add((of.st_dev, of.st_ino))
        total += sum(name.endswith(tuple(ENDINGS)) for name in names)
        waiting += folders(at) if deep else []
    return total
