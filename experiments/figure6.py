"""Figure 6: does every layer tell a near and a far OoD set apart in the same way?

  fssd figure6
  fssd figure6 --benchmark cifar6 --network cifar_resnet20
  fssd figure6 --weights results/weights/lenet-0-5d3c2a11
  fssd figure6 --benchmark dogs --preset paper --workers 14

Histograms of ‖F(x) − F*‖ in each layer of a network: a row for an OoD set that is near,
a row for one that is far. Above each panel the AUROC of that layer, and what it
was before training: what is told apart then owes nothing to it. Nothing is fitted.

Leaves OUT/figure6/BENCHMARK-SEED-DIGEST/ with the picture, the table, metrics.json and
the FSSD of every image and layer in scores.npz. Weights are kept in OUT/weights.
"""

import dataclasses
import itertools
import sys
from typing import Any, Literal

from analysis import feature_plots
from experiments.comparison import figure_settings, layer_looks
from experiments.comparison.figure_settings import (
    ONE_NETWORK,
    FigureOptions,
    pair_of,
    ready,
    told_of,
    with_options,
)
from experiments.comparison.layer_looks import IND, OOD, Distances
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark


@dataclasses.dataclass(frozen=True)
class Config(FigureOptions):
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: 1,000 test images of each set. paper: all.
    Of both the network is the benchmark's own, with all of its epochs."""
    benchmark: Literal["digits", "fmnist6", "cifar6", "dogs"] = "fmnist6"
    """fmnist6: six classes of FashionMNIST; near are its other four, far is MNIST.
    cifar6: six classes of CIFAR-10, its other four, and SVHN, or what else there is.
    digits: 0-4, 5-9, and photographs. dogs: the paper's figure, of two networks:
    ImageNet's dogs against its other images, and CIFAR-10 against SVHN."""


def run(config: Config) -> dict[str, Any]:
    preset = with_options(ONE_NETWORK[config.preset], config)
    files.writable(config.out / "figure6")
    benchmarks, pairs = near_and_far(config)
    decide, data = {}, []
    for pair, benchmark in benchmarks.items():
        decide[benchmark.name] = figure_settings.deciding(benchmark, config, preset)
        data += [benchmark.train, benchmark.test, benchmark.ood[pair]]
    place = results.place(
        *(config.out, "figure6", f"{config.benchmark}-{config.seed}"),
        {"pairs": pairs, "of": decide},
        *(data, layer_looks),
    )
    found: dict[str, Distances] = {}
    facts: dict[str, Any] = {"benchmark": config.benchmark, "pairs": pairs}
    facts |= {"seed": config.seed, "layers": {}, "counts": {}, "networks": {}}
    for pair, benchmark in benchmarks.items():
        s, of_pair = ready(benchmark, pair, "clean", config, preset)
        found[pair] = layer_looks.distances(s)
        facts["layers"][pair] = to_layers(found[pair])
        facts["counts"][pair] = of_pair.pop("images")
        facts["networks"][pair] = {**of_pair, "benchmark": benchmark.name}
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


def near_and_far(config: Config) -> tuple[dict[str, Benchmark], dict[str, str]]:
    """Pair → its benchmark, and "near" and "far" → the pair; of several far the first.

    Raises:
      InputError: data that are not there; an option of one network where there are two.
    """
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    if config.benchmark == "dogs":
        for name in ("network", "width", "weights"):
            if getattr(config, name) is not None:
                raise InputError(f"--{name}: leave out, of dogs there are two networks")
        other = load_benchmark("cifar10", config.data_dir)
        far = pair_of(other, None)
        return {"dogs": benchmark, far: other}, {"near": "dogs", "far": far}
    if config.benchmark == "fmnist6":
        far = load_benchmark("fmnist", config.data_dir).ood["fmnist"]
        benchmark = benchmark._replace(ood={**benchmark.ood, "fmnist6_mnist": far})
    near, far, *_ = benchmark.ood
    return dict.fromkeys((near, far), benchmark), {"near": near, "far": far}


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
    methods = {"trained": "fssd", "untrained": "control: untrained"}
    return [
        record(
            *("AUROC", of[when], of[f"{when}_ci95"]),
            method=method, layer=layer, benchmark=pair,
            seed=facts["seed"], network=facts["networks"][pair]["network"],
        )
        for pair, layers in facts["layers"].items()
        for layer, of in layers.items()
        for when, method in methods.items()
    ]  # fmt: skip


def to_sheet(facts: dict[str, Any]) -> Sheet:
    layers = list(dict.fromkeys(k for of in facts["layers"].values() for k in of))
    rows, widest = [], 0.0
    names = {"trained": "", "untrained": "control: untrained, "}
    for (kind, pair), when in itertools.product(facts["pairs"].items(), names):
        of_layers = facts["layers"][pair]
        values = {layer: f"{100 * of[when]:.1f}" for layer, of in of_layers.items()}
        cells = [values.get(layer, "") for layer in layers]
        rows.append([f"{names[when]}{kind}: {pair}", *cells])
        ends = [of[f"{when}_ci95"] for of in of_layers.values()]
        widest = max(widest, *(50 * (high - low) for low, high in ends))
    counts = "; ".join(
        f"{pair}: {n[IND]:,} in-distribution, {n[OOD]:,} OoD images"
        for pair, n in facts["counts"].items()
    )
    networks = dict.fromkeys(map(told_of, facts["networks"].values()))
    return Sheet(
        f"{facts['benchmark']}: FSSD of each layer",
        ["OoD set", *layers],
        rows,
        [
            f"AUROC in %; half of a 95 % interval of new images is {widest:.1f} at "
            f"most. {counts}. Nothing is fitted. {'; '.join(networks)}."
        ],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
