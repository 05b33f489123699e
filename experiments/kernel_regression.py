"""Is FSSD a kernel regression (Eq. 4)? Measured layer by layer, width by width.

  fssd kernel_regression --network perceptron --preset small
  fssd kernel_regression --network convnet --preset small

Trains networks in NTK parametrisation by plain SGD on FashionMNIST and compares, for
held-out images and for MNIST, the displacement F_T(x) − F_0(x) and FSSD with
  path         Σ_t ∂F/∂θ·Δθ, the kernel at the start of each step
  quadrature   the same with the kernel integrated along each step
  frozen       −Σ_m Θ_0(x, x_m) ν_m, the kernel before training
  infinite     √E‖Δ‖² of the infinitely wide network (perceptron and strided, squared
               loss, logits); its error is that of the lengths, image by image
Leaves OUT/kernel_regression/BENCHMARK-NETWORK-LOSS-SEED-DIGEST/, a folder a seed, with
metrics.json, the table, the sizes of every image's forms in scores.npz, and pictures;
of several seeds one table and the pictures with their range above.
Killed, it goes on at its width.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from analysis import kernel_plots
from experiments.harness import cli, files, results, sheets
from experiments.harness.sheets import Sheet
from experiments.kernel_study import forms, records
from experiments.kernel_study.forms import Sizes
from experiments.kernel_study.kept import measured
from experiments.kernel_study.setting import PRESETS, TWINS, Setup, draw
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark

RATES = {"cross_entropy": 2.0, "squared": 1.0}
MATRIX = 5000  # training images whose kernel is decomposed


@dataclasses.dataclass(frozen=True)
class Config:
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: minutes to an hour on two cores, 1,000
    training images. paper: all images, for an accelerator."""
    benchmark: Literal["fmnist", "mnist", "digits"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    network: Literal["perceptron", "convnet", "strided"] = "perceptron"
    """Two hidden layers, LeNet's shape, or that with strides in place of max-pooling,
    which has an infinitely wide twin; all in NTK parametrisation."""
    loss: Literal["cross_entropy", "squared"] = "cross_entropy"
    """The paper allows both; the infinite-width form is for the squared loss."""
    widths: tuple[int, ...] | None = None
    """Units of a hidden layer, or channels of conv1; by default the preset's."""
    steps: int | None = None
    """Of plain SGD; by default the preset's."""
    rate: float | None = None
    """Learning rate; in NTK parametrisation one serves all widths. By default 2 for
    cross-entropy and 1 for the squared loss, which reach an accuracy in training of
    about 95 % or more in the small preset's steps."""
    nodes: int = 2
    """Of the Gauss–Legendre quadrature along each step; 0 leaves it out."""
    seeds: tuple[int, ...] = (0,)
    """Of the weights, the order of the images, and the choice of images."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> list[dict[str, Any]]:
    setup, widths = chosen(config)
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    facts = [one_seed(config, setup, widths, benchmark, s) for s in config.seeds]
    if len(facts) > 1:
        name = f"{facts[0]['benchmark']}-{config.network}-{config.loss}"
        folder = config.out / "kernel_regression"
        numbers = [row for of_seed in facts for row in records.of_seed(of_seed)]
        told = facts, numbers, to_sheet(facts), by_width(facts)
        results.leave_together(folder, name, *told)
    return facts


def chosen(config: Config) -> tuple[Setup, tuple[int, ...]]:
    """What the options ask for, and the widths; `InputError` if that cannot be."""
    preset = PRESETS[config.preset]
    if config.steps is not None:
        preset = preset._replace(steps=config.steps)
    rate = RATES[config.loss] if config.rate is None else config.rate
    widths = config.widths or preset.widths[config.network]
    if min(widths) < 1 or preset.steps < 1 or not rate > 0 or config.nodes < 0:
        raise InputError("--widths, --steps: 1 or more; --rate > 0; --nodes: 0 or more")
    if not config.seeds:
        raise InputError("--seeds: one or more")
    if config.network in TWINS and config.loss == "squared":
        cli.need_neural_tangents()
        if preset.train > MATRIX:
            raise InputError(
                f"the infinite-width form decomposes a matrix of all {preset.train:,} "
                f"training images, {MATRIX:,} at most; choose --preset small, or the "
                "loss cross_entropy, which leaves it out"
            )
    return Setup(config.network, config.loss, rate, config.nodes, preset), widths


def one_seed(
    config: Config,
    setup: Setup,
    widths: tuple[int, ...],
    benchmark: Benchmark,
    seed: int,
) -> dict[str, Any]:
    """Measure every width, and leave the folder of one seed; metrics.json's facts."""
    preset = setup.preset
    pair, ood = next(iter(benchmark.ood.items()))
    options = {
        "benchmark": config.benchmark,
        **setup._asdict(),
        # Of the widths those that are measured count, and not in the parts.
        "preset": preset._replace(widths={})._asdict(),
        "seed": seed,
    }
    origin = (benchmark.train, benchmark.test, ood), forms
    parts = results.place(config.out, "scores", "kernel", options, *origin)
    whole = results.place(
        config.out,
        "kernel_regression",
        f"{pair}-{config.network}-{config.loss}-{seed}",
        {**options, "widths": widths},
        *origin,
    )
    data = draw(
        benchmark, seed, train=preset.train, points=preset.points, noise=preset.noise
    )
    folder = files.writable(parts.path)
    of_widths = {w: measured(setup, data, seed, w, folder) for w in widths}
    sizes = {width: of_width for width, (_, of_width) in of_widths.items()}
    nearest, near = forms.rival(data)
    facts = {
        "benchmark": pair,
        **setup._asdict(),
        "preset": options["preset"],
        "seed": seed,
        "nearest_pixels": nearest,
        "widths": {str(width): of_width for width, (of_width, _) in of_widths.items()},
    }
    arrays = {f"{w}/{name}": size for w in sizes for name, size in sizes[w].items()}
    results.leave(
        whole,
        facts,
        records.of_seed(facts),
        [to_sheet([facts])],
        draw_figures(facts, sizes),
        {**arrays, "nearest_pixels": near},
        show=len(config.seeds) == 1,  # several are one table
    )
    return facts


# heading → where the number is in what is told of a layer
COLUMNS = {
    "error, path": ("forms", "path", "relative_error"),
    "error, quadrature": ("forms", "quadrature", "relative_error"),
    "error, frozen": ("forms", "frozen", "relative_error"),
    "kernel drift": ("kernel_drift",),
    "r path, in": ("forms", "path", "with_fssd", "pearson", "ind"),
    "r path, OoD": ("forms", "path", "with_fssd", "pearson", "ood"),
    "r frozen, in": ("forms", "frozen", "with_fssd", "pearson", "ind"),
    "r frozen, OoD": ("forms", "frozen", "with_fssd", "pearson", "ood"),
    "offset share, in": ("shares", "offset", "ind"),
    "offset share, OoD": ("shares", "offset", "ood"),
    "moved share, in": ("shares", "moved", "ind"),
    "moved share, OoD": ("shares", "moved", "ood"),
    "offset share, F* moving, in": ("shares_moving", "offset", "ind"),
    "offset share, F* moving, OoD": ("shares_moving", "offset", "ood"),
    "moved share, F* moving, in": ("shares_moving", "moved", "ind"),
    "moved share, F* moving, OoD": ("shares_moving", "moved", "ood"),
    "AUROC FSSD": ("forms", "fssd", "auroc"),
    "AUROC ‖Δ‖": ("forms", "displacement", "auroc"),
    "AUROC ‖Δ − Δ*‖": ("forms", "relative", "auroc"),
    "AUROC frozen": ("forms", "frozen", "auroc"),
    "AUROC offset": ("forms", "offset", "auroc"),
    "AUROC untrained": ("forms", "untrained", "auroc"),
    "AUROC infinite": ("forms", "infinite", "auroc"),
    "error, infinite": ("forms", "infinite", "relative_error"),
    "r infinite, ‖Δ‖": ("forms", "infinite", "with_displacement", "pearson", "all"),
}
INFINITE = "AUROC infinite"


def screen(several: bool, infinite: bool) -> tuple[str, ...]:
    """Headings of the columns that the screen has room for.

    Args:
      several: seeds, of which mean and deviation are shown.
      infinite: whether the infinitely wide network is known.
    """
    shown = {"error, frozen", "AUROC FSSD", "AUROC frozen"}
    shown |= {INFINITE} if infinite else {"kernel drift"}
    if not several:
        shown |= {"error, path", "kernel drift", "AUROC ‖Δ‖"}
    return ("width", "layer", *(name for name in COLUMNS if name in shown))


def to_sheet(of_seeds: Sequence[dict[str, Any]]) -> Sheet:
    """A row for each width and layer; mean ± deviation over several seeds."""
    some = of_seeds[0]
    headings, rows = ["width", "layer", *COLUMNS], []
    for width, of_width in some["widths"].items():
        for layer in of_width["layers"]:
            same = [facts["widths"][width]["layers"][layer] for facts in of_seeds]
            rows.append([width, layer, *(cell(same, at) for at in COLUMNS.values())])
    seeds = ", ".join(str(facts["seed"]) for facts in of_seeds)
    reached = ", ".join(
        f"{accuracy(of_seeds, width, 'train_accuracy'):.1f} and "
        f"{accuracy(of_seeds, width, 'test_accuracy'):.1f} % at {width}"
        for width in some["widths"]
    )
    near = [facts["nearest_pixels"]["auroc"] for facts in of_seeds]
    return Sheet(
        f"{some['benchmark']}, {some['network']}, {some['loss']}, seed {seeds}: "
        "Eq. (4)",
        headings,
        rows,
        [
            f"{some['preset']['train']:,} training images, {some['preset']['points']} "
            f"test points of each set; SGD of rate {some['rate']:g}. "
            f"Accuracy in training and test {reached}. Errors are relative to the "
            "displacement; r: Pearson's, with FSSD, within each set; shares are of the "
            "mean of FSSD² within each set: offset + cross + moved = 1, relative to "
            "F* after training, or to F* as it moves: FSSD² = ‖(F_0 − F*_0) + "
            "(Δ − Δ*)‖².",
            "AUROC of the nearest training image in pixels, no network: "
            f"{sheets.mean_cell(near, '.3g')}.",
        ],
        screen(len(of_seeds) > 1, any(row[headings.index(INFINITE)] for row in rows)),
    )


def cell(layers: Sequence[dict[str, Any]], path: tuple[str, ...]) -> str:
    """Of one layer in several runs; empty where it was not, or cannot be, measured."""
    values = [number(layer, path) for layer in layers]
    known = [value for value in values if value is not None]
    return sheets.mean_cell(known, ".3g") if len(known) == len(values) else ""


def number(facts: Any, path: tuple[str, ...]) -> float | None:
    for key in path:
        if key not in facts:
            return None
        facts = facts[key]
    return facts


def accuracy(of_seeds: Sequence[dict[str, Any]], width: str, of: str) -> float:
    """The mean over the seeds, in %."""
    return float(100 * np.mean([facts["widths"][width][of] for facts in of_seeds]))


def draw_figures(facts: dict[str, Any], sizes: dict[int, Sizes]) -> dict[str, Figure]:
    """Of one seed: name → picture."""
    widest = max(sizes)
    layers = list(facts["widths"][str(widest)]["layers"])
    title = f"{facts['network']} of width {widest}"
    forms_ = kernel_plots.forms(sizes[widest], layers, title)
    return {"forms": forms_, **by_width([facts])}


def by_width(of_seeds: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """Name → picture, of one seed or of several."""
    runs = [
        {int(width): of["layers"] for width, of in facts["widths"].items()}
        for facts in of_seeds
    ]
    return {
        "width": kernel_plots.against_width(runs),
        "detectors": kernel_plots.detectors(runs),
    }


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
