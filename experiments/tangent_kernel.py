"""The tangent kernel while a network is trained: what it measures, and what moves F.

  fssd tangent_kernel
  fssd tangent_kernel --seeds 0 1 2

Of the small networks of experiments.kernel_regression, layer by layer: the kernel's
drift and its alignment with the labels over training; its similarity to the training
images, of in-distribution and of OoD images; the normalised kernel against ‖x − x_m‖
with an RBF fitted (the paper's remark after Eq. 4); and the training images that moved
a test image most. Leaves OUT/tangent_kernel/BENCHMARK-NETWORK-SEED-DIGEST/, a folder a
seed, with metrics.json, the table, the kernels in scores.npz, and pictures; of several
seeds one table, and a picture of drift and alignment with their range, above. A seed
whose folder is there is not measured again.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from analysis import kernel_plots
from experiments.harness import cli, files, results, sheets
from experiments.harness.records import Record, record, records
from experiments.harness.sheets import Sheet
from experiments.kernel_study import tangent
from experiments.kernel_study.tangent import LAYER, WHEN
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark


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
    seeds: tuple[int, ...] = (0,)
    """Of the weights, the order of the images, and the choice of images."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> list[dict[str, Any]]:
    sizes = (config.width, config.steps, config.moments, config.examples)
    if min(sizes) < 1 or not 2 <= config.kernel <= config.train:
        raise InputError(
            "--width, --steps, --moments, --examples: 1 or more; --kernel: 2 to --train"
        )
    if not config.seeds:
        raise InputError("--seeds: one or more")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    of_seeds = [one_seed(config, benchmark, seed) for seed in config.seeds]
    if len(of_seeds) > 1:
        results.leave_together(
            config.out / "tangent_kernel",
            f"{benchmark.name}-{config.network}",
            of_seeds,
            [row for facts in of_seeds for row in to_records(facts)],
            to_sheet(of_seeds),
            {"drift": kernel_plots.over_time([facts["layers"] for facts in of_seeds])},
        )
    return of_seeds


def one_seed(config: Config, benchmark: Benchmark, seed: int) -> dict[str, Any]:
    """Measure one seed, or read what was found; metrics.json's facts."""
    options = {k: v for k, v in dataclasses.asdict(config).items() if k != "seeds"}
    options |= {"seed": seed}
    place = results.place(
        config.out,
        "tangent_kernel",
        f"{benchmark.name}-{config.network}-{seed}",
        options,
        [benchmark.train, benchmark.test, next(iter(benchmark.ood.values()))],
        tangent,
    )
    alone = len(config.seeds) == 1  # several are one table
    if files.is_there(place.path):
        mend = "delete the folder, and it is measured again"
        facts = files.load_json(place.path / "metrics.json", mend)
        if alone:
            sheets.show([to_sheet([facts])])
        results.tell(place.path)
        return facts
    one = tangent.begin(
        benchmark,
        seed,
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
    facts = {k: v for k, v in options.items() if k not in results.PLACES}
    facts |= {"benchmark": benchmark.name, **measured}
    figures = draw_figures(facts, arrays)
    tables = [to_sheet([facts])]
    results.leave(place, facts, to_records(facts), tables, figures, arrays, show=alone)
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


def to_sheet(of_seeds: Sequence[dict[str, Any]]) -> Sheet:
    """A row for each layer; mean ± deviation over several seeds."""
    some = of_seeds[0]
    mean = sheets.mean_cell
    rows = []
    for layer in some["layers"]:
        told = [facts["layers"][layer] for facts in of_seeds]

        def over_time(name: str, form: str, told=told) -> list[str]:
            """Before training and after it."""
            return [mean([of[name][i] for of in told], form) for i in (0, -1)]

        def debiased(name: str, form: str, told=told) -> list[str]:
            found = [of["debiased_alignment"] for of in told]
            return [mean([of[i][name] for of in found], form) for i in (0, -1)]

        def at_ends(*path: str, form: str, scale: int = 1, told=told) -> Iterator[str]:
            for when in WHEN:
                values = [reduce(getitem, path, of[when]) for of in told]
                yield mean([scale * value for value in values], form)

        rows.append(
            [
                layer,
                over_time("drift", ".2f")[1],
                over_time("distance", ".2f")[1],
                *over_time("alignment", ".2f"),
                *over_time("alignment_floor", ".2f"),
                *debiased("value", ".2f"),
                *debiased("p_value", ".3f"),
                *over_time("effective_rank", ".1f"),
                *at_ends("plain_rbf", "r2", form=".2f"),
                *at_ends("rbf", "r2", form=".2f"),
                *at_ends("rbf", "spearman", form=".2f"),
                *at_ends("auroc_cosine", form=".1f", scale=100),
                *at_ends("auroc_similarity", form=".1f", scale=100),
            ]
        )
    seeds = ", ".join(str(facts["seed"]) for facts in of_seeds)
    pixels = mean([100 * facts["auroc_pixels"] for facts in of_seeds], ".1f")
    error = mean([100 * facts["path_error"][LAYER] for facts in of_seeds], ".3g")
    return Sheet(
        f"{some['benchmark']}, {some['network']} of width {some['width']}: kernels",
        [
            "layer",
            "drift",
            "distance",
            *(f"{p}, {when}" for p in PAIRS for when in WHEN),
        ],
        rows,
        [
            f"{some['kernel']} training images, {some['kernel']} of each test set, "
            f"seed {seeds}; before and after {some['steps']} steps. AUROC in "
            "%, of the mean similarity to the training images: of the normalised "
            "kernel, and of the kernel. By the nearest of these training images in "
            f"pixels: {pixels}. RBF, and Spearman's "
            "correlation, of the normalised kernel and ‖x − x_m‖, over the images of "
            "both test sets. Drift: ‖Θ_T − Θ_0‖/‖Θ_0‖; distance: 1 less their cosine. "
            "Alignment: centred, with the labels, its mean over permuted labels (the "
            "floor), debiased, and p by permutations. The movement that is told apart "
            "by training images is the path form with the kernel of each step's "
            f"start, of which {error} % is error in the {LAYER}.",
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
        "drift": kernel_plots.over_time([layers]),
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
