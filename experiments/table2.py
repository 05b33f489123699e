"""Table 2: train a classifier, score in-distribution and OoD images, compare methods.

Examples:

  fssd table2 --benchmark digits
  fssd table2 --benchmark digits --methods fssd --seeds 0 1 2
  fssd table2 --benchmark fmnist --methods all --seeds 0 1 2
  fssd table2 --benchmark digits --methods layers fssd_clean no_step ensembles
  fssd table2 --benchmark cifar6 --network cifar_resnet20
  fssd table2 --benchmark cifar10 --weights resnet34.pth
  fssd table2 --benchmark imagenet --workers 32 --worker-processes --dtype bfloat16
  fssd table2 --benchmark all

Methods, in the order of the table:

{methods}

For each seed and each OoD set this leaves a folder
OUT/table2/PAIR-PROTOCOL-SEED-DIGEST/ with metrics.json, metrics.csv, scores.npz,
config.json, timing.json, report.html, pictures and explorer.npz, the images that
report.html shows; above them aggregate.json and the tables as Markdown, CSV and LaTeX,
and where `ensembles` was asked for, a picture of layers and ensembles over the seeds.
A folder that is already there is not computed again. Weights are kept in OUT/weights
and scores in OUT/scores. A run that was killed goes on at the last checkpoint, of an
epoch or within one (--save-every-steps); methods that need only a forward pass are
scored by one look at the images, which begins anew, the others at the method it was
in. `fssd report` puts all folders into one page.

A method that fails does not stop the others: tables, metrics.json and report.html say
that it failed, and why; the command ends with exit status 1 after all else is written,
and tries it again when it is run again.
"""

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax

from analysis import plots
from experiments.comparison import (
    answers,
    explorer,
    pictures,
    protocols,
    records,
    report,
    tables,
)
from experiments.comparison.chosen import Chosen, auxiliary_set, chosen_network
from experiments.comparison.methods import METHODS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.report import Result
from experiments.comparison.run_options import ALL, Config, checked
from experiments.comparison.setting import Prepared, Setting, make_setting, prepare
from experiments.comparison.variants import VARIANTS
from experiments.harness import cli, files, machine, provenance, results, sheets
from fssd_jax import checkpoint, processes
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark
from fssd_jax.data.sources import ArrayDataset


def run(config: Config) -> list[Result]:
    """From data to report; returns the metrics of every seed and pair."""
    config = checked(config)
    files.writable(config.out / "table2")  # before anything is loaded
    if config.benchmark == ALL:
        return run_all(config)
    return run_one(config, load_benchmark(config.benchmark, config.data_dir))


def run_all(config: Config) -> list[Result]:
    """Every benchmark that can be had, one after another; of the others, why not.

    Raises:
      InputError: none can be had, or one failed after it was loaded, which does not
        stop the others.
    """
    (*names, _) = get_args(get_type_hints(Config)["benchmark"])
    found, missing, failed = [], [], []
    for name in names:
        print(f"benchmark {name}", flush=True)
        try:
            # Digits are embedded.
            where = None if name == "digits" else config.data_dir
            benchmark = load_benchmark(name, where)
        except InputError as error:
            if processes.several():  # of which another may have it
                raise
            missing.append(f"{name} is not run: {error}")
            continue
        try:
            found += run_one(dataclasses.replace(config, benchmark=name), benchmark)
        except InputError as error:
            if processes.several():
                raise
            failed.append(f"{name} failed: {error}")
    if failed or not found:
        none = [] if found else ["--benchmark all: none was run"]
        raise InputError("\n".join([*none, *failed, *missing]))
    print(*missing, sep="\n", file=sys.stderr)
    return found


def run_one(config: Config, benchmark: Benchmark) -> list[Result]:
    """All seeds and pairs of a benchmark, which is that of `config`."""
    if benchmark.symbols:
        protocols.of_ids(PROTOCOLS[config.protocol])  # before hours of training
    tell_missing(benchmark)
    benchmark = machine.reading_all(config, benchmark)
    # All of it before hours of training.
    chosen = chosen_network(config, benchmark)
    auxiliary, why = auxiliary_set(config, benchmark)
    places = {
        (pair, seed): place(config, benchmark, chosen, pair, seed, auxiliary)
        for seed in config.seeds
        for pair in benchmark.ood
    }
    found: dict[str, list[Result]] = {pair: [] for pair in benchmark.ood}
    for seed in config.seeds:
        prepared = None  # trained only if a pair of this seed is still to do
        for pair in benchmark.ood:
            there = places[pair, seed]
            exists = files.is_there(there.path) and not config.rerun
            failed = exists and report.read(there.path).get("failed")
            if exists and not failed:
                print(
                    "already there (--rerun computes it again; without the folder it "
                    "is written again from kept scores)"
                )
                results.tell(there.path)
            else:
                if failed:
                    print(f"tried again: {', '.join(failed)}")
                prepared = prepared or prepare(
                    benchmark, seed, config, *chosen, machine=config
                )
                run_pair(config, prepared, chosen, pair, auxiliary, why, there)
            found[pair].append(report.read(there.path))
    processes.agreed(lambda: leave_tables(config, benchmark, places, found))
    return [result for of_pair in found.values() for result in of_pair]


