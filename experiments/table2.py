"""Table 2: train a classifier, score in-distribution and OoD images, compare methods.

Examples:

  python -m experiments.table2 --benchmark digits
  python -m experiments.table2 --benchmark digits --methods fssd --seeds 0 1 2
  python -m experiments.table2 --benchmark fmnist --methods all --seeds 0 1 2

Methods, in the order of the table:

{methods}

For each seed and each OoD set this leaves a folder
OUT/table2/PAIR-PROTOCOL-SEED-DIGEST/ with metrics.json, metrics.csv, scores.npz,
config.json, timing.json, report.html and pictures, and above them aggregate.json and
the tables as Markdown, CSV and LaTeX. A folder that is already there is not computed
again. Weights are kept in OUT/weights and each method's scores in OUT/scores: a run
that was killed goes on at the method it was in, from the last checkpoint.
"""

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from experiments import common, report, scores, tables
from experiments.controls import CONTROLS
from experiments.methods import METHODS
from experiments.protocols import PROTOCOLS
from experiments.scores import Rows, rows_of
from experiments.setting import Options, Prepared, make_setting, prepare
from experiments.variants import VARIANTS
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark, outliers
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.train import accuracy


@dataclasses.dataclass(frozen=True)
class Config(Options):
    benchmark: Literal["digits", "fmnist", "fmnist6"] = "digits"
    """Which data. digits: digits 0-4 against 5-9 (near) and against photographs
    (far), embedded in scikit-learn. fmnist: FashionMNIST against MNIST (paper's A).
    fmnist6: six classes of FashionMNIST against its other four (near)."""
    methods: tuple[str, ...] = ("fssd", "msp")
    """Names from the list above, or all. The controls are always run beside them."""
    protocol: Literal["paper", "released", "clean"] = "paper"
    """paper: layer weights and input step from labelled validation images of both
    sets. released: the same as the authors' code does it. clean: nothing is fitted
    or chosen on any OoD set."""
    seeds: tuple[int, ...] = (0,)
    """A network, a split and a results folder for each."""
    rerun: bool = False
    """Compute again although the results folder is already there."""


def run(config: Config) -> list[tables.Result]:
    """From data to report; returns the metrics of every seed and pair."""
    config = checked(config)
    folder = common.writable(config.out / "table2")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    auxiliary = None
    if "outlier_exposure" in config.methods:  # before hours of training, not after
        auxiliary = outliers(config.outliers, config.data_dir)
    deciding = results_identity(config, benchmark, auxiliary)
    digest = common.config_digest(deciding)
    paths = {
        (pair, seed): folder / f"{pair}-{config.protocol}-{seed}-{digest}"
        for seed in config.seeds
        for pair in benchmark.ood
    }
    results: dict[str, list[tables.Result]] = {pair: [] for pair in benchmark.ood}
    for seed in config.seeds:
        prepared = None  # trained only if a pair of this seed is still to do
        for pair in benchmark.ood:
            path = paths[pair, seed]
            if path.exists() and not config.rerun:
                print(f"already there (--rerun computes it again): {path}")
            else:
                prepared = prepared or prepare(benchmark, seed, config)
                run_pair(config, benchmark, prepared, pair, auxiliary, path, deciding)
            results[pair].append(report.read(path))
    common.write_json(folder / "aggregate.json", report.aggregate(folder))
    # In a file or a pipe there is no width to fit the tables to.
    console = Console(width=None if sys.stdout.isatty() else 140)
    all_sheets = [
        sheet
        for pair, of_pair in results.items()
        for sheet in tables.sheets(
            of_pair, [report.seconds(paths[pair, seed]) for seed in config.seeds]
        )
    ]
    for sheet in all_sheets:
        tables.print_sheet(console, sheet)
    run_digest = common.config_digest([deciding, config.seeds])
    table = folder / f"{config.benchmark}-{config.protocol}-{run_digest}"
    for ending, as_text in tables.FORMATS.items():
        text = "\n".join(as_text(sheet) for sheet in all_sheets)
        table.with_suffix(f".{ending}").write_text(text)
    for path in paths.values():
        print(f"results: {path / 'report.html'}")
    print(f"all of them: {table}.md, .csv and .tex")
    return [result for of_pair in results.values() for result in of_pair]


