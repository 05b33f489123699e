"""What is there of a set, in its layout: how many samples, of how many classes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import benchmarks, faces, genomics, sequences, sources
from fssd_jax.data.image_files import ENDINGS
from fssd_jax.data.needs import Need
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


def in_classes(need: Need, split: str, place: Path) -> Found | None:
    """Images in class folders: of the split's folder, or of the place."""
    names = [split, *(p.name for p in folders(place) if split_of(p.name))]
    same = [
        name for name in names if name == split or split_of(name) == split_of(split)
    ]
    # A set of one split may have no folder for it.
    whole = len(need.counts) == 1 and not any(split_of(p.name) for p in folders(place))
    for folder in (*(place / name for name in same if name), *([place] * whole)):
        counts = [
            count_images(folder),
            *(count_images(inner) for inner in folders(folder)),
        ]
        if any(counts):
            classes = sum(count > 0 for count in counts[1:])
            return Found(str(folder), sum(counts), classes)
    return None


def folders(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(place / e.name for e in entries if e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def count_images(folder: Path) -> int:
    """Files in it that are images, by their names."""
    try:
        with os.scandir(folder) as entries:
            return sum(e.name.lower().endswith(tuple(ENDINGS)) for e in entries)
    except (FileNotFoundError, NotADirectoryError):
        return 0