def leave_tables(
    config: Config,
    benchmark: Benchmark,
    places: dict[tuple[str, int], results.Identity],
    found: dict[str, list[Result]],
) -> None:
    """What all seeds and pairs of a benchmark give together."""
    folder = config.out / "table2"
    files.write_json(folder / "aggregate.json", report.aggregate(folder))
    all_sheets = [
        sheet
        for pair, of_pair in found.items()
        for sheet in tables.sheets(
            of_pair,
            [report.read_seconds(places[pair, seed].path) for seed in config.seeds],
        )
    ]
    all_sheets += tables.missing_sheets(benchmark)
    sheets.show(all_sheets)
    digest = provenance.config_digest([str(p.path.name) for p in places.values()])
    stem = folder / f"{config.benchmark}-{config.protocol}-{digest}"
    results.write_tables(stem, all_sheets)
    for pair, of_pair in found.items():
        for name, figure in pictures.ensembles(of_pair).items():
            plots.save(figure, stem.with_name(f"{stem.name}-{pair}-{name}"))
    print(f"all of them: {stem}.md, .csv and .tex")


def tell_missing(benchmark: Benchmark) -> None:
    """Say at once which pairs are not run; the tables say so, too."""
    for pair, why in benchmark.missing.items() if processes.first() else ():
        print(f"{pair} is not run: {why}", file=sys.stderr)


def run_pair(
    config: Config,
    prepared: Prepared,
    chosen: Chosen,
    pair: str,
    auxiliary: ArrayDataset | None,
    why: dict[str, str],
    there: results.Identity,
) -> None:
    """Score one in-distribution set against one OoD set and leave the folder."""
    protocol = PROTOCOLS[config.protocol]
    s = make_setting(prepared, pair, protocol, auxiliary, tiny=config.tiny, why=why)
    clock = files.Stopwatch()
    kept = files.writable(scores_path(config, prepared, chosen, pair))
    title = f"{pair}-{config.protocol}-{prepared.seed}"
    found, result = report.measure(
        *(s, config.methods, kept, title), again=config.rerun, clock=clock
    )
    facts = {
        **of_network(config, prepared, chosen, pair),
        "benchmark": pair,
        "counts": counts(s),
    }
    facts |= {"symbols": s.symbols} if s.symbols else {}
    facts |= {"protocol": config.protocol, "switches": s.protocol._asdict()}
    result = {**facts, **result}
    explored = explorer.written(s, found, result["failed"])
    results.leave(
        there,
        result,
        records.of_table2(result),
        tables.sheets([result]),
        pictures.figures(found, pair, s.protocol.epsilon_choice)
        | pictures.ensembles([result]),
        report.score_arrays(found),
        csv=tables.every_metric(result),
        timing={
            "seconds": {**prepared.seconds, **clock.seconds},
            "scoring_seconds_per_1000_images": report.seconds(found),
            "batch_size": s.batch_size,
        },
        extras=explored,
        show=False,  # of all seeds together, at the end
    )


def of_network(
    config: Config, prepared: Prepared, chosen: Chosen, pair: str
) -> dict[str, Any]:
    training = prepared.training
    benchmark = training.benchmark
    # The published networks saw the whole training set.
    whole = chosen.network.published and not config.train_size
    weights = {"weights": config.weights.name} if config.weights else {}
    return {
        "seed": prepared.seed,
        "model": {
            "name": repr(prepared.model),
            "network": chosen.network.name,
            "accuracy": prepared.accuracy,
            "epochs": 0 if weights else training.epochs_of(prepared.seed),
            "short_epochs": training.short_epochs,
            "parameters": sum(
                a.size for a in jax.tree.leaves(prepared.network.variables)
            ),
            **weights,
        },
        "paper": benchmark.paper if whole and pair == benchmark.name else None,
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
    chosen: Chosen,
    pair: str,
    seed: int,
    auxiliary: ArrayDataset | None,
) -> results.Identity:
    """The folder of one seed and pair."""
    options = {**options_of(config, benchmark, chosen), "methods": config.methods}
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


def options_of(config: Config, benchmark: Benchmark, chosen: Chosen) -> dict[str, Any]:
    """What decides the scores of any one method."""
    shared, brought = chosen
    model = brought.model if brought else shared.build(benchmark, None)
    return {
        "benchmark": config.benchmark,
        "protocol": config.protocol,
        "switches": PROTOCOLS[config.protocol]._asdict(),
        "network": shared.name,
        "model": repr(model),
        "weights": brought and checkpoint.tree_digest(brought.variables),
        "initial": brought and checkpoint.tree_digest(brought.initial),
        "epochs": config.epochs or shared.epochs or benchmark.epochs,
        "short_epochs": config.short_epochs,
        "full_seeds": config.full_seeds,
        "train_size": config.train_size,
        "validation": benchmark.validation,
        "tiny": config.tiny,
    }


def scores_path(config: Config, prepared: Prepared, chosen: Chosen, pair: str) -> Path:
    """Where each method's scores are kept, whatever the other methods of the run."""
    benchmark = prepared.training.benchmark
    there = results.place(
        config.out,
        "scores",
        f"{pair}-{config.protocol}-{prepared.seed}",
        options_of(config, benchmark, chosen),
        [benchmark.train, benchmark.test, benchmark.ood[pair]],
        measured_by=answers,
    )
    return there.path


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
