"""The paper's Table 2, beside what was measured here: one Markdown document.

  python -m experiments.published --results results/table2 --out table2.md

Takes every result of `table2` below --results that is of protocol `paper`, over its
seeds. Benchmarks without one are there with what was published, and say "not run here".
"""

import dataclasses
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from experiments.comparison.report import mean_and_deviation
from experiments.harness import cli, files
from experiments.harness.sheets import Sheet, show, to_markdown
from fssd_jax.checks import InputError
from fssd_jax.data import published
from fssd_jax.data.published import METRICS

NOT_RUN = "not run here"
CONTROLS = tuple(
    f"control: {name}"
    for name in ("untrained", "pixel stats", "raw pixels", "composition")
)
Result = dict[str, Any]  # what a metrics.json holds


class Title(NamedTuple):
    words: str
    pair: str  # of our benchmark, as results name it


TITLES = {
    "A": Title("FMNIST against MNIST, LeNet", "fmnist"),
    "B": Title("CIFAR10 against SVHN, ResNet-34", "cifar10"),
    "C": Title("ImageNet, dogs against non-dogs, ResNet-34", "dogs"),
    "D": Title("ImageNet against ImageNet-C, ResNet-34", "imagenet"),
    "E": Title("CelebA, not blurry against blurry, ResNeXt-50", "celeba"),
    "F": Title("MS-1M against IJB-C, ResNeXt-50", "ms1m"),
    "G": Title("bacteria before 2011 against after 2016, BiLSTM", "genomics"),
}
# Real, and run here, but not the paper's.
OURS = {
    "genomes": "Five species of bacteria against three others, BiLSTM of 64 units",
    "cifar6": "Six classes of CIFAR-10 against the other four",
    "fmnist6": "Six classes of FashionMNIST against the other four, LeNet",
}
PREFACE = """# Table 2 of the paper, and what was measured here

AUROC / AUPRC / FPR80 in %, in-distribution positive. Here: protocol `paper`, mean ±
standard deviation over the seeds, of one seed its 95 % interval. Written by `python -m
experiments.published` from the results of `table2`; no number was typed in. Networks
may be narrower, or trained for less, than the paper's; what they are stands below each
table.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    results: Path = Path("results/table2")
    """Where results of `table2` lie, at any depth."""
    out: Path = Path("results/table2.md")
    """The document to write."""


def run(config: Config) -> str:
    found = read(config.results)
    made = [
        to_sheet(
            f"{letter}: {title.words}",
            published.of(letter) if letter in published.TABLE2 else {},
            found.get(title.pair, []),
        )
        for letter, title in TITLES.items()
    ]
    made += [
        to_sheet(f"Not the paper's: {words}", {}, found[pair])
        for pair, words in OURS.items()
        if pair in found
    ]
    text = PREFACE + "".join(
        "\n" + to_markdown(sheet).replace("### ", "## ", 1) for sheet in made
    )
    files.writable(config.out.parent)
    config.out.write_text(text)
    show(made)
    print(f"written: {config.out}")
    return text


def read(folder: Path) -> dict[str, list[Result]]:
    """Results of protocol `paper` by their pair, in the order of their seeds.

    Raises:
      InputError: there is no such folder, or one seed has two results.
    """
    if not folder.is_dir():
        raise InputError(f"--results: there is no folder {folder}")
    found: dict[str, dict[int, tuple[Path, Result]]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.json")):
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or "methods" not in result:
            continue
        if result.get("protocol") != "paper" or "benchmark" not in result:
            continue
        of, seed = found[result["benchmark"]], result["seed"]
        if seed in of:
            raise InputError(
                f"{path} and {of[seed][0]} are both of {result['benchmark']}, seed "
                f"{seed}; take a folder that holds one of them"
            )
        of[seed] = path, result
    return {
        pair: [of[seed][1] for seed in sorted(of)] for pair, of in sorted(found.items())
    }


def to_sheet(title: str, of: dict[str, Any], results: list[Result]) -> Sheet:
    rows = []
    for name in published.METHODS:
        said = [_fractions(rows_.get(name), where) for where, rows_ in of.items()]
        ours = _named(name, results)
        for own in ours or [name]:
            rows.append([own, *said, *_measured(own, results)])
    for name in CONTROLS:
        if _named(name, results):
            rows.append([name, *["" for _ in of], *_measured(name, results)])
    if not of and not results:
        told = "Published as box plots (Figure 4), without numbers."
        return Sheet(title, ["", "here"], [["all methods", NOT_RUN]], [told])
    headings = ["", *of, "here", "fitted on"]
    return Sheet(title, headings, rows, _notes(results))


def _named(name: str, results: list[Result]) -> list[str]:
    """Our rows of a method: the chosen one, or all that there are."""
    rows = dict.fromkeys(
        row for r in results for kind in ("methods", "controls") for row in r[kind]
    )
    if name in rows:
        return [name]
    return [row for row in rows if row.startswith(f"{name},")]


def _measured(name: str, results: list[Result]) -> list[str]:
    """The cell of our numbers, and what was fitted on."""
    rows = [
        r[kind][name]
        for r in results
        for kind in ("methods", "controls")
        if name in r[kind]
    ]
    if not rows:
        key = name.replace(" ", "_")
        left_out = any(key in r.get("left_out", ()) for r in results)
        return ["NA" if left_out else NOT_RUN, ""]
    cells = [_cell(rows, metric) for metric in METRICS]
    missing = f" ({len(rows)} of {len(results)} seeds)" * (len(rows) < len(results))
    return [" / ".join(cells) + missing, rows[0]["fitted_on"]]


def _cell(rows: list[Result], metric: str) -> str:
    of: dict[str, Any] = mean_and_deviation([row[metric] for row in rows])
    if of["std"] is None:
        low, high = rows[0][f"{metric}_ci95"]
        return f"{100 * rows[0][metric]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * of['mean']:.1f} ± {100 * of['std']:.1f}"


def _fractions(of: Any, where: str) -> str:
    if of is None:  # the README tells what was revised
        return "NA" if where == "paper" else "-"
    return " / ".join(f"{100 * of[m]:.1f}" for m in METRICS)


def _notes(results: list[Result]) -> list[str]:
    if not results:
        return []
    right = ", ".join(f"{100 * r['model']['accuracy']:.1f} %" for r in results)
    seeds = ", ".join(str(r["seed"]) for r in results)
    epochs = ", ".join(str(r["model"]["epochs"]) for r in results)
    sizes, network = results[0]["counts"], results[0]["model"].get("network")
    of = f"{network}, " if network else ""
    return [
        f"Here: {of}seeds {seeds}, {epochs} epochs, accuracy {right}; "
        f"{sizes['test_ind']:,} in-distribution and {sizes['test_ood']:,} OoD inputs.",
    ]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
