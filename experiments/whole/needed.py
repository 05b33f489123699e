"""What a part needs of this machine, whether it is here, and what gets it.

Nothing is downloaded, and no accelerator's memory is taken.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from experiments.harness import cli
from fssd_jax.checks import InputError
from fssd_jax.data import glyphs, inventory, needs, sources
from fssd_jax.data.benchmarks import OUTLIERS
from fssd_jax.data.needs import Need
from fssd_jax.extras import FETCH

UNUSABLE = ("cannot be used", "damaged")  # words of the inventory


class Lack(NamedTuple):
    what: str  # in a few words
    mend: str = ""  # what gets it, and where it was looked for


class Answer(NamedTuple):
    found: tuple[str, ...] = ()  # where, and how much: data that moves is other data
    missing: tuple[Lack, ...] = ()  # none: all is here


def check(names: tuple[str, ...], data_dir: Path | None) -> Answer:
    """Of all these `CHECKS`."""
    return _together([CHECKS[name](data_dir) for name in names])


def _together(answers: Sequence[Answer]) -> Answer:
    return Answer(
        tuple(where for answer in answers for where in answer.found),
        tuple(lack for answer in answers for lack in answer.missing),
    )


def is_data(name: str) -> bool:
    return name not in ("accelerator", "neural_tangents")


# ---- data ---------------------------------------------------------------------------


def _set(need: Need, splits: Iterable[str], data_dir: Path | None) -> Answer:
    """Of a set: these splits of it."""
    there, absent, looked_for, damaged = [], [], [], []
    for split in splits:
        title = f"{need.name}/{split}" if split else need.name
        found, looked = inventory.find(need, split, data_dir)
        if found is None:
            absent.append(title)
            looked_for = [line for line in looked if "not given" not in line]
            continue
        unusable = [w for w in found.wrong if w.startswith(UNUSABLE)]
        if unusable or found.count == 0:
            told = "; ".join(unusable) or "it is empty"
            damaged.append(Lack(f"{title} cannot be used", f"{found.where}: {told}"))
        else:
            there.append(f"{title}: {found.count} in {found.where}")
    if not absent:
        return Answer(tuple(there), tuple(damaged))
    where = f"looked for: {', '.join(looked_for)}"
    lack = Lack(f"no {', '.join(absent)}", f"{_way_out(need, data_dir)} ({where})")
    return Answer(tuple(there), (lack, *damaged))


def _way_out(need: Need, data_dir: Path | None) -> str:
    get = f"to get it: {needs.advice(need, data_dir)}"
    if data_dir is None:
        return get
    layout = f"{need.name}/{need.layout}" if need.layout else need.name
    return f"put it into {data_dir / layout}; {get}"


@cache  # many parts ask, and counting takes a while
def _of_set(name: str, data_dir: Path | None) -> Answer:
    """Every split of a set that has a loader of its own."""
    known = [n for of in needs.NEEDS.values() for n in of.needs if n.name == name]
    return _set(known[0], sources.TFDS[name].splits, data_dir)


@cache
def _of_benchmark(name: str, data_dir: Path | None) -> Answer:
    """Every set of a benchmark, or what they are drawn of."""
    (of,) = (b for b in needs.NEEDS.values() if b.runs == name)
    answer = _together([_set(need, need.counts, data_dir) for need in of.needs])
    if answer.missing and of.instead is not None:
        whole = _set(of.instead, of.instead.counts, data_dir)
        return whole if not whole.missing else answer
    return answer


def _outliers(data_dir: Path | None) -> Answer:
    """An auxiliary set for grey images: `benchmarks.OUTLIERS`."""
    root = sources.fetched_dir() if data_dir is None else data_dir
    path = root / "cns_glyphs" / glyphs.FILE
    if path.is_file():
        return Answer((str(path),))
    kmnist = needs.FMNIST._replace(name="kmnist", tfds="kmnist")
    found = _set(kmnist, ("train",), data_dir)
    if not found.missing:
        return found
    alone = ", without --data-dir" if data_dir else ""
    mend = f"`{FETCH}` gets {' or '.join(OUTLIERS)}{alone}"
    return Answer((), (Lack("no auxiliary set for Outlier Exposure", mend),))


# ---- the machine --------------------------------------------------------------------


def _accelerator(data_dir: Path | None) -> Answer:
    del data_dir
    platform = _platform()
    if platform != "cpu":
        return Answer((platform,))
    return Answer((), (Lack("no GPU or TPU", "JAX sees none; a CPU takes weeks"),))


@cache
def _platform() -> str:
    """Asked in another process: JAX takes most of a GPU's memory when it sees one."""
    code = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "cpu"


def _neural_tangents(data_dir: Path | None) -> Answer:
    del data_dir
    try:
        cli.need_neural_tangents()
    except InputError as error:
        return Answer((), (Lack("no neural-tangents", str(error)),))
    return Answer(("neural_tangents",))


SETS = ("fashion_mnist", "mnist", "cifar10", "svhn_cropped")
LARGE = ("dogs", "imagenet", "celeba", "ms1m", "genomics", "genomes")
# By the names that `Part.needs` takes.
CHECKS: dict[str, Callable[[Path | None], Answer]] = {
    **{name: partial(_of_set, name) for name in SETS},
    **{name: partial(_of_benchmark, name) for name in LARGE},
    "outliers": _outliers,
    "accelerator": _accelerator,
    "neural_tangents": _neural_tangents,
}
