"""Does FSSD's margin grow with the training set, as the paper says?

  fssd train_size --benchmark fmnist --methods all

Runs table2 for each size and draws the AUROC of each method against it. Leaves
OUT/train_size/BENCHMARK-DIGEST/ with report.html, metrics.json, the table and a
picture; all else as table2 does, whose results are used again. A method that fails at
some size has a gap there, and the exit status is 1.
"""

import dataclasses
import sys
from typing import Any

import numpy as np

from analysis import auroc_plots
from experiments import table2
from experiments.comparison import pictures, records, report, tables
from experiments.comparison.report import Result
from experiments.harness import cli, files, results
from experiments.harness.records import Record
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark


@dataclasses.dataclass(frozen=True)
class Config(table2.Config):
    sizes: tuple[int, ...] = (1000, 10_000, 60_000)
    """Training images; one that is not below the whole set means the whole set."""


def run(config: Config) -> dict[str, Any]:
    files.writable(config.out / "train_size")
    if config.train_size is not None or not config.sizes:
        raise InputError("give --sizes, one or more, in place of --train-size")
    if config.weights is not None:
        raise InputError("--weights: leave out, networks of every size are trained")
    config = table2.checked(config)  # `all` becomes the methods' names
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    auxiliary, _ = table2.auxiliary_set(config, benchmark)
    whole = len(benchmark.train.x)
    sizes = sorted({min(size, whole) for size in config.sizes})
    options = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    del options["sizes"]
    found: dict[int, list[Result]] = {}
    for size in sizes:
        options["train_size"] = None if size == whole else size
        found[size] = table2.run(table2.Config(**options))
    curves = to_curves(found)
    facts = {
        "benchmark": config.benchmark,
        "protocol": config.protocol,
        "seeds": config.seeds,
        "epochs": found[sizes[0]][0]["model"]["epochs"],
        "short_epochs": found[sizes[0]][0]["model"]["short_epochs"],
        "accuracy": {
            n: np.mean([r["model"]["accuracy"] for r in of]) for n, of in found.items()
        },
        "auroc": curves,
        "failed": {n: tables.failed_names(of) for n, of in found.items()},
    }
    there = results.place(
        config.out,
        "train_size",
        config.benchmark,
        options | {"train_size": None, "sizes": sizes},
        [
            *(benchmark.train, benchmark.test, *benchmark.ood.values()),
            *([auxiliary] if auxiliary else []),
        ],
        measured_by=report,
    )
    figures, arrays = {}, {"sizes": np.array(sizes)}
    for pair, of in curves.items():
        shown = {name: of[name] for name in of if pictures.in_roc(name)}
        figures[pair] = auroc_plots.train_size(
            shown, f"{pair}, protocol {config.protocol}"
        )
        for name, of_sizes in of.items():
            of_name = [of_sizes.get(n, []) for n in sizes]
            longest = max(map(len, of_name))
            padded = [v + [np.nan] * (longest - len(v)) for v in of_name]
            arrays[f"{pair}/{name}"] = np.array(padded)
    sheets = [to_sheet(pair, of, facts) for pair, of in curves.items()]
    results.leave(there, facts, to_records(found), sheets, figures, arrays)
    return facts


def to_records(found: dict[int, list[Result]]) -> list[Record]:
    """AUROCs and accuracies of every size, pair and seed."""
    return [
        number._replace(train_images=size)
        for size, of_size in found.items()
        for result in of_size
        for number in records.of_table2(result)
        if number.quantity in ("AUROC", "accuracy") and number.layer is None
    ]


def to_curves(found: dict[int, list[Result]]):
    """pair → row → training images → AUROC of each seed."""
    curves: dict[str, dict[str, dict[int, list[float]]]] = {}
    for size, of_size in found.items():
        for result in of_size:
            pair = curves.setdefault(result["benchmark"], {})
            for kind in ("methods", "controls"):
                for name, row in result[kind].items():
                    aurocs = pair.setdefault(name, {}).setdefault(size, [])
                    aurocs.append(row["auroc"])
    return curves


def to_sheet(pair: str, curves, facts: dict[str, Any]) -> Sheet:
    sizes = list(facts["accuracy"])
    rows = [
        [name, *(f"{100 * np.mean(of[n]):.1f}" if n in of else "" for n in sizes)]
        for name, of in curves.items()
    ]
    accuracy = ", ".join(f"{100 * a:.1f} %" for a in facts["accuracy"].values())
    return Sheet(
        f"{pair}, protocol {facts['protocol']}: AUROC by number of training images",
        ["method", *(f"{n:,}" for n in sizes)],
        rows,
        [
            f"In %; seeds {', '.join(map(str, facts['seeds']))}; accuracy {accuracy}. "
            f"The network has {facts['epochs']} epochs at every size, so that fewer "
            f"images mean fewer steps; those that a method adds have "
            f"{facts['short_epochs']}.",
            *(f"Failed: {name}." for name in failed_names(facts)),
        ],
    )


def failed_names(facts: dict[str, Any]) -> list[str]:
    return [
        f"{name} of {n:,} images" for n, of in facts["failed"].items() for name in of
    ]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=failed_names)


if __name__ == "__main__":
    sys.exit(main())
