"""Table 2: train a classifier, score in-distribution and OoD images, compare methods.

Examples:

  fssd table2 --benchmark digits
  fssd table2 --benchmark digits --methods fssd --seeds 0 1 2
  fssd table2 --benchmark fmnist --methods all --seeds 0 1 2

Methods, in the order of the table:

{methods}

For each seed and each OoD set this leaves a folder
OUT/table2/PAIR-PROTOCOL-SEED-DIGEST/ with metrics.json, metrics.csv, scores.npz,
config.json, timing.json, report.html and pictures, and above them aggregate.json and
the tables as Markdown, CSV and LaTeX. A folder that is already there is not computed
again. Weights are kept in OUT/weights and scores in OUT/scores. A run that was killed
goes on at the last checkpoint; methods that need only a forward pass are scored by one
look at the images, which begins anew, the others at the method it was in.

A method that fails does not stop the others: tables, metrics.json and report.html say
that it failed, and why; the command ends with exit status 1 after all else is written,
and tries it again when it is run again.
"""

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax

from experiments.comparison import (
    answers,
    pictures,
    protocols,
    records,
    report,
    tables,
)
from experiments.comparison.methods import METHODS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.report import Result
from experiments.comparison.setting import (
    Options,
    Prepared,
    Setting,
    check,
    make_setting,
    prepare,
)
from experiments.comparison.variants import VARIANTS
from experiments.harness import cli, files, provenance, results, sheets
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark, outliers
from fssd_jax.data.sources import ArrayDataset

C = TypeVar("C", bound="Config")


@dataclasses.dataclass(frozen=True)
class Config(Options):
    benchmark: Literal["digits", "fmnist", "fmnist6", "genomes"] = "digits"
    """Which data. digits: digits 0-4 against 5-9 (near) and against photographs
    (far), embedded in scikit-learn. fmnist: FashionMNIST against MNIST (paper's A).
    fmnist6: six classes of FashionMNIST against its other four (near). genomes: reads
    of five species of bacteria against three others (after paper's G; get them by fssd
    fetch genomes); token ids, so without input step."""
    methods: tuple[str, ...] = ("fssd", "msp")
    """Names from the list above, or all. The controls are always run beside them."""
    protocol: Literal["paper", "released", "clean"] = "paper"
    """paper: layer weights and input step from labelled validation images of both
    sets. released: the same as the authors' code does it. clean: nothing is fitted
    or chosen on any OoD set; a layer where noise lies farther from F* than the data do
    is turned round. Beside it stand the library's default, which leaves such a layer
    out, and both against photographs."""
    seeds: tuple[int, ...] = (0,)
    """A network, a split and a results folder for each."""
    outliers: Literal["auto", "kmnist", "cns_glyphs"] = "auto"
    """The auxiliary set of Outlier Exposure; auto: the first that can be had."""
    rerun: bool = False
    """Compute again although the results folder is already there."""


def run(config: Config) -> list[Result]:
    """From data to report; returns the metrics of every seed and pair."""
    config = checked(config)
    folder = files.writable(config.out / "table2")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    if benchmark.symbols:
        protocols.of_ids(PROTOCOLS[config.protocol])  # before hours of training
    # Before hours of training too; no images stand beside token ids.
    auxiliary = None if benchmark.symbols else auxiliary_set(config)
    places = {
        (pair, seed): place(config, benchmark, pair, seed, auxiliary)
        for seed in config.seeds
        for pair in benchmark.ood
    }
    found: dict[str, list[Result]] = {pair: [] for pair in benchmark.ood}
    for seed in config.seeds:
        prepared = None  # trained only if a pair of this seed is still to do
        for pair in benchmark.ood:
            there = places[pair, seed]
            exists = there.path.exists() and not config.rerun
            failed = exists and report.read(there.path).get("failed")
            if exists and not failed:
                print(
                    "already there (--rerun computes it again; without the folder it "
                    f"is written again from kept scores): {there.path}"
                )
            else:
                if failed:
                    print(f"tried again: {', '.join(failed)}")
                prepared = prepared or prepare(benchmark, seed, config)
                run_pair(config, prepared, pair, auxiliary, there)
            found[pair].append(report.read(there.path))
    files.write_json(folder / "aggregate.json", report.aggregate(folder))
    all_sheets = [
        sheet
        for pair, of_pair in found.items()
        for sheet in tables.sheets(
            of_pair,
            [report.read_seconds(places[pair, seed].path) for seed in config.seeds],
        )
    ]
    sheets.show(all_sheets)
    digest = provenance.config_digest([str(p.path.name) for p in places.values()])
    stem = folder / f"{config.benchmark}-{config.protocol}-{digest}"
    results.write_tables(stem, all_sheets)
    print(f"all of them: {stem}.md, .csv and .tex")
    return [result for of_pair in found.values() for result in of_pair]


