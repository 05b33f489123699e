"""From the paper's protocol to the released code's, one switch at a time.

  python -m experiments.ablation_protocol --benchmark fmnist

Each row keeps the switches of the rows above it and changes one more; the last row is
protocol `released`. Same network, same images. Leaves
OUT/ablation_protocol/PAIR-SEED-DIGEST/ with metrics.json and the table as Markdown.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from experiments import common, methods, table2, tables
from experiments.protocols import PROTOCOLS, Protocol
from experiments.setting import Options, make_setting, prepare
from fssd_jax import metrics
from fssd_jax.data.benchmarks import load_benchmark

# In the order of the procedure: F*, the weights, the choice of ε, the step, the test.
ORDER = (
    "noise",
    "samples",
    "ensemble",
    "split",
    "epsilon_choice",
    "epsilons",
    "perturbation",
    "truncate",
)


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["digits", "fmnist", "fmnist6"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    seed: int = 0
    """Of the network, the split and the noise."""
    out: Path = Path("results")
    """Where results and weights go; the weights of table2 are used again."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder and from nowhere else."""
    tiny: bool = False
    """A smoke test of seconds. Its numbers mean nothing."""


def ladder() -> list[tuple[str, Protocol]]:
    """(switch that changes, protocol) from `paper` to `released`."""
    protocol, end = PROTOCOLS["paper"], PROTOCOLS["released"]
    steps = [("paper", protocol)]
    for switch in ORDER:
        changed = {switch: getattr(end, switch)}
        if switch == "perturbation":  # the batch is a part of that perturbation
            changed["batch_size"] = end.batch_size
        protocol = protocol._replace(**changed)
        steps.append((switch, protocol))
    return steps


def run(config: Config) -> list[dict[str, Any]]:
    folder = common.writable(config.out / "ablation_protocol")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = next(iter(benchmark.ood))
    like = Options(out=config.out, tiny=config.tiny)
    prepared = prepare(benchmark, config.seed, like)
    rows: list[dict[str, Any]] = []
    for switch, protocol in ladder():
        setting = make_setting(benchmark, prepared, pair, protocol, like)
        scored = methods.run_fssd(setting)
        found = metrics.evaluate(scored.ind, scored.ood)
        before = rows[-1]["auroc"] if rows else None
        assert scored.layers is not None
        rows.append(
            {
                "switch": switch,
                "value": "" if switch == "paper" else _shown(protocol, switch),
                **found._asdict(),
                "difference": None if before is None else found.auroc - before,
                "epsilon": scored.layers.epsilon,
                "alpha": scored.layers.alpha.tolist(),
            }
        )
        print(f"{switch}: AUROC {found.auroc:.5f}", flush=True)
    sheet = to_sheet(rows, pair, config.seed)
    digest = common.config_digest([rows[0], rows[-1], config.tiny])
    with common.results_folder(folder / f"{pair}-{config.seed}-{digest}") as target:
        facts = {
            "benchmark": pair,
            "seed": config.seed,
            "sources": table2.sources(
                benchmark.train, benchmark.test, benchmark.ood[pair]
            ),
            "rows": rows,
            "versions": common.versions(),
            "device": common.device(),
        }
        common.write_json(target / "metrics.json", facts)
        (target / "table.md").write_text(tables.to_markdown(sheet))
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {folder / f'{pair}-{config.seed}-{digest}'}")
    return rows


def to_sheet(rows: list[dict[str, Any]], pair: str, seed: int) -> tables.Sheet:
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
    return tables.Sheet(
        f"{pair}, seed {seed}: from paper to released, one switch at a time",
        ["switch", "AUROC", "difference", "FPR95", "ε"],
        cells,
        ["In %; each row keeps the changes above it; the last row is `released`."],
    )


def _shown(protocol: Protocol, switch: str) -> str:
    value = getattr(protocol, switch)
    return f"{len(value)} values" if isinstance(value, tuple) else str(value)


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
