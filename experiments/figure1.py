"""Figure 1: does FSSD grow with how much an image is in-distribution?

  fssd figure1
  fssd figure1 --benchmark cifar10 --network cifar_resnet20 --layer stage3
  fssd figure1 --benchmark cifar10 --network cifar_resnet20 --pair cifar10_photos
  fssd figure1 --weights results/weights/lenet-0-5d3c2a11
  fssd figure1 --benchmark ms1m --pair ms1m_imagenet --workers 14

On the left histograms of ‖F(x) − F*‖ of both test sets, in one layer, and below the
axis images of each set that have the FSSD above them. On the right the features of that
layer in their first two principal components, with F*, the mean feature of uniform
noise. By default the layer before the logits, as in the paper; nothing is fitted.
Beside FSSD the table has the same before training, nearness in pixels and brightness.

Leaves OUT/figure1/PAIR-SEED-DIGEST/ with the picture, the table, metrics.json, and the
FSSD of every image, the features and which images are shown in scores.npz. Weights are
kept in OUT/weights.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from analysis import example_plots
from experiments.comparison import figure_settings, layer_looks
from experiments.comparison.figure_settings import (
    ONE_NETWORK,
    Benchmarks,
    FigureOptions,
    pair_of,
    ready,
    told_of,
    with_options,
)
from experiments.comparison.layer_looks import IND, OOD
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark
from fssd_jax.data.imagenet import imagenet_images
from fssd_jax.data.inputs import as_input

UNTRAINED = "control: untrained"
QUARTILES = ("lower quartile", "median", "upper quartile")


@dataclasses.dataclass(frozen=True)
class Config(FigureOptions):
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: 1,000 test images of each set. paper: all.
    Of both the network is the benchmark's own, with all of its epochs."""
    benchmark: Benchmarks = "fmnist"
    """fmnist: FashionMNIST against MNIST; cifar10: CIFAR-10 against SVHN; cifar6: six
    of its classes against the other four; digits: 0-4 against 5-9; dogs, celeba, ms1m:
    the paper's C, E and F, for an accelerator."""
    pair: str | None = None
    """Another OoD set of the benchmark, by its pair: cifar10_photos, for one; or
    ms1m_imagenet, the paper's figure: faces against ImageNet's validation images."""
    layer: str | None = None
    """By name; by default the last one before the logits."""
    examples: int = 9
    """Values of FSSD, evenly spaced, of which images are shown."""


def run(config: Config) -> dict[str, Any]:
    preset = with_options(ONE_NETWORK[config.preset], config)
    if config.examples < 2:
        raise InputError(f"--examples: expected 2 or more, got {config.examples}")
    files.writable(config.out / "figure1")
    benchmark = with_objects(load_benchmark(config.benchmark, config.data_dir), config)
    pair = pair_of(benchmark, config.pair)
    options = figure_settings.deciding(benchmark, config, preset)
    place = results.place(
        *(config.out, "figure1", f"{pair}-{config.seed}"),
        options | {"layer": config.layer, "examples": config.examples},
        [benchmark.train, benchmark.test, benchmark.ood[pair]],
        layer_looks,
    )
    s, facts = ready(benchmark, pair, "clean", config, preset)
    layer = layer_looks.layer_of(s, config.layer)
    found = layer_looks.distances(s)
    cloud = layer_looks.cloud(s, layer)
    k = found.layers.index(layer)
    fssd, before = (
        {name: d[:, k] for name, d in of.items()}
        for of in (found.trained, found.untrained)
    )
    at = layer_looks.places(fssd, config.examples)
    shown = {name: layer_looks.examples(fssd[name], at) for name in (OOD, IND)}
    scores = {
        "fssd": (fssd[IND], fssd[OOD]),
        UNTRAINED: (before[IND], before[OOD]),
        **layer_looks.rivals(s),
    }
    facts |= {"layer": layer, "share": cloud.share, "values": at}
    facts |= to_facts(scores, fssd)
    figure = example_plots.examples(
        {name: fssd[name] for name in (IND, OOD)},
        *(at, images_at(layer_looks.sets_of(s), shown)),
        *(cloud.points, cloud.star, cloud.share, layer),
    )
    arrays = {
        **{f"fssd/{name}": d for name, d in fssd.items()},
        **{f"{UNTRAINED}/{name}": d for name, d in before.items()},
        **{f"points/{name}": p for name, p in cloud.points.items()},
        **{f"features/{name}": f for name, f in cloud.features.items()},
        **{f"shown/{name}": of for name, of in shown.items()},
        **{"points/F*": cloud.star, "features/F*": cloud.center, "values": at},
    }
    numbers, sheets = to_records(facts), [to_sheet(facts)]
    results.leave(place, facts, numbers, sheets, {"figure1": figure}, arrays)
    return facts


def with_objects(benchmark: Benchmark, config: Config) -> Benchmark:
    """Beside the OoD set that faces have in Table 1, that of the paper's figure."""
    if benchmark.family != "faces":
        return benchmark
    pair, side = f"{benchmark.name}_imagenet", benchmark.train.x.shape[1]
    try:
        found = imagenet_images(side, config.data_dir, "validation")
    except InputError as error:
        return benchmark._replace(missing={**benchmark.missing, pair: str(error)})
    return benchmark._replace(ood={**benchmark.ood, pair: found})


def to_facts(scores: Mapping[str, tuple], fssd: Mapping[str, Any]) -> dict[str, Any]:
    judged = {name: metrics.evaluate(*of) for name, of in scores.items()}
    return {
        "auroc": {name: of.auroc for name, of in judged.items()},
        "auroc_ci95": {name: of.auroc_ci95 for name, of in judged.items()},
        "quartiles": {
            name: np.quantile(d, [0.25, 0.5, 0.75]).tolist() for name, d in fssd.items()
        },
    }


def images_at(sets: Mapping[str, Any], shown: Mapping[str, np.ndarray]):
    """set → which value of FSSD → the image in [0, 1]; not where there is none."""
    return {
        name: {k: as_input(sets[name][[j]])[0] for k, j in enumerate(of) if j >= 0}
        for name, of in shown.items()
    }


def to_records(facts: dict[str, Any]) -> list[Record]:
    keys = {k: facts[k] for k in ("benchmark", "seed", "network", "layer")}
    aurocs = [
        record("AUROC", value, facts["auroc_ci95"][name], method=name, **keys)
        for name, value in facts["auroc"].items()
    ]
    distances = [
        record("distance", value, set=name, statistic=statistic, **keys)
        for name, of in facts["quartiles"].items()
        for statistic, value in zip(QUARTILES, of, strict=True)
    ]
    return [*aurocs, *distances]


def to_sheet(facts: dict[str, Any]) -> Sheet:
    rows = [
        [name, f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
        for name, value in facts["auroc"].items()
        for low, high in [facts["auroc_ci95"][name]]
    ]
    medians = ", ".join(
        f"{of[1]:.3g} {name}" for name, of in facts["quartiles"].items()
    )
    images = facts["images"]
    return Sheet(
        f"{facts['benchmark']}: FSSD in {facts['layer']}",
        ["score", "AUROC, %"],
        rows,
        [
            f"{images[IND]:,} in-distribution and {images[OOD]:,} OoD images; 95 % "
            f"intervals of new images; nothing is fitted. {told_of(facts)}.",
            f"Median of FSSD: {medians}.",
        ],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
