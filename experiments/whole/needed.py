"""What a part needs of this machine, whether it is here, and what gets it.

Nothing is downloaded, and no accelerator's memory is taken.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from experiments.harness import cli
from fssd_jax.checks import InputError
from fssd_jax.data import glyphs, inventory, needs, sources
from fssd_jax.data.benchmarks import OUTLIERS
from fssd_jax.data.needs import Need
from fssd_jax.extras import FETCH


class Answer(NamedTuple):
    found: tuple[str, ...] = ()  # where, and how much: data that moves is other data
    missing: str = ""  # what is not here, and what mends that; empty: all is here


def check(names: tuple[str, ...], data_dir: Path | None) -> Answer:
    """Of all these `CHECKS`."""
    answers = [CHECKS[name](data_dir) for name in names]
    return Answer(
        tuple(where for answer in answers for where in answer.found),
        "; ".join(filter(None, (answer.missing for answer in answers))),
    )


def is_data(name: str) -> bool:
    return name not in ("accelerator", "neural_tangents")


# ---- data ---------------------------------------------------------------------------


def _split(need: Need, split: str, data_dir: Path | None) -> tuple[str, str]:
    """(where and how much, ""), or ("", why it cannot be taken)."""
    title = f"{need.name}/{split}" if split else need.name
    found, looked = inventory.find(need, split, data_dir)
    if found is None:
        places = ", ".join(line for line in looked if "not given" not in line)
        return "", f"{title} is not there (looked for: {places})"
    unusable = [w for w in found.wrong if w.startswith(("cannot be used", "damaged"))]
    if unusable or found.count == 0:
        return "", f"{title} in {found.where}: {'; '.join(unusable) or 'it is empty'}"
    return f"{title}: {found.count} in {found.where}", ""


def _sets(wanted: list[tuple[Need, str]], data_dir: Path | None) -> Answer:
    """Of splits of sets."""
    found = [(need, *_split(need, split, data_dir)) for need, split in wanted]
    lacking = [(need, why) for need, _, why in found if why]
    told = [f"{why}: {_way_out(need, data_dir)}" for need, why in lacking[:1]]
    told += [why for _, why in lacking[1:]]
    return Answer(tuple(where for _, where, _ in found if where), "; ".join(told))


def _way_out(need: Need, data_dir: Path | None) -> str:
    if data_dir is None:
        return f"get it by {need.get}"
    layout = f"{need.name}/{need.layout}" if need.layout else need.name
    return (
        f"put it into {data_dir / layout}, or, without --data-dir, get it by {need.get}"
    )


@cache  # many parts ask, and counting takes a while
def _of_set(name: str, data_dir: Path | None) -> Answer:
    """Every split of a set that has a loader of its own."""
    known = [n for of in needs.NEEDS.values() for n in of.needs if n.name == name]
    splits = sources.TFDS[name].splits
    return _sets([(known[0], split) for split in splits], data_dir)


@cache
def _of_benchmark(name: str, data_dir: Path | None) -> Answer:
    """Every set of a benchmark, or what they are drawn of."""
    (of,) = (b for b in needs.NEEDS.values() if b.runs == name)
    every = [(need, split) for need in of.needs for split in need.counts]
    answer = _sets(every, data_dir)
    if answer.missing and of.instead is not None:
        whole = _sets([(of.instead, split) for split in of.instead.counts], data_dir)
        return whole if not whole.missing else answer
    return answer


def _outliers(data_dir: Path | None) -> Answer:
    """An auxiliary set for grey images: `benchmarks.OUTLIERS`."""
    root = sources.fetched_dir() if data_dir is None else data_dir
    path = root / "cns_glyphs" / glyphs.FILE
    if path.is_file():
        return Answer((str(path),))
    kmnist = needs.FMNIST._replace(name="kmnist", tfds="kmnist")
    found = _sets([(kmnist, "train")], data_dir)
    if not found.missing:
        return found
    told = f"no auxiliary set ({' or '.join(OUTLIERS)}) is there: `{FETCH}` gets one"
    return Answer((), told + (", without --data-dir" if data_dir else ""))


# ---- the machine --------------------------------------------------------------------


def _accelerator(data_dir: Path | None) -> Answer:
    del data_dir
    platform = _platform()
    if platform != "cpu":
        return Answer((platform,))
    return Answer((), "JAX sees no GPU or TPU, and on a CPU it would take weeks")


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
        return Answer((), str(error))
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