def run_pair(
    config: Config,
    benchmark: Benchmark,
    prepared: Prepared,
    pair: str,
    auxiliary: ArrayDataset | None,
    path: Path,
    deciding: dict[str, Any],
) -> None:
    """Score one in-distribution set against one OoD set and write the folder."""
    protocol = PROTOCOLS[config.protocol]
    setting = make_setting(benchmark, prepared, pair, protocol, config, auxiliary)
    clock = common.Stopwatch()
    parts = common.writable(scores_path(config, benchmark, pair, prepared.seed))
    groups: dict[str, Rows] = {}
    chosen = {
        group: {name: known[name] for name in known if name in config.methods}
        for group, known in (("methods", METHODS), ("variants", VARIANTS))
    }
    for group, members in (chosen | {"controls": CONTROLS}).items():
        groups[group] = {}
        for name, method in members.items():
            print(f"{path.name}: {name}", flush=True)
            also = auxiliary.sha256 if auxiliary and name == "outlier_exposure" else ""
            part = parts / f"{common.config_digest(name + also)}.npz"
            if config.rerun or not part.exists():
                with clock(name):
                    scores.save(part, rows_of(name, method, setting))
            groups[group] |= scores.load(part)
    facts = {
        "benchmark": pair,
        "protocol": config.protocol,
        "switches": setting.protocol._asdict(),
        "seed": prepared.seed,
        "sources": sources(
            *(benchmark.train, benchmark.test, benchmark.ood[pair]),
            *([auxiliary] if auxiliary else []),
        ),
        "model": {
            "name": repr(prepared.model),
            "accuracy": accuracy(
                setting.logit_fn, setting.variables, benchmark.test.x, benchmark.test.y
            ),
            "epochs": prepared.schedule.of_seed(prepared.seed),
            "short_epochs": prepared.schedule.short_epochs,
            "parameters": sum(a.size for a in jax.tree.leaves(setting.variables)),
        },
        "counts": {
            "train": len(prepared.schedule.train.x),
            "noise": len(setting.noise),
            "val_ind": len(setting.val_ind),
            "val_ood": len(setting.val_ood),
            "test_ind": len(setting.test_ind),
            "test_ood": len(setting.test_ood),
        },
        # The published networks saw the whole training set.
        "paper": None if config.train_size else benchmark.paper,
        "versions": common.versions(),
        "device": common.device(),
    }
    with common.results_folder(path) as folder:
        common.write_json(folder / "config.json", deciding)
        report.write(folder, facts, setting, groups)
        rates = {
            name: row.seconds for rows in groups.values() for name, row in rows.items()
        }
        timing = {
            "seconds": {**prepared.seconds, **clock.seconds},
            "scoring_seconds_per_1000_images": rates,
            "cores": common.available_cores(),
        }
        common.write_json(folder / "timing.json", timing)


def sources(*sets: ArrayDataset) -> dict[str, dict[str, str]]:
    """Where each set came from, and its digest."""
    return {
        f"{d.name}/{d.split}": {
            "path" if Path(d.source).is_absolute() else "version": d.source,
            "sha256": d.sha256,
        }
        for d in sets
    }


def checked(config: Config) -> Config:
    """Raise `InputError` for what could not work; drop repeated seeds and methods."""
    if not config.seeds or not config.methods:
        raise InputError("at least one seed and one method are needed")
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise InputError(f"--seeds: expected 0 to 2³² − 1, got {config.seeds}")
    if config.epochs is not None and config.epochs < 1:
        raise InputError(f"--epochs: expected 1 or more, got {config.epochs}")
    for option in ("short_epochs", "train_size"):
        value = getattr(config, option)
        if value is not None and value < 1:
            flag = option.replace("_", "-")
            raise InputError(f"--{flag}: expected 1 or more, got {value}")
    known = (*METHODS, *VARIANTS)
    wrong = [name for name in config.methods if name not in ("all", *known)]
    if wrong:
        raise InputError(
            f"--methods: unknown {', '.join(wrong)}; choose from "
            + ", ".join(("all", *known))
        )
    wanted = known if "all" in config.methods else config.methods
    return dataclasses.replace(
        config,
        seeds=tuple(dict.fromkeys(config.seeds)),
        methods=tuple(name for name in known if name in wanted),
    )


def scores_identity(config: Config, benchmark: Benchmark) -> dict[str, Any]:
    """All that decides the scores of any one method but Outlier Exposure."""
    sets = (benchmark.train, benchmark.test, *benchmark.ood.values())
    return {
        "benchmark": config.benchmark,
        "protocol": config.protocol,
        "switches": PROTOCOLS[config.protocol]._asdict(),
        "epochs": config.epochs or benchmark.epochs,
        "short_epochs": config.short_epochs,
        "full_seeds": config.full_seeds,
        "train_size": config.train_size,
        "validation": benchmark.validation,
        "tiny": config.tiny,
        "data": [d.sha256 for d in sets],
        "code": common.code_digest(),
        "versions": common.versions(),
        "device": common.device(),
        "cores": common.available_cores(),
    }


def results_identity(
    config: Config, benchmark: Benchmark, auxiliary: ArrayDataset | None
) -> dict[str, Any]:
    """All that decides what a results folder holds."""
    return {
        **scores_identity(config, benchmark),
        "methods": config.methods,
        "controls": tuple(CONTROLS),
        "outliers": auxiliary and (auxiliary.name, auxiliary.sha256),
        "report": common.code_digest(common.REPORTING),
    }


def scores_path(config: Config, benchmark: Benchmark, pair: str, seed: int) -> Path:
    """Where each method's scores are kept, whatever the other methods of the run."""
    digest = common.config_digest(scores_identity(config, benchmark))
    return config.out / "scores" / f"{pair}-{config.protocol}-{seed}-{digest}"


def main(args: list[str] | None = None) -> int:
    names = textwrap.fill(
        ", ".join((*METHODS, *VARIANTS)),
        initial_indent="  ",
        subsequent_indent="  ",
    )
    return common.run_main(Config, run, (__doc__ or "").format(methods=names), args)


if __name__ == "__main__":
    sys.exit(main())
