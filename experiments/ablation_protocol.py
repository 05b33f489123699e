"""From the paper's protocol to the released code's, one switch at a time.

  fssd ablation_protocol --benchmark fmnist

Each row keeps the switches of the rows above it and changes one more; the last row is
protocol `released`. Same network, same images. Leaves
OUT/ablation_protocol/PAIR-SEED-DIGEST/ with report.html,
metrics.json and the table.
"""

import dataclasses
import sys
from typing import Any, Literal

from analysis import auroc_plots
from experiments.comparison import switches
from experiments.comparison.records import of_metrics
from experiments.comparison.setting import Options, check, prepare
from experiments.harness import cli, files, results
from experiments.harness.records import Record, records
from experiments.harness.sheets import Sheet
from fssd_jax.data.benchmarks import load_benchmark


@dataclasses.dataclass(frozen=True)
class Config(Options):
    benchmark: Literal["digits", "fmnist", "fmnist6"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    seed: int = 0
    """Of the network, the split and the noise."""


def run(config: Config) -> list[dict[str, Any]]:
    check(config)
    files.writable(config.out / "ablation_protocol")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = next(iter(benchmark.ood))
    there = results.place(
        config.out,
        "ablation_protocol",
        f"{pair}-{config.seed}",
        dataclasses.asdict(config),
        [benchmark.train, benchmark.test, benchmark.ood[pair]],
        measured_by=switches,
    )
    prepared = prepare(benchmark, config.seed, config)
    found = switches.walk(prepared, pair, tiny=config.tiny)
    facts = {"benchmark": pair, "seed": config.seed, "rows": found.rows}
    sheet = to_sheet(found.rows, pair, config.seed)
    figure = auroc_plots.dots(
        [row["switch"] for row in found.rows],
        [row["auroc"] for row in found.rows],
        "AUROC",
        f"{pair}, seed {config.seed}: from paper to released, switch by switch",
        intervals=[row["auroc_ci95"] for row in found.rows],
    )
    numbers = to_records(facts)
    results.leave(there, facts, numbers, [sheet], {"switches": figure}, found.arrays)
    return found.rows


def to_records(facts: dict[str, Any]) -> list[Record]:
    """The condition is the switch that a row changed, beside those above it."""
    keys = {"benchmark": facts["benchmark"], "seed": facts["seed"], "method": "fssd"}
    numbers = []
    for row in facts["rows"]:
        at = {"condition": row["switch"], **keys}
        told = {"difference of AUROC": row["difference"], "ε": row["epsilon"]}
        numbers += [*of_metrics(row, **at), *records(told, **at)]
    return numbers


def to_sheet(rows: list[dict[str, Any]], pair: str, seed: int) -> Sheet:
    cells = []
    for row in rows:
        low, high = (100 * v for v in row["auroc_ci95"])
        change = row["difference"]
        cells.append(
            [
                row["switch"] + (f" = {row['value']}" if row["value"] else ""),
                f"{100 * row['auroc']:.2f} [{low:.2f}, {high:.2f}]",
                "" if change is None else f"{100 * change:+.2f}",
                f"{100 * row['fpr95']:.2f}",
                f"{row['epsilon']:g}",
            ]
        )
    return Sheet(
        f"{pair}, seed {seed}: from paper to released, one switch at a time",
        ["switch", "AUROC", "difference", "FPR95", "ε"],
        cells,
        ["In %; each row keeps the changes above it; the last row is `released`."],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
