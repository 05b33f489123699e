"""Which data sets are here, of those that the benchmarks need.

`--list` shows all benchmarks, `--check NAME` one: each set, where it was looked for,
and its counts beside those of the paper's Table 1. Nothing is downloaded.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax import extras
from fssd_jax.checks import InputError
from fssd_jax.data import benchmarks, faces, genomics, sequences, sources, stored
from fssd_jax.data.corrupted_sets import GROUPS, LEVELS
from fssd_jax.data.image_files import ENDINGS, located
from fssd_jax.data.imagenet_c import KINDS
from fssd_jax.data.large_sets import newest_version
from fssd_jax.data.needs import NEEDS, Need, agrees
from fssd_jax.data.split_names import split_of
from fssd_jax.piped import until_closed

GENOMES, CORRUPTED = "genomes", "imagenet_c"


class Found(NamedTuple):
    where: str
    count: int | None  # None: it is there, but holds other parts than were asked for
    classes: int | None = None  # None: not known
    told: str = ""  # what else is to be said
    wrong: tuple[str, ...] = ()


def command(args: Sequence[str] | None = None) -> int:
    """Print; the exit status is 1 if what was checked is not all there, else 0."""
    parser = argparse.ArgumentParser("fssd data", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="all benchmarks")
    what.add_argument("--check", metavar="NAME", help=f"one of {', '.join(NEEDS)}")
    told = "a folder that holds the sets, each in a subfolder of its name"
    parser.add_argument("--data-dir", type=Path, help=told)
    return until_closed(_reports, parser.parse_args(args))


def _reports(asked: argparse.Namespace) -> int:
    try:
        names = list(NEEDS) if asked.list else [_name(asked.check)]
        whole = [_report(name, asked.data_dir) for name in names]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(not asked.list and not all(whole))


def _name(given: str) -> str:
    """The key of `NEEDS`, for it or for the name of `table2 --benchmark`."""
    for name, benchmark in NEEDS.items():
        if given.casefold() in (name.casefold(), benchmark.runs):
            return name
    raise InputError(f"unknown benchmark {given!r}; choose from {', '.join(NEEDS)}")


def _report(name: str, data_dir: Path | None) -> bool:
    """Print what is there of a benchmark; whether all of it is, and as it should be."""
    benchmark = NEEDS[name]
    print(f"{name}: {benchmark.title} (table2 --benchmark {benchmark.runs})")
    whole = all([_report_set(need, data_dir) for need in benchmark.needs])
    if whole or benchmark.instead is None:
        return whole
    print(f"  They are drawn of {benchmark.instead.name}, if that is there:")
    return _report_set(benchmark.instead, data_dir)


def _report_set(need: Need, data_dir: Path | None) -> bool:
    absent, whole = [], True
    for split in need.counts:
        found, looked = find(need, split, data_dir)
        title = f"{need.name}/{split}" if split else need.name
        if found is None:
            absent.append(title)
            continue
        lines = list(_lines(need, split, found))
        whole &= len(lines) == 1
        print(f"  {need.role}: {title}: {lines[0]}")
        print("".join(f"    warning: {title}: {line}\n" for line in lines[1:]), end="")
    if not absent:
        return whole
    print(f"  {need.role}: {', '.join(absent)}: not there. Looked for")
    print("".join(f"    {line}\n" for line in looked), end="")
    # With --data-dir it is not looked for where it would be got to.
    alone = "" if data_dir is None else "without --data-dir, "
    print(f"    To get it: {alone}{need.get}")
    if need.layout:
        print(f"    Its folder: {need.name}/{need.layout}")
    return False


def _lines(need: Need, split: str, found: Found) -> Iterator[str]:
    """What was found, and a warning for each count that is another."""
    wanted, classes = need.counts[split], need.classes.get(split)
    if found.count is None:
        yield f"{found.told}, in {found.where}"
    else:
        of = f" of {wanted}" if wanted else ""
        among = f", {found.classes:,} classes" if found.classes is not None else ""
        yield f"{found.count:,}{of}{among}{found.told}, in {found.where}"
        if wanted and not agrees(wanted, found.count):
            yield f"{found.count:,} samples, expected {wanted}"
        if classes and found.classes is not None and found.classes != classes:
            yield f"{found.classes:,} classes, expected {classes:,}"
    yield from found.wrong


# ---- where sets are -----------------------------------------------------------------


def find(
    need: Need, split: str, data_dir: str | Path | None = None
) -> tuple[Found | None, list[str]]:
    """A split of a set, and where it was looked for, up to where it was found.

    The order is that of `sources.load`: `data_dir` alone, if it is given and the set
    has a loader, else also TensorFlow Datasets, a Debian package, and the folder of
    `fssd fetch`.
    """
    if need.name in sources.EMBEDDED:
        data = sources.load(need.name, split)
        return Found(data.source, len(data.x)), []
    looked = ["--data-dir: not given"] if data_dir is None else []
    for kind, place, idx_only in _places(need, data_dir):
        looked.append(f"{kind}: {place}{' (IDX files)' * idx_only}")
        try:
            if kind == "TFDS":
                found = _prepared(need, split, place)
            else:
                found = _in_folder(need, split, place, idx_only)
        except (InputError, OSError) as error:
            found = Found(str(place), 0, wrong=(f"cannot be used: {error}",))
        passed_over = kind == "TFDS" and need.name != CORRUPTED
        if passed_over and found is not None and found.wrong:
            looked[-1] += f": {found.wrong[0]}"  # the loader goes on, too
        elif found is not None:
            return found, looked
    return None, looked


def _places(need: Need, data_dir) -> Iterator[tuple[str, Path, bool]]:
    """(title, place, whether only IDX files there may be the set)."""
    known = need.name in sources.TFDS
    fetched = "where `fssd fetch` puts sets"
    if data_dir is not None:
        if known:
            for _, folder, idx_only in sources.places(need.name, data_dir):
                yield "--data-dir", folder, idx_only
        elif need.layout:
            yield "--data-dir", located(data_dir) / need.name, False
        return
    by_tfds = [] if need.tfds is None else [("TFDS", sources.tfds_dir() / need.tfds)]
    # Of the published images TFDS has others, which are the last resort.
    if need.name == CORRUPTED:
        by_tfds.insert(0, (fetched, sources.fetched_dir() / need.name))
    yield from ((*of, False) for of in by_tfds)
    if need.name == CORRUPTED:
        return
    if known:
        for title, folder, idx_only in sources.places(need.name, None):
            yield title if idx_only else fetched, folder, idx_only
    elif need.layout:
        yield fetched, sources.fetched_dir() / need.name, False


# ---- what is there ------------------------------------------------------------------


def _prepared(need: Need, split: str, place: Path) -> Found | None:
    """By dataset_info.json, which TFDS writes beside the data of each version."""
    if need.name == CORRUPTED:
        return _corruptions(need, split, place, "{}_{}", _prepared)
    newest = newest_version(place)
    if newest is None:
        return None
    try:
        told = json.loads(newest.read_text())
        kept = told.get("fileFormat")
        splits = {
            part["name"]: sum(map(int, part.get("shardLengths", [])))
            for part in told["splits"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return _damaged(newest, error)
    if split not in splits:
        return None
    wrong = ()  # why `sources.from_tfds` would not read it
    if find_spec("tensorflow_datasets") is None:
        wrong = (extras.command("tensorflow_datasets"),)
    elif kept not in (None, "array_record"):
        wrong = (f"prepared as {kept}; remove it, and then {need.get}",)
    return Found(str(newest.parent), splits[split], wrong=wrong)


def _in_folder(need: Need, split: str, place: Path, idx_only: bool) -> Found | None:
    if need.name in sources.TFDS:
        return _as_loaded(need, split, place, idx_only)
    if need.name == GENOMES:
        return _of_genomes(place)
    if need.name == CORRUPTED:
        return _corruptions(need, split, place, "{}/{}", _in_classes)
    if need.name in COUNTED:
        return COUNTED[need.name](place, split)
    return _in_classes(need, split, place)


def _celeba(place: Path, split: str) -> Found | None:
    """As the benchmark divides them."""
    if not place.is_dir():
        return None
    try:
        found = faces.celeba(place.parent)
    except InputError as error:
        return Found(str(place), 0, wrong=(str(error),))
    sets = {"train": found.train, "test": found.test, "blurry": found.ood["celeba"]}
    count = len(sets[split].y)
    classes = None if split == "blurry" else len(np.unique(sets[split].y))
    return Found(str(place), count, classes)


def _genomics(place: Path, split: str) -> Found | None:
    """By the lines of the published file, of which the first names the columns."""
    path = place / genomics.FILES[split]
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return Found(str(path), max(0, sum(1 for _ in file) - 1))


# Sets in layouts of their own: folder, split → what is there.
COUNTED = {"celeb_a": _celeba, "genomics_ood": _genomics}


def _damaged(path: Path, error: Exception) -> Found:
    told = f"damaged ({type(error).__name__}: {error}); get it again"
    return Found(str(path), 0, wrong=(told,))


def _as_loaded(need: Need, split: str, place: Path, idx_only: bool) -> Found | None:
    """What `sources.load` would read, and why it would not."""
    grey, classes = sources.TFDS[need.name].grey, sources.TFDS[need.name].classes
    found = stored.find(place, split, grey=grey, idx_only=idx_only)
    if isinstance(found, str):
        return None
    where, wrong = found.where, ()
    try:
        y = stored.labels(found, grey=grey)
    except InputError as error:
        return Found(str(where), 0, wrong=(f"cannot be used: {error}",))
    try:
        if len(found.paths) == 1:
            stored.check(where, y, classes, grey=grey)
    except InputError as error:
        wrong = (f"cannot be used: {error}",)
    return Found(str(where), len(y), len(np.unique(y)), wrong=wrong)


def _of_genomes(place: Path) -> Found | None:
    """Strains, and species; of those that the benchmark takes none may be missing."""
    if not place.is_dir():
        return None
    strains = sequences.find(place)
    missing = {*benchmarks.TRAINED, *benchmarks.HELD_OUT} - strains.keys()
    wrong = (f"cannot be used: no folders {sorted(missing)}",) if missing else ()
    return Found(str(place), sum(map(len, strains.values())), len(strains), wrong=wrong)


def _in_classes(need: Need, split: str, place: Path) -> Found | None:
    """Images in class folders: of the split's folder, or of the place."""
    names = [split, *(p.name for p in _folders(place) if split_of(p.name))]
    same = [
        name for name in names if name == split or split_of(name) == split_of(split)
    ]
    # A set of one split may have no folder for it.
    whole = len(need.counts) == 1 and not any(split_of(p.name) for p in _folders(place))
    for folder in (*(place / name for name in same if name), *([place] * whole)):
        counts = [_count(folder), *(_count(inner) for inner in _folders(folder))]
        if any(counts):
            classes = sum(count > 0 for count in counts[1:])
            return Found(str(folder), sum(counts), classes)
    return None


def _folders(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(place / e.name for e in entries if e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _count(folder: Path) -> int:
    """Files in it that are images, by their names."""
    try:
        with os.scandir(folder) as entries:
            return sum(e.name.lower().endswith(tuple(ENDINGS)) for e in entries)
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _corruptions(need: Need, split: str, place: Path, path: str, count) -> Found | None:
    """Of ImageNet-C: all kinds and levels, and what is wrong of them."""
    one, wanted, each = need._replace(name=""), need.counts[split], {}
    for name in (path.format(kind, level) for kind in KINDS for level in LEVELS):
        for group in GROUPS:
            found = count(one, split, place / group / name)
            if found is not None and found.count:
                each[name] = found.count
                break
    if not each:
        return None
    total, most = len(KINDS) * len(LEVELS), max(each.values())
    wrong = [
        f"{name}: {n:,} samples, expected {wanted}"
        for name, n in each.items()
        if n != most and wanted and not agrees(wanted, n)
    ]
    if len(each) < total:
        wrong.append(f"{len(each)} kinds and levels, expected {total}")
    told = f" in {len(each)} of {total} kinds and levels"
    return Found(str(place), most, told=told, wrong=tuple(wrong))
