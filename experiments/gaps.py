"""Why some of our numbers are far from the published ones, by measurement.

  fssd gaps

On benchmark A three methods may differ from the published AUROC by several points. For
each, what the paper leaves open or what cannot be had here is varied: the training of
the members of the deep ensemble; the rate of MC dropout, and mean or variance; the
auxiliary set of Outlier Exposure. The networks are those of table2 if the options that
concern training are the same: --short-epochs above all.
Leaves OUT/gaps/PAIR-SEED-DIGEST/ with report.html,
metrics.json and the table.
"""

import dataclasses
import sys
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from analysis import auroc_plots
from experiments.comparison import retrained, variations
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, check, make_setting, prepare
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax.data.benchmarks import load_benchmark, outliers
from fssd_jax.data.sources import load


@dataclasses.dataclass(frozen=True)
class Config(Options):
    seed: int = 0
    """Of the network, the split and the noise."""
    outliers: Literal["auto", "kmnist", "cns_glyphs"] = "auto"
    """The auxiliary set of Outlier Exposure; auto: the first that can be had."""


def run(config: Config) -> dict[str, Any]:
    check(config)
    files.writable(config.out / "gaps")
    benchmark = load_benchmark("fmnist", config.data_dir)
    auxiliary = [
        outliers(config.outliers, config.data_dir),
        load("mnist", "train", config.data_dir),
    ]
    protocol = PROTOCOLS["paper"]
    there = results.place(
        config.out,
        "gaps",
        f"fmnist-{config.seed}",
        {**dataclasses.asdict(config), "switches": protocol._asdict()},
        [benchmark.train, benchmark.test, benchmark.ood["fmnist"], *auxiliary],
        measured_by=variations,
    )
    prepared = prepare(benchmark, config.seed, config)
    s = make_setting(prepared, "fmnist", protocol, tiny=config.tiny)
    rows = variations.vary(s, auxiliary)
    facts = {
        "benchmark": "fmnist",
        "seed": config.seed,
        "epochs": prepared.training.epochs,
        "short_epochs": prepared.training.short_epochs,
        "rows": [
            {"method": method, "varied": varied, "auroc": auroc}
            for method, varied, auroc in rows
        ],
        "published": benchmark.paper,
    }
    arrays = {"auroc": np.array([auroc for _, _, auroc in rows])}
    figures = {"gaps": picture(facts)}
    numbers = to_records(facts)
    results.leave(there, facts, numbers, [to_sheet(facts)], figures, arrays)
    return facts


def to_records(facts: dict[str, Any]) -> list[Record]:
    keys = {"benchmark": facts["benchmark"], "seed": facts["seed"]}
    return [
        record("AUROC", r["auroc"], method=r["method"], condition=r["varied"], **keys)
        for r in facts["rows"]
    ]


def picture(facts: dict[str, Any]) -> Figure:
    rows = facts["rows"]
    published = {
        source: [of.get(row["method"].split(",")[0], {}).get("auroc") for row in rows]
        for source, of in facts["published"].items()
    }
    names = [f"{row['method']}: {row['varied']}" for row in rows]
    aurocs = [row["auroc"] for row in rows]
    title = f"{facts['benchmark']}, seed {facts['seed']}"
    return auroc_plots.dots(names, aurocs, "AUROC", title, published=published)


def to_sheet(facts: dict[str, Any]) -> Sheet:
    published = facts["published"]
    rows = []
    for row in facts["rows"]:
        name = row["method"].split(",")[0]
        of = [source.get(name, {}) for source in published.values()]
        cells = [f"{100 * o['auroc']:.1f}" if o else "" for o in of]
        rows.append([row["method"], row["varied"], f"{100 * row['auroc']:.1f}", *cells])
    return Sheet(
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
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
