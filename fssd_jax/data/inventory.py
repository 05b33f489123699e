"""Which data sets are here, of those that the benchmarks need.

`--list` shows all benchmarks, `--check NAME` one: each set, where it was looked for,
and its counts beside those of the paper's Table 1. Nothing is downloaded.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fssd_jax import extras
from fssd_jax.checks import InputError
from fssd_jax.data import counted, faces, sources, stored
from fssd_jax.data.corrupted_sets import GROUPS, LEVELS
from fssd_jax.data.counted import Found
from fssd_jax.data.image_files import located
from fssd_jax.data.imagenet_c import KINDS
from fssd_jax.data.large_sets import newest_version
from fssd_jax.data.needs import NEEDS, Benchmark, Need, advice, agrees
from fssd_jax.piped import until_closed

GENOMES, CORRUPTED, CELEBA = "genomes", "imagenet_c", "celeb_a"


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
        whole = [_report(name, asked.data_dir, drawn=not asked.list) for name in names]
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


def _report(name: str, data_dir: Path | None, *, drawn: bool) -> bool:
    """Print what is there of a benchmark; whether all of it is, and as it should be.

    Args:
      name: of `NEEDS`.
      data_dir: where alone it is looked for, if it is given.
      drawn: whether to count what is drawn of a set, too, whose labels TFDS reads once.
    """
    benchmark = NEEDS[name]
    print(f"{name}: {benchmark.title} (table2 --benchmark {benchmark.runs})")
    whole = all([_report_set(need, data_dir) for need in benchmark.needs])
    if not whole and benchmark.instead is not None:
        print(f"  They are drawn of {benchmark.instead.name}, if that is there:")
        whole = _report_set(benchmark.instead, data_dir)
        if drawn and whole is not None:
            whole &= _report_drawn(benchmark, data_dir)
    if benchmark.also:
        print("  It can do without:")
    for need in benchmark.also:
        _report_set(need, data_dir)
    return bool(whole)


def _report_drawn(benchmark: Benchmark, data_dir: Path | None) -> bool:
    """Print what the loader draws of `instead`; whether it is as many as in Table 1."""
    print("  Of these it draws:")
    try:
        found = counted.dogs(data_dir)
    except (InputError, OSError) as error:
        print(f"    warning: they cannot be used: {error}")
        return False
    parts = [(need, split) for need in benchmark.needs for split in need.counts]
    return all(
        [_report_found(*part, of) for part, of in zip(parts, found, strict=True)]
    )


def _report_set(need: Need, data_dir: Path | None) -> bool | None:
    """Print what is there of a set; whether it is as it should be; None: not there."""
    absent, whole, looked = [], True, []
    for split in need.counts:
        found, places = find(need, split, data_dir)
        if found is None:
            absent.append(_title(need, split))
            looked = places
        else:
            whole &= _report_found(need, split, found)
    if not absent:
        return whole
    print(f"  {need.role}: {', '.join(absent)}: not there. Looked for")
    print("".join(f"    {line}\n" for line in looked), end="")
    print(f"    To get it: {advice(need, data_dir)}")
    if need.layout:
        print(f"    Its folder: {need.name}/{need.layout}")
    return None


def _title(need: Need, split: str) -> str:
    return f"{need.name}/{split}" if split else need.name


def _report_found(need: Need, split: str, found: Found) -> bool:
    title, lines = _title(need, split), list(_lines(need, split, found))
    print(f"  {need.role}: {title}: {lines[0]}")
    print("".join(f"    warning: {title}: {line}\n" for line in lines[1:]), end="")
    return len(lines) == 1


def _lines(need: Need, split: str, found: Found) -> Iterator[str]:
    """What was found, and a warning for each count that is another."""
    wanted, classes = need.counts[split], need.classes.get(split)
    if found.count is None:
        yield f"{found.told}, in {found.where}"
    else:
        of = f" of {_shown(wanted)}" if wanted else ""
        among = f", {found.classes:,} classes" if found.classes is not None else ""
        yield f"{found.count:,}{of}{among}{found.told}, in {found.where}"
        if wanted and not agrees(wanted, found.count):
            yield f"{found.count:,} samples, expected {_shown(wanted)}"
        if classes and found.classes is not None and found.classes != classes:
            yield f"{found.classes:,} classes, expected {classes:,}"
    yield from found.wrong


def _shown(wanted: int | str) -> str:
    return f"{wanted:,}" if isinstance(wanted, int) else wanted


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
        one = need._replace(name="")
        return _corruptions(
            need, split, place, "{}_{}", lambda path: _prepared(one, split, path)
        )
    if need.name == CELEBA:
        return counted.celeba(place, split, faces.prepared_faces)
    newest = newest_version(place)
    if newest is None:
        return None
    try:
        told = json.loads(newest.read_text())
        kept = told.get("fileFormat") or "tfrecord"  # as TFDS takes it
        splits = {
            part["name"]: sum(map(int, part.get("shardLengths", [])))
            for part in told["splits"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return _damaged(newest, error)
    if split not in splits:
        return Found(str(newest.parent), 0, wrong=(f"it has no split {split}",))
    wrong = ()  # why the loader would not read it
    if find_spec("tensorflow_datasets") is None:
        wrong = (extras.command("tensorflow_datasets"),)
    elif kept != "array_record":
        get = f"`tfds build {need.tfds} --file_format=array_record`"
        wrong = (f"prepared as {kept}; remove it, and then {get}",)
    return Found(str(newest.parent), splits[split], wrong=wrong)


def _in_folder(need: Need, split: str, place: Path, idx_only: bool) -> Found | None:
    if need.name in sources.TFDS:
        return _as_loaded(need, split, place, idx_only)
    if need.name == GENOMES:
        return counted.genomes(place)
    if need.name == CORRUPTED:
        return _corruptions(need, split, place, "{}/{}", counted.in_folder)
    if need.name in OWN:
        return OWN[need.name](place, split)
    found = counted.in_classes(place, split)
    if found is not None and found.classes is None and split in need.classes:
        told = "cannot be used: its images lie without folders of their classes"
        return found._replace(wrong=(told,))
    return found


# Sets in layouts of their own: folder, split → what is there.
OWN = {
    CELEBA: counted.celeba,
    "genomics_ood": counted.genomics_reads,
    "cns_glyphs": counted.cns_glyphs,
}


def _damaged(path: Path, error: Exception) -> Found:
    told = f"damaged ({type(error).__name__}: {error}); get it again"
    return Found(str(path), 0, wrong=(told,))


def _as_loaded(need: Need, split: str, place: Path, idx_only: bool) -> Found | None:
    """What `sources.load` would read, and why it would not."""
    of = sources.expected(need.name)
    found = stored.find(place, split, grey=of.grey, idx_only=idx_only)
    if isinstance(found, str):
        return None
    where, wrong = found.where, ()
    try:
        y = stored.labels(found, grey=of.grey)
    except InputError as error:
        return Found(str(where), 0, wrong=(f"cannot be used: {error}",))
    try:
        stored.check(found, y, of)
    except InputError as error:
        wrong = (f"cannot be used: {error}",)
    return Found(str(where), len(y), len(np.unique(y)), wrong=wrong)


def _corruptions(need: Need, split: str, place: Path, path: str, count) -> Found | None:
    """Of ImageNet-C: all kinds and levels, and what is wrong of them."""
    wanted, each, empty = need.counts[split], {}, []
    for name in (path.format(kind, level) for kind in KINDS for level in LEVELS):
        for there in (place / group / name for group in GROUPS):
            found = count(there)
            if found is not None and found.count:
                each[name] = found.count
                break
            empty += [f"{there}: there is nothing in it"] * there.is_dir()
    if not each:
        return None
    total, most = len(KINDS) * len(LEVELS), max(each.values())
    wrong = [
        f"{name}: {n:,} samples, expected {_shown(wanted)}"
        for name, n in each.items()
        if n != most and wanted and not agrees(wanted, n)
    ]
    wrong += empty
    if len(each) < total:
        wrong.append(f"{len(each)} kinds and levels, expected {total}")
    told = f" in {len(each)} of {total} kinds and levels"
    return Found(str(place), most, told=told, wrong=tuple(wrong))
