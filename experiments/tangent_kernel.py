"""The tangent kernel while a network is trained: what it measures, and what moves F.

  fssd tangent_kernel

Of the small networks of experiments.kernel_regression, layer by layer: the kernel's
drift and its alignment with the labels over training; its similarity to the training
images, of in-distribution and of OoD images; the normalised kernel against ‖x − x_m‖
with an RBF fitted (the paper's remark after Eq. 4); and the training images that moved
a test image most. Leaves OUT/tangent_kernel/BENCHMARK-NETWORK-SEED-DIGEST/ with
metrics.json, the table, the kernels in scores.npz, and pictures.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from analysis import kernel_plots
from experiments.harness import cli, results
from experiments.harness.records import Record, record, records
from experiments.harness.sheets import Sheet
from experiments.kernel_study import tangent
from experiments.kernel_study.tangent import LAYER, WHEN
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["fmnist", "mnist", "digits"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    network: Literal["perceptron", "convnet"] = "convnet"
    """Two hidden layers, or LeNet's shape; both in NTK parametrisation."""
    width: int = 16
    """Units of a hidden layer, or channels of conv1."""
    train: int = 1000
    """Training images."""
    kernel: int = 50
    """Of them, those between which kernels are taken; and images of each test set."""
    steps: int = 800
    """Of plain SGD with cross-entropy, in batches of 100; whole epochs."""
    rate: float = 2.0
    """Learning rate."""
    moments: int = 8
    """Log-spaced steps at which the kernel is looked at."""
    directions: int = 16
    """Random directions of the output, for the trace of a wide layer's kernel."""
    examples: int = 3
    """Test images of each set whose movement is told apart by training images."""
    seed: int = 0
    """Of the weights, the order of the images, and the choice of images."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    sizes = (config.width, config.steps, config.moments, config.examples)
    if min(sizes) < 1 or not 2 <= config.kernel <= config.train:
        raise InputError(
            "--width, --steps, --moments, --examples: 1 or more; --kernel: 2 to --train"
        )
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    place = results.place(
        config.out,
        "tangent_kernel",
        f"{benchmark.name}-{config.network}-{config.seed}",
        dataclasses.asdict(config),
        [benchmark.train, benchmark.test, next(iter(benchmark.ood.values()))],
        tangent,
    )
    one = tangent.begin(
        benchmark,
        config.seed,
        network=config.network,
        width=config.width,
        train=config.train,
        points=config.kernel,
        steps=config.steps,
        rate=config.rate,
    )
    measured, arrays = tangent.measure(
        one,
        kernel=config.kernel,
        moments=config.moments,
        directions=config.directions,
        examples=config.examples,
    )
    options = dataclasses.asdict(config)
    facts = {k: v for k, v in options.items() if k not in results.PLACES}
    facts |= {"benchmark": benchmark.name, **measured}
    figures = draw_figures(facts, arrays)
    numbers = to_records(facts)
    results.leave(place, facts, numbers, [to_sheet(facts)], figures, arrays)
    return facts


def to_records(facts: dict[str, Any]) -> list[Record]:
    """Of kernels by layer and step; of movements, `draw` is the test image."""
    keys = {k: facts[k] for k in ("benchmark", "network", "width", "seed")}
    keys["train_images"] = facts["train"]
    end = {"step": facts["steps"], **keys}
    near = {"method": "control: nearest in pixels", **keys}
    numbers = [
        record("accuracy", facts["train_accuracy"], set="training", **end),
        record("AUROC", facts["auroc_pixels"], **near),
    ]
    for layer, of in facts["layers"].items():
        error = {"relative error": facts["path_error"].get(layer)}
        numbers += records(error, method="path", layer=layer, **end)
        for i, step in enumerate(of["steps"]):
            told = {word: of[name][i] for name, word in STATISTICS.items()}
            debiased = of["debiased_alignment"][i]
            told |= {"debiased kernel alignment": debiased["value"]}
            told |= {"p": debiased["p_value"]}
            known = {word: v for word, v in told.items() if np.isfinite(v)}
            numbers += records(known, layer=layer, step=step, **keys)
        for when, step in zip(WHEN, (of["steps"][0], of["steps"][-1]), strict=True):
            at = {"layer": layer, "step": step, **keys}
            numbers += of_kernel(of[when], **at)
    told = facts["contributions"]
    half = len(told["length"]) // 2
    for i, length in enumerate(told["length"]):
        of_image = {
            "length of movement": length,
            "share of top": told["share_of_top"][i],
            "images for half": told["needed_for_half"][i],
        }
        where = {"set": "in-distribution" if i < half else "OoD", "layer": LAYER}
        numbers += records(of_image, draw=i, **where, **end)
    return numbers


def of_kernel(told: dict[str, Any], **keys) -> list[Record]:
    fit = told["rbf"]
    of_fit = {
        "R² of a·RBF + b": fit["r2"],
        "RBF length": fit["length"],
        "spearman with distance": fit["spearman"],
        "R² of RBF": told["plain_rbf"]["r2"],
    }
    mean = told["mean_cosine"]
    return [
        *records(of_fit, **keys),
        record("AUROC", told["auroc_similarity"], method="kernel", **keys),
        record("AUROC", told["auroc_cosine"], method="normalised kernel", **keys),
        *(
            record("normalised kernel", mean[part], set=s, statistic="mean", **keys)
            for part, s in (("ind", "in-distribution"), ("ood", "OoD"))
        ),
    ]


# Of a kernel → the records' word.
STATISTICS = {
    "drift": "kernel drift",
    "distance": "kernel distance",
    "effective_rank": "effective rank",
    "alignment": "kernel alignment",
    "alignment_floor": "floor of kernel alignment",
}
# What the columns are called before "before" and "after".
ALIGNMENT, FIT, COSINE = "debiased alignment", "R² of a·RBF+b", "AUROC, cosine"
PAIRS = (
    "alignment",
    "its floor",
    ALIGNMENT,
    "p",
    "effective rank",
    "R² of RBF",
    FIT,
    "Spearman",
    COSINE,
    "AUROC, kernel",
)
SHOWN = (ALIGNMENT, FIT, COSINE)  # on the screen


def to_sheet(facts: dict[str, Any]) -> Sheet:
    rows = []
    for layer, of in facts["layers"].items():
        ends = [of[when] for when in WHEN]
        rows.append(
            [
                layer,
                f"{of['drift'][-1]:.2f}",
                f"{of['distance'][-1]:.2f}",
                *(f"{of['alignment'][i]:.2f}" for i in (0, -1)),
                *(f"{of['alignment_floor'][i]:.2f}" for i in (0, -1)),
                *(f"{of['debiased_alignment'][i]['value']:.2f}" for i in (0, -1)),
                *(f"{of['debiased_alignment'][i]['p_value']:.3f}" for i in (0, -1)),
                *(f"{of['effective_rank'][i]:.1f}" for i in (0, -1)),
                *(f"{end['plain_rbf']['r2']:.2f}" for end in ends),
                *(f"{end['rbf']['r2']:.2f}" for end in ends),
                *(f"{end['rbf']['spearman']:.2f}" for end in ends),
                *(f"{100 * end['auroc_cosine']:.1f}" for end in ends),
                *(f"{100 * end['auroc_similarity']:.1f}" for end in ends),
            ]
        )
    return Sheet(
        f"{facts['benchmark']}, {facts['network']} of width {facts['width']}: kernels",
        [
            "layer",
            "drift",
            "distance",
            *(f"{p}, {when}" for p in PAIRS for when in WHEN),
        ],
        rows,
        [
            f"{facts['kernel']} training images, {facts['kernel']} of each test set, "
            f"seed {facts['seed']}; before and after {facts['steps']} steps. AUROC in "
            "%, of the mean similarity to the training images: of the normalised "
            "kernel, and of the kernel. By the nearest of these training images in "
            f"pixels: {100 * facts['auroc_pixels']:.1f}. RBF, and Spearman's "
            "correlation, of the normalised kernel and ‖x − x_m‖, over the images of "
            "both test sets. Drift: ‖Θ_T − Θ_0‖/‖Θ_0‖; distance: 1 less their cosine. "
            "Alignment: centred, with the labels, its mean over permuted labels (the "
            "floor), debiased, and p by permutations. The movement that is told apart "
            "by training images is the path form with the kernel of each step's "
            "start, of which "
            f"{100 * facts['path_error'][LAYER]:.3g} % is error in the {LAYER}.",
        ],
        ("layer", "distance", *(f"{p}, {when}" for p in SHOWN for when in WHEN)),
    )


def draw_figures(
    facts: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    """name → picture, of the arrays of `tangent.measure`."""
    layers = facts["layers"]
    cosines = {
        layer: {when: arrays[f"{layer}/{when}/cosine"] for when in WHEN}
        for layer in layers
    }
    return {
        "drift": kernel_plots.over_time(layers),
        "rbf": kernel_plots.against_distance(layers, arrays["distances"], cosines),
        "contributions": kernel_plots.moved_by(
            arrays["contributions/tested"],
            arrays["contributions/top"],
            arrays["contributions/classes"],
            arrays["contributions/shares"],
        ),
    }


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
