"""Does FSSD's margin grow with the training set, as the paper says?

  python -m experiments.train_size --benchmark fmnist --methods all

Runs table2 for each size and draws the AUROC of each method against it. Leaves
OUT/train_size/BENCHMARK-DIGEST/ with metrics.json, the table and a picture; all else as
table2 does, whose results are used again.
"""

import dataclasses
import sys
from typing import Any

import numpy as np
from rich.console import Console

from analysis import plots
from experiments import common, report, table2, tables
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark


@dataclasses.dataclass(frozen=True)
class Config(table2.Config):
    sizes: tuple[int, ...] = (1000, 10_000, 60_000)
    """Training images; one that is not below the whole set means the whole set."""


def run(config: Config) -> dict[str, Any]:
    folder = common.writable(config.out / "train_size")
    if config.train_size is not None or not config.sizes:
        raise InputError("give --sizes, one or more, in place of --train-size")
    whole = len(load_benchmark(config.benchmark, config.data_dir).train.x)
    sizes = sorted({min(size, whole) for size in config.sizes})
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    del fields["sizes"]
    found: dict[int, list[tables.Result]] = {}
    for size in sizes:
        fields["train_size"] = None if size == whole else size
        found[size] = table2.run(table2.Config(**fields))
    curves = to_curves(found)
    facts = {
        "benchmark": config.benchmark,
        "protocol": config.protocol,
        "seeds": config.seeds,
        "epochs": found[sizes[0]][0]["model"]["epochs"],
        "short_epochs": found[sizes[0]][0]["model"]["short_epochs"],
        "accuracy": {
            n: np.mean([r["model"]["accuracy"] for r in results])
            for n, results in found.items()
        },
        "auroc": curves,
        "versions": common.versions(),
        "device": common.device(),
    }
    deciding = {k: v for k, v in fields.items() if k not in ("out", "rerun")}
    own = ("experiments/train_size.py", *common.SCORING, *common.REPORTING)
    digest = common.config_digest([deciding, sizes, common.code_digest(own)])
    sheets = [to_sheet(pair, of, facts) for pair, of in curves.items()]
    with common.results_folder(folder / f"{config.benchmark}-{digest}") as target:
        common.write_json(target / "metrics.json", facts)
        for ending, as_text in tables.FORMATS.items():
            text = "\n".join(as_text(sheet) for sheet in sheets)
            (target / f"table.{ending}").write_text(text)
        for pair, of in curves.items():
            shown = {name: of[name] for name in of if report.in_roc(name)}
            figure = plots.train_size(shown, f"{pair}, protocol {config.protocol}")
            plots.save(figure, target / pair)
    for sheet in sheets:
        tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {folder / f'{config.benchmark}-{digest}'}")
    return facts


def to_curves(found: dict[int, list[tables.Result]]):
    """pair → row → training images → AUROC of each seed."""
    curves: dict[str, dict[str, dict[int, list[float]]]] = {}
    for size, results in found.items():
        for result in results:
            pair = curves.setdefault(result["benchmark"], {})
            for kind in ("methods", "controls"):
                for name, row in result[kind].items():
                    of_size = pair.setdefault(name, {}).setdefault(size, [])
                    of_size.append(row["auroc"])
    return curves


def to_sheet(pair: str, curves, facts: dict[str, Any]) -> tables.Sheet:
    sizes = list(facts["accuracy"])
    rows = [
        [name, *(f"{100 * np.mean(of[n]):.1f}" if n in of else "" for n in sizes)]
        for name, of in curves.items()
    ]
    accuracy = ", ".join(f"{100 * a:.1f} %" for a in facts["accuracy"].values())
    return tables.Sheet(
        f"{pair}, protocol {facts['protocol']}: AUROC by number of training images",
        ["method", *(f"{n:,}" for n in sizes)],
        rows,
        [
            f"In %; seeds {', '.join(map(str, facts['seeds']))}; accuracy {accuracy}. "
            f"The network has {facts['epochs']} epochs at every size, so that fewer "
            f"images mean fewer steps; those that a method adds have "
            f"{facts['short_epochs']}."
        ],
    )


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
