"""Why some of our numbers are far from the published ones, by measurement.

  python -m experiments.gaps

On benchmark A three methods may differ from the published AUROC by several points. For
each, what the paper leaves open or what cannot be had here is varied: the training of
the members of the deep ensemble; the rate of MC dropout, and mean or variance; the
auxiliary set of Outlier Exposure. The networks are those of table2 if the options that
concern training are the same: --short-epochs above all.
Leaves OUT/gaps/PAIR-SEED-DIGEST/ with metrics.json and the table as Markdown.
"""

import dataclasses
import sys
from functools import partial
from typing import Any

import jax
from rich.console import Console

from experiments import common, networks, retrained, table2, tables
from experiments.protocols import PROTOCOLS
from experiments.setting import Options, Setting, make_setting, prepare
from fssd_jax import metrics
from fssd_jax.data.benchmarks import load_benchmark, outliers
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset, load
from fssd_jax.detectors import deep_ensemble, mc_dropout, msp

Row = tuple[str, str, float]  # method, what was varied, AUROC


@dataclasses.dataclass(frozen=True)
class Config(Options):
    seed: int = 0
    """Of the network, the split and the noise."""


def members(s: Setting) -> list[Row]:
    """MSP of each member of the deep ensemble alone, and ensembles of fewer."""
    seeds = range(s.seed, s.seed + retrained.MEMBERS)
    of_seed = {m: networks.plain(s.benchmark, s.schedule, m).variables for m in seeds}
    epochs = {m: s.schedule.of_seed(m) for m in seeds}
    rows = [
        ("msp", f"seed {m}, {epochs[m]} epochs", _auroc(s, msp, of_seed[m]))
        for m in seeds
    ]
    longest = max(epochs.values())
    groups = {
        tuple(seeds),
        tuple(m for m in seeds if epochs[m] == longest),
        tuple(m for m in seeds if epochs[m] < longest),
    }
    for group in sorted(groups, key=len):
        if len(group) > 1:
            stacked = deep_ensemble.stack([of_seed[m] for m in group])
            what = f"seeds {', '.join(map(str, group))}"
            rows.append(("deep ensemble", what, _auroc(s, deep_ensemble, stacked)))
    return rows


def rates(s: Setting) -> list[Row]:
    """MC dropout by mean and by variance at every rate; fewer passes than in table2."""
    key = jax.random.fold_in(jax.random.key(s.seed), 104)
    state = mc_dropout.fit(key, retrained.CHOOSING_PASSES)
    rows = []
    for rate in retrained.RATES[:2] if s.tiny else retrained.RATES:
        variables = networks.with_dropout(s.benchmark, s.schedule, 0, rate).variables
        logit_fn = retrained.stochastic_lenet(s.benchmark, rate)
        of = partial(map_batches, mc_dropout.scores, logit_fn, variables, state)
        ind, ood = of(s.test_ind), of(s.test_ood)
        rows += [
            (
                f"mc dropout, {name}",
                f"rate {rate:g}",
                metrics.auroc(ind[:, c], ood[:, c]),
            )
            for c, name in enumerate(("mean", "variance"))
        ]
    return rows


def auxiliary_sets(s: Setting, sets: list[ArrayDataset]) -> list[Row]:
    """Fine-tuning with each set beside."""
    rows = []
    for auxiliary in sets:
        if s.tiny:
            auxiliary = auxiliary.select(slice(64))
        arguments = s.benchmark, s.schedule, s.seed, auxiliary
        trained = networks.exposed(*arguments, finetune=True)
        what = f"{len(auxiliary.x):,} {auxiliary.name}/{auxiliary.split}"
        auroc = _auroc(s, msp, trained.variables)
        rows.append(("outlier exposure, fine-tuned", what, auroc))
    return rows


def _auroc(s: Setting, detector, variables) -> float:
    of = partial(map_batches, detector.score, s.logit_fn, variables, detector.fit())
    return metrics.auroc(of(s.test_ind), of(s.test_ood))


def run(config: Config) -> dict[str, Any]:
    folder = common.writable(config.out / "gaps")
    benchmark = load_benchmark("fmnist", config.data_dir)
    auxiliary = [
        outliers(config.outliers, config.data_dir),
        load("mnist", "train", config.data_dir),
    ]
    prepared = prepare(benchmark, config.seed, config)
    s = make_setting(benchmark, prepared, "fmnist", PROTOCOLS["paper"], config)
    rows = [*members(s), *rates(s), *auxiliary_sets(s, auxiliary)]
    facts = {
        "benchmark": "fmnist",
        "seed": config.seed,
        "epochs": prepared.schedule.epochs,
        "short_epochs": prepared.schedule.short_epochs,
        "rows": rows,
        "published": benchmark.paper,
        "sources": table2.sources(
            benchmark.train, benchmark.test, benchmark.ood["fmnist"], *auxiliary
        ),
        "versions": common.versions(),
        "device": common.device(),
    }
    sheet = to_sheet(facts)
    code = common.code_digest((*common.SCORING, "experiments/gaps.py"))
    options = {k: v for k, v in dataclasses.asdict(config).items() if k != "out"}
    digest = common.config_digest([options, code, facts | {"rows": None}])
    with common.results_folder(folder / f"fmnist-{config.seed}-{digest}") as target:
        common.write_json(target / "metrics.json", facts)
        (target / "table.md").write_text(tables.to_markdown(sheet))
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    return facts


def to_sheet(facts: dict[str, Any]) -> tables.Sheet:
    published = facts["published"]
    rows = []
    for method, what, auroc in facts["rows"]:
        of = [source.get(method.split(",")[0], {}) for source in published.values()]
        cells = [f"{100 * o['auroc']:.1f}" if o else "" for o in of]
        rows.append([method, what, f"{100 * auroc:.1f}", *cells])
    return tables.Sheet(
        f"{facts['benchmark']}, seed {facts['seed']}: what the gaps depend on",
        ["method", "varied", "AUROC here", *published],
        rows,
        [
            f"In %, all test images. MC dropout of {retrained.CHOOSING_PASSES} passes "
            f"and networks of {facts['short_epochs']} epochs.",
            "Fine-tuning with mnist/train is no method, because these images are of "
            "the tested kind: about the most that this fine-tuning could give.",
        ],
    )


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
