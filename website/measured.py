"""AUROCs of the results that are kept, by method.

Of docs/results/*/table2-*.json; and of rows that these have not on a benchmark, such as
of methods that came later, of default-*.json beside them: the same network by the same
recipe, trained anew.
"""

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
# In the order of the tables, with what each is.
BENCHMARKS = {
    "fmnist6": "six classes of FashionMNIST against its other four, LeNet",
    "digits_near": "digits 0–4 against 5–9, LeNet",
    "cifar6": "six classes of CIFAR-10 against its other four, ResNet-20 of width 8",
    "genomes": "DNA reads of five species of bacteria against three others, BiLSTM",
    "fmnist": "FashionMNIST against MNIST, LeNet",
    "digits_far": "digits 0–4 against photographs, LeNet",
    "cifar6_photos": "the six classes of CIFAR-10 against photographs",
    "cifar6_fashion_mnist": "the same against FashionMNIST in colour",
    "cifar6_mnist": "the same against MNIST in colour",
    "cifar10_photos": "all of CIFAR-10 against photographs, ResNet-20 of width 8",
    "cifar10_fashion_mnist": "the same against FashionMNIST in colour",
    "cifar10_mnist": "the same against MNIST in colour",
}


class Cell(NamedTuple):
    """AUROCs of one row on one benchmark, a seed each, as fractions."""

    aurocs: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.aurocs)

    def __str__(self) -> str:
        """In %, mean and standard deviation over seeds, as in docs/results.md."""
        if len(self.aurocs) == 1:
            return f"{100 * self.mean:.1f} (1 seed)"
        told = f"{100 * self.mean:.1f} ± {100 * stdev(self.aurocs):.1f}"
        return told if len(self.aurocs) > 2 else f"{told} (2 seeds)"


class Row(NamedTuple):
    """A row of the tables, such as "fssd clean"."""

    name: str
    level: str  # of `LEVELS`
    fitted_on: str
    cells: dict[str, Cell]  # by benchmark


# Rows that have another name now than in some results.
RENAMED = {
    "fssd default": "fssd clean, turned layers left out",
    "fssd default, photographs": "fssd clean, turned layers left out, photographs",
}
ONCE = "fmnist/default.md"  # of rows that were not timed on one core
# By what data a row was fitted on, least first.
LEVELS = ("network", "noise", "validation", "training", "further training", "OoD")


def level(facts: dict) -> str:
    """Of one row of metrics.json."""
    fitted_on = facts["fitted_on"]
    if "target OoD" in fitted_on:
        return "OoD"
    if facts["training"] != "none":
        return "further training"
    if "training set" in fitted_on:
        return "training"
    if fitted_on.endswith(" in"):
        return "validation"
    return "noise" if facts["data"] == "F*" else "network"


def in_words(fitted_on: str) -> str:
    """Without counts, which differ from benchmark to benchmark."""
    told = re.sub(r"\d+ in\b", "validation images", fitted_on)
    return re.sub(r"\d+ target OoD", "labelled OoD images", told)


def rows(kind: str = "methods") -> list[Row]:
    """All rows, in the order of the tables; kind: "methods" or "controls"."""
    found: dict[str, Row] = {}
    for stem in ("table2", "default"):
        before = {(name, b) for name, row in found.items() for b in row.cells}
        for path in sorted(RESULTS.glob(f"*/{stem}-*.json")):
            metrics = json.loads(path.read_text(encoding="utf-8"))
            benchmark = metrics.get("benchmark")
            for key, facts in metrics.get(kind, {}).items():  # timings have neither
                name = str(RENAMED.get(key, key))
                if (name, benchmark) in before:
                    continue
                told = in_words(facts["fitted_on"])
                row = found.setdefault(name, Row(name, level(facts), told, {}))
                cell = row.cells.get(benchmark, Cell(()))
                row.cells[benchmark] = Cell((*cell.aurocs, facts["auroc"]))
    return sorted(found.values(), key=lambda row: LEVELS.index(row.level))


def ends(found: Iterable[Row]) -> tuple[tuple[Row, str], tuple[Row, str]] | None:
    """(row, benchmark) of the lowest and of the highest mean, or None."""
    cells = [(row, name) for row in found for name in row.cells]
    if not cells:
        return None
    key = lambda cell: cell[0].cells[cell[1]].mean  # noqa: E731
    return min(cells, key=key), max(cells, key=key)


def detectors() -> list[str]:
    """The modules of `fssd_jax.detectors`, FSSD first; nothing is imported."""
    files = (ROOT / "fssd_jax" / "detectors").glob("[!_]*.py")
    return sorted(
        (path.stem for path in files), key=lambda name: (name != "fssd", name)
    )


def detector_of(row: str, names: Iterable[str]) -> str | None:
    """The detector that a row is of: the longest whose name it holds as words."""
    words = " " + re.sub(r"[^\w*]+", " ", row) + " "
    held = [name for name in names if f" {name.replace('_', ' ')} " in words]
    return max(held, key=len, default=None)


def of_detectors() -> dict[str, list[Row]]:
    """Detector → its rows, which may be none."""
    names = detectors()
    found: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows():
        name = detector_of(row.name, names)
        if name:
            found[name].append(row)
    return found


def seconds() -> dict[str, list[float]]:
    """Row → seconds for 1,000 images on one core, a seed each, of `fmnist`."""
    found: dict[str, list[float]] = {}
    for path in sorted((RESULTS / "fmnist").glob("table2-timing-*.json")):
        timing = json.loads(path.read_text(encoding="utf-8"))
        assert timing["cores"] == 1
        for name, value in timing["scoring_seconds_per_1000_images"].items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


def seconds_once() -> dict[str, list[float]]:
    """Row → seconds for 1,000 images: the last column of what `ONCE` says of costs."""
    text = (RESULTS / ONCE).read_text(encoding="utf-8")
    lines = text.partition("what each method costs\n")[2].partition("\n\nSeconds")[0]
    cells = [line.strip("| ").split(" | ") for line in lines.strip().splitlines()[2:]]
    return {row[0]: [float(row[-1])] for row in cells}


def needs() -> dict[str, list[str]]:
    """Method → fitted on, beside, passes: the table of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text.partition("### What each method needs")[2].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {
        name.strip("` "): cells for of, *cells in table[1:] for name in of.split(", ")
    }


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