def auxiliary_set(config: Config) -> ArrayDataset | None:
    """Of Outlier Exposure, if it is asked for."""
    if "outlier_exposure" not in config.methods:
        return None
    return outliers(config.outliers, config.data_dir)


def run_pair(
    config: Config,
    prepared: Prepared,
    pair: str,
    auxiliary: ArrayDataset | None,
    there: results.Identity,
) -> None:
    """Score one in-distribution set against one OoD set and leave the folder."""
    protocol = PROTOCOLS[config.protocol]
    s = make_setting(prepared, pair, protocol, auxiliary, tiny=config.tiny)
    clock = files.Stopwatch()
    kept = files.writable(scores_path(config, prepared, pair))
    title = f"{pair}-{config.protocol}-{prepared.seed}"
    found, result = report.measure(
        *(s, config.methods, kept, title), again=config.rerun, clock=clock
    )
    facts = {**of_network(config, prepared), "benchmark": pair, "counts": counts(s)}
    facts |= {"symbols": s.symbols} if s.symbols else {}
    facts |= {"protocol": config.protocol, "switches": s.protocol._asdict()}
    result = {**facts, **result}
    results.leave(
        there,
        result,
        records.of_table2(result),
        tables.sheets([result]),
        pictures.figures(found, pair, s.protocol.epsilon_choice),
        report.score_arrays(found),
        csv=tables.every_metric(result),
        timing={
            "seconds": {**prepared.seconds, **clock.seconds},
            "scoring_seconds_per_1000_images": report.seconds(found),
        },
        show=False,  # of all seeds together, at the end
    )


def of_network(config: Config, prepared: Prepared) -> dict[str, Any]:
    training = prepared.training
    return {
        "seed": prepared.seed,
        "model": {
            "name": repr(prepared.model),
            "accuracy": prepared.accuracy,
            "epochs": training.epochs_of(prepared.seed),
            "short_epochs": training.short_epochs,
            "parameters": sum(
                a.size for a in jax.tree.leaves(prepared.network.variables)
            ),
        },
        # The published networks saw the whole training set.
        "paper": None if config.train_size else training.benchmark.paper,
    }


def counts(s: Setting) -> dict[str, int]:
    sets = {
        "train": s.train.x if s.train else (),
        "noise": s.noise,
        "val_ind": s.val_ind,
        "val_ood": () if s.val_ood is None else s.val_ood,
        "test_ind": s.test_ind,
        "test_ood": s.test_ood,
    }
    return {name: len(images) for name, images in sets.items()}


# ---- what decides -------------------------------------------------------------------


def place(
    config: Config,
    benchmark: Benchmark,
    pair: str,
    seed: int,
    auxiliary: ArrayDataset | None,
) -> results.Identity:
    """The folder of one seed and pair."""
    options = {**options_of(config, benchmark), "methods": config.methods}
    return results.place(
        config.out,
        "table2",
        f"{pair}-{config.protocol}-{seed}",
        options,
        [
            *(benchmark.train, benchmark.test, benchmark.ood[pair]),
            *([auxiliary] if auxiliary else []),
        ],
        measured_by=report,
    )


def options_of(config: Config, benchmark: Benchmark) -> dict[str, Any]:
    """What decides the scores of any one method."""
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
    }


def scores_path(config: Config, prepared: Prepared, pair: str) -> Path:
    """Where each method's scores are kept, whatever the other methods of the run."""
    benchmark = prepared.training.benchmark
    there = results.place(
        config.out,
        "scores",
        f"{pair}-{config.protocol}-{prepared.seed}",
        options_of(config, benchmark),
        [benchmark.train, benchmark.test, benchmark.ood[pair]],
        measured_by=answers,
    )
    return there.path


def checked(config: C) -> C:
    """Raise `InputError` for what could not work; drop repeated seeds and methods."""
    if not config.seeds or not config.methods:
        raise InputError("at least one seed and one method are needed")
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise InputError(f"--seeds: expected 0 to 2³² − 1, got {config.seeds}")
    check(config)
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


def main(args: list[str] | None = None) -> int:
    names = textwrap.fill(
        ", ".join((*METHODS, *VARIANTS)),
        initial_indent="  ",
        subsequent_indent="  ",
    )
    description = (__doc__ or "").format(methods=names)
    return cli.run_main(Config, run, description, args, failed=tables.failed_names)


if __name__ == "__main__":
    sys.exit(main())
