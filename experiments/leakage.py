"""How much of a score comes from labels of the tested OoD set itself?

  fssd leakage --benchmark fmnist6

A ladder for FSSD, Mahalanobis and ODIN, of what chooses ε, temperature and weights:
images of the tested OoD set; another OoD set (patches of photographs); noise and
corrupted in-distribution images; no OoD at all. And AUROC against the number of
labelled images of the tested set. Beside them two controls that never see a network,
with the same labels. Leaves OUT/leakage/PAIR-SEED-DIGEST/ with
report.html, metrics.json, the tables and a picture; swept scores are kept in
OUT/scores, for a run that was killed.
"""

import dataclasses
import sys
from typing import Any, Literal

import numpy as np

from analysis import auroc_plots
from experiments.comparison import ladder
from experiments.comparison.ladder import CONTROL_IMAGES, DRAWS, EPSILONS, RUNGS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, check, make_setting, prepare
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax import checkpoint
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.sources import load


@dataclasses.dataclass(frozen=True)
class Config(Options):
    benchmark: Literal["digits", "fmnist", "fmnist6"] = "fmnist6"
    """Which data; of several OoD sets the first is taken."""
    seed: int = 0
    """Of the network, the split and the noise."""


def run(config: Config) -> dict[str, Any]:
    check(config)
    files.writable(config.out / "leakage")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = next(iter(benchmark.ood))
    prepared = prepare(benchmark, config.seed, config)
    protocol = PROTOCOLS["paper"]
    s = make_setting(prepared, pair, protocol, tiny=config.tiny)
    epsilons = EPSILONS[::4] if config.tiny else EPSILONS
    others = load("photo_patches", "test")
    sets = ladder.sets_of(s, others)
    data = [benchmark.train, benchmark.test, benchmark.ood[pair], others]
    options = {**dataclasses.asdict(config), "epsilons": epsilons}
    options["switches"] = protocol._asdict()
    # Sweeps are kept longer than weights, which may be trained again to other bits.
    options["network"] = checkpoint.tree_digest(s.variables)
    there, kept = (
        results.place(
            *(config.out, experiment, f"{name}{pair}-{config.seed}", options, data),
            measured_by=ladder,
        )
        for experiment, name in (("leakage", ""), ("scores", "leakage-"))
    )
    swept = ladder.swept(s, sets, epsilons, files.writable(kept.path))
    facts = {
        "benchmark": pair,
        "seed": config.seed,
        "epsilons": epsilons,
        "epochs": prepared.training.epochs_of(config.seed),
        "counts_of_sets": {name: len(x) for name, x in sets.items()},
        **ladder.climb(s, sets, swept, epsilons),
    }
    arrays = {
        f"{method}/{part}": a
        for method, of in swept.items()
        for part, a in of._asdict().items()
    }
    figure = auroc_plots.leakage(facts["rungs"], facts["counts"], pair)
    numbers, tables = to_records(facts), to_sheets(facts)
    results.leave(there, facts, numbers, tables, {"leakage": figure}, arrays)
    return facts


def to_records(facts: dict[str, Any]) -> list[Record]:
    """By what chose (the condition), and by the number of labels, draw by draw."""
    keys = {"benchmark": facts["benchmark"], "seed": facts["seed"]}
    rungs = [
        record("AUROC", auroc, method=method, condition=rung, **keys)
        for method, of in facts["rungs"].items()
        for rung, auroc in of.items()
    ]
    counts = [
        record("AUROC", auroc, method=method, labels=int(n), draw=draw, **keys)
        for method, of in facts["counts"].items()
        for n, of_draws in of.items()
        for draw, auroc in enumerate(of_draws)
    ]
    return [*rungs, *counts]


def to_sheets(facts: dict[str, Any]) -> list[Sheet]:
    title = f"{facts['benchmark']}, seed {facts['seed']}"
    rungs = [
        [name, *(f"{100 * of[r]:.1f}" if r in of else "" for r in RUNGS)]
        for name, of in facts["rungs"].items()
    ]
    numbers = sorted({n for of in facts["counts"].values() for n in of})
    counts = [
        [name, *(_spread(of[n]) if n in of else "" for n in numbers)]
        for name, of in facts["counts"].items()
    ]
    sizes = facts["counts_of_sets"]
    return [
        Sheet(
            f"{title}: AUROC by what chose ε, temperature and weights",
            ["method", *RUNGS],
            rungs,
            [
                f"In %. {sizes['target']:,} images of the tested set, "
                f"{sizes['other']:,} patches of photographs, {sizes['corrupted']:,} "
                "corrupted images, each beside "
                f"{sizes['val_ind']:,} in-distribution ones; ε of "
                f"{', '.join(f'{e:g}' for e in facts['epsilons'])}. Controls on every "
                f"few of the test images, about {CONTROL_IMAGES:,} of each set."
            ],
        ),
        Sheet(
            f"{title}: AUROC by the number of labelled images of the tested set",
            ["method", *map(str, numbers)],
            counts,
            [
                "In %; beside as many in-distribution images, but at 0, where FSSD and "
                f"Mahalanobis are standardised on all {sizes['val_ind']:,}; mean and "
                f"range over {DRAWS} draws, where there is a choice."
            ],
        ),
    ]


def _spread(values: list[float]) -> str:
    low, mean, high = (100 * f(values) for f in (min, np.mean, max))
    return f"{mean:.1f}" + (f" [{low:.1f}, {high:.1f}]" if len(values) > 1 else "")


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
