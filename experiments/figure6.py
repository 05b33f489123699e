"""Figure 6: does every layer tell a near and a far OoD set apart in the same way?

  fssd figure6
  fssd figure6 --benchmark cifar6 --network cifar_resnet20
  fssd figure6 --weights results/weights/lenet-0-5d3c2a11

Histograms of ‖F(x) − F*‖ in each layer of one network: a row for an OoD set that is
near, a row for one that is far. Above each panel the AUROC of that layer, and what it
was before training: what is told apart then owes nothing to it. Nothing is fitted.

Leaves OUT/figure6/BENCHMARK-SEED-DIGEST/ with the picture, the table, metrics.json and
the FSSD of every image and layer in scores.npz. Weights are kept in OUT/weights.
"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any, Literal

from analysis import feature_plots
from experiments.comparison import figure_settings, layer_looks
from experiments.comparison.figure_settings import (
    ONE_NETWORK,
    FigureOptions,
    ready,
    told_of,
    with_options,
)
from experiments.comparison.layer_looks import IND, OOD, Distances
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax import metrics
from fssd_jax.data.benchmarks import Benchmark, load_benchmark


@dataclasses.dataclass(frozen=True)
class Config(FigureOptions):
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: 1,000 test images of each set. paper: all.
    Of both the network is the benchmark's own, with all of its epochs."""
    benchmark: Literal["digits", "fmnist6", "cifar6"] = "fmnist6"
    """fmnist6: six classes of FashionMNIST; near are its other four, far is MNIST.
    cifar6: six classes of CIFAR-10, its other four, and SVHN, or what else there is.
    digits: 0-4, 5-9, and photographs. (The paper takes two networks: of ImageNet's
    dogs against its other images, and of CIFAR-10 against SVHN.)"""


def run(config: Config) -> dict[str, Any]:
    preset = with_options(ONE_NETWORK[config.preset], config)
    files.writable(config.out / "figure6")
    benchmark, pairs = near_and_far(config.benchmark, config.data_dir)
    place = results.place(
        *(config.out, "figure6", f"{benchmark.name}-{config.seed}"),
        figure_settings.deciding(benchmark, config, preset) | {"pairs": pairs},
        [benchmark.train, benchmark.test, *(benchmark.ood[p] for p in pairs.values())],
        layer_looks,
    )
    found: dict[str, Distances] = {}
    facts: dict[str, Any] = {"pairs": pairs, "layers": {}, "counts": {}}
    for pair in pairs.values():
        s, of_pair = ready(benchmark, pair, "clean", config, preset)
        found[pair] = layer_looks.distances(s)
        facts["layers"][pair] = to_layers(found[pair])
        facts["counts"][pair] = of_pair.pop("images")
        facts |= {**of_pair, "benchmark": benchmark.name}
    arrays = {
        f"{pair}/{when}/{name}": d
        for pair, of in found.items()
        for when in ("trained", "untrained")
        for name, d in getattr(of, when).items()
    }
    figure = feature_plots.layers_of_pairs(
        {
            title(kind, pair): (found[pair].trained, found[pair].layers)
            for kind, pair in pairs.items()
        },
        {title(kind, pair): titles(facts, pair) for kind, pair in pairs.items()},
    )
    numbers, sheet = to_records(facts), to_sheet(facts)
    results.leave(place, facts, numbers, [sheet], {"figure6": figure}, arrays)
    return facts


def near_and_far(name: str, data_dir: Path | None) -> tuple[Benchmark, dict[str, str]]:
    """The benchmark, and "near" and "far" → the pair; of several far sets the first."""
    benchmark = load_benchmark(name, data_dir)
    if name == "fmnist6":
        far = load_benchmark("fmnist", data_dir).ood["fmnist"]
        benchmark = benchmark._replace(ood={**benchmark.ood, "fmnist6_mnist": far})
    near, far, *_ = benchmark.ood
    return benchmark, {"near": near, "far": far}


def title(kind: str, pair: str) -> str:
    return f"{kind}: {pair}"


def to_layers(found: Distances) -> dict[str, dict[str, Any]]:
    """layer → AUROC after and before training, with their intervals."""
    told = {}
    for k, layer in enumerate(found.layers):
        told[layer] = {}
        for when in ("trained", "untrained"):
            d = getattr(found, when)
            of = metrics.evaluate(d[IND][:, k], d[OOD][:, k])
            told[layer] |= {when: of.auroc, f"{when}_ci95": of.auroc_ci95}
    return told


def titles(facts: dict[str, Any], pair: str) -> list[str]:
    return [
        f"AUROC {of['trained']:.3f}\nuntrained {of['untrained']:.3f}"
        for of in facts["layers"][pair].values()
    ]


def to_records(facts: dict[str, Any]) -> list[Record]:
    keys = {k: facts[k] for k in ("seed", "network")}
    methods = {"trained": "fssd", "untrained": "control: untrained"}
    return [
        record(
            *("AUROC", of[when], of[f"{when}_ci95"]),
            method=method, layer=layer, benchmark=pair, **keys,
        )
        for pair, layers in facts["layers"].items()
        for layer, of in layers.items()
        for when, method in methods.items()
    ]  # fmt: skip


def to_sheet(facts: dict[str, Any]) -> Sheet:
    layers = list(next(iter(facts["layers"].values())))
    rows, widest = [], 0.0
    names = {"trained": "", "untrained": "control: untrained, "}
    for (kind, pair), when in itertools.product(facts["pairs"].items(), names):
        of_layers = [facts["layers"][pair][layer] for layer in layers]
        values = [f"{100 * of[when]:.1f}" for of in of_layers]
        rows.append([f"{names[when]}{kind}: {pair}", *values])
        ends = [of[f"{when}_ci95"] for of in of_layers]
        widest = max(widest, *(50 * (high - low) for low, high in ends))
    counts = "; ".join(
        f"{pair}: {n[IND]:,} in-distribution, {n[OOD]:,} OoD images"
        for pair, n in facts["counts"].items()
    )
    return Sheet(
        f"{facts['benchmark']}: FSSD of each layer",
        ["OoD set", *layers],
        rows,
        [
            f"AUROC in %; half of a 95 % interval of new images is {widest:.1f} at "
            f"most. {counts}. Nothing is fitted. {told_of(facts)}."
        ],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
