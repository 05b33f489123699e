"""Figure 3: are features concentrated near F* before training?

  fssd figure3
  fssd figure3 --network cifar_resnet34 --seeds 0 1 2 --images 500 \\
      --in cifar10/test --ood fashion_mnist

For each layer of networks as they are drawn: root mean squared ‖F_0(x) − F*‖ / ‖F*‖
and the mean cosine with F*, for in-distribution images, OoD images and noise, beside
the same of the pixels themselves, and the AUROC of FSSD before training. A network with
BatchNorm is looked at twice: as it is drawn, when BatchNorm does nothing, and with the
statistics of in-distribution images, as training sees it at its first step. Leaves
OUT/figure3/BENCHMARK-NETWORK-DIGEST/ with metrics.json, the table, the numbers of every
image in scores.npz and, for the first seed, the picture. For a network of yours:
analysis.concentration.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from analysis import feature_plots
from experiments.harness import cli, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet, mean_cell
from experiments.kernel_study import untrained
from experiments.kernel_study.untrained import (
    DRAWN,
    IND,
    NOISE,
    NORMALISED,
    OOD,
    PIXELS,
    UNTRAINED_NETWORKS,
    WITH_STATISTICS,
    Found,
    Sets,
)
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark

COLOUR = ("cifar_resnet18", "cifar_resnet34")
SHORT = {IND: "in", OOD: "OoD", NOISE: "noise"}  # in headings
# Of the picture.
NAMES = {DRAWN: "figure3", WITH_STATISTICS: "figure3-statistics"}


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["mnist", "fmnist", "digits"] = "mnist"
    """mnist: MNIST in-distribution, FashionMNIST OoD, as in the paper's figure."""
    network: Literal["lenet", "mlp", "cifar_resnet18", "cifar_resnet34"] = "lenet"
    """LeNet, a three-layer perceptron, or a ResNet for 32×32 colour images, for which
    --in and --ood are needed."""
    width: int | None = None
    """Of a ResNet; by default 64."""
    ind: Annotated[Path | None, tyro.conf.arg(name="in")] = None
    """In-distribution images in place of the benchmark's: a folder, .npz or .npy."""
    ood: str | None = None
    """OoD images likewise, or the name of a data set, such as fashion_mnist, whose
    images are put on black and repeated in every colour."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Of the weights; the images are the same for all."""
    images: int = 1000
    """Of each set, drawn once."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    seeds = tuple(dict.fromkeys(config.seeds))  # each of them once
    config = dataclasses.replace(config, seeds=seeds)
    model, sets = chosen(config)
    # Not where images lie: their content counts.
    where = ("ind", "ood")
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in where}
    place = results.place(
        config.out,
        "figure3",
        f"{sets.pair}-{config.network}",
        options | {"model": repr(model)},
        sets.data,
        untrained,
    )
    found = untrained.look(model, sets, config.seeds)
    facts = {
        "benchmark": sets.pair,
        "network": repr(model),
        "seeds": config.seeds,
        "images": {name: len(x) for name, x in sets.probes.items()},
        "layers": untrained.summary(found.measured[DRAWN], found.layers),
    }
    if WITH_STATISTICS in found.measured:
        told = untrained.summary(found.measured[WITH_STATISTICS], found.layers)
        # The pixels know nothing of the statistics.
        facts["layers_with_statistics"] = {
            layer: of for layer, of in told.items() if layer not in (PIXELS, NORMALISED)
        }
    figures = {
        NAMES[kind]: feature_plots.concentration(panels, title(sets.pair, kind))
        for kind, panels in found.panels.items()
    }
    numbers = to_records(facts, network=config.network, width=config.width)
    results.leave(place, facts, numbers, to_sheets(facts), figures, to_arrays(found))
    return facts


def chosen(config: Config) -> tuple[Any, Sets]:
    """The network and the images; `InputError` if they do not fit each other."""
    if config.images < 2 or not config.seeds:
        raise InputError("--images: 2 or more; --seeds: one or more")
    network = UNTRAINED_NETWORKS[config.network]
    if config.network in COLOUR:
        if config.ind is None or config.ood is None:
            raise InputError(
                "the networks for colour images need --in and --ood: a folder of "
                "images each, such as CIFAR-10's"
            )
        sets = untrained.own_sets(
            config.ind, config.ood, config.images, config.data_dir
        )
        return network(width=config.width or 64), sets
    if config.ind is not None or config.ood is not None:
        raise InputError(
            "--in and --ood belong to the networks for colour images, "
            f"--network {' or '.join(COLOUR)}"
        )
    if config.width is not None:
        raise InputError("--width is for the ResNets")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    model = network(benchmark.num_classes, benchmark.mean, benchmark.std)
    return model, untrained.benchmark_sets(benchmark, config.images)


def title(pair: str, kind: str) -> str:
    ending = ", with statistics" if kind == WITH_STATISTICS else ""
    return f"{pair}, before training{ending}"


def to_arrays(found: Found) -> dict[str, np.ndarray]:
    """scores.npz: "KIND/QUANTITY/SET" [seed, image, layer], and the pictures' points.

    "KIND/picture/LAYER/SET" is [image, 2]; "F*", "origin" and what the plane shows of
    the variance, "share" and "of noise", stand beside the sets.
    """
    arrays = {"layers": np.array(found.layers)}
    for kind, measured in found.measured.items():
        arrays |= {f"{kind}/{name}": a for name, a in measured.items()}
        for layer, panel in found.panels[kind].items():
            shown = {**panel.points, "F*": panel.star, "origin": panel.origin}
            shares = {"share": panel.share, "of noise": panel.of_noise}
            shown |= {name: np.array(share) for name, share in shares.items()}
            arrays |= {f"{kind}/picture/{layer}/{name}": a for name, a in shown.items()}
    return arrays


def to_records(facts: Mapping[str, Any], **keys) -> list[Record]:
    """The condition is the kind of network: as drawn, or with statistics."""
    kinds = {DRAWN: "layers", WITH_STATISTICS: "layers_with_statistics"}
    numbers = []
    for kind, name in kinds.items():
        for layer, of_seeds in facts.get(name, {}).items():
            for seed, of in zip(facts["seeds"], of_seeds, strict=True):
                at = {"seed": seed, "condition": kind, "layer": layer, **keys}
                at["benchmark"] = facts["benchmark"]
                numbers.append(record("AUROC", of["auroc"], method="fssd", **at))
                for quantity, key in (
                    ("relative distance", "distance"),
                    ("cosine with F*", "cosine"),
                ):
                    for s, value in of[key].items():
                        numbers.append(record(quantity, value, set=s, **at))
    return numbers


def to_sheets(facts: Mapping[str, Any]) -> list[Sheet]:
    images = ", ".join(f"{n:,} {name}" for name, n in facts["images"].items())
    note = (
        f"{len(facts['seeds'])} networks; images: {images}. Distance: root mean "
        "squared ‖F(x) − F*‖ / ‖F*‖, 0 in one point; cosine: mean, with F*, 1 in one "
        "direction. AUROC of FSSD before training: far from 0.5, the sets are told "
        "apart already. The layers see the normalised pixels."
    )
    whole = f"{facts['benchmark']}, before training: how concentrated features are"
    sheets = [to_sheet(whole, facts["layers"], note)]
    if "layers_with_statistics" in facts:
        told = facts["layers_with_statistics"]
        also = "BatchNorm with the statistics of in-distribution images."
        sheets.append(to_sheet(f"{whole}, with statistics", told, also))
    return sheets


def to_sheet(heading: str, layers: Mapping[str, Any], note: str) -> Sheet:
    """A row a layer; mean ± deviation over the seeds."""
    first, *_ = layers.values()
    # Both quantities are of the same sets.
    columns = [(what, s) for what in ("distance", "cosine") for s in first[0][what]]
    rows = []
    for layer, of_seeds in layers.items():
        cells = [
            mean_cell([of[what][s] for of in of_seeds], ".2f") for what, s in columns
        ]
        cells.append(mean_cell([of["auroc"] for of in of_seeds], ".2f"))
        rows.append([layer, *cells])
    headings = ["layer", *(f"{what}, {SHORT[s]}" for what, s in columns), "AUROC"]
    several = len(first) > 1
    screen = [h for h in headings if not (several and h.endswith(SHORT[NOISE]))]
    return Sheet(heading, headings, rows, [note], tuple(screen))


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
