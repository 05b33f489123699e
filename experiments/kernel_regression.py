"""Is FSSD a kernel regression (Eq. 4)? Measured layer by layer, width by width.

  python -m experiments.kernel_regression --network perceptron --preset small
  python -m experiments.kernel_regression --network convnet --preset small

Trains networks in NTK parametrisation by plain SGD on FashionMNIST and compares, for
held-out images and for MNIST, the displacement F_T(x) − F_0(x) and FSSD with
  path         Σ_t ∂F/∂θ·Δθ, the kernel at the start of each step
  quadrature   the same with the kernel integrated along each step
  frozen       −Σ_m Θ_0(x, x_m) ν_m, the kernel before training
  infinite     √E‖Δ‖² of the infinitely wide network (perceptron and strided, squared
               loss, logits); its error is that of the lengths, image by image
Leaves OUT/kernel_regression/BENCHMARK-NETWORK-LOSS-SEED-DIGEST/ with metrics.json, the
table, the norms of every image and pictures. Killed, it goes on at its width.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from analysis import kernel_plots
from experiments import common, pages, tables
from experiments.kernel_forms import (
    TWINS,
    Data,
    Preset,
    Setup,
    draw,
    measure,
    rival,
)
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark

# The files whose code decides a number.
_ANALYSIS = (
    *("displacement", "dynamics", "infinite_width", "kernel_regression", "networks"),
    *("neural_tangents_compat", "ntk"),
)
SOURCES = (
    *("fssd_jax/**/*.py", "experiments/common.py", "experiments/kernel_forms.py"),
    *(f"analysis/{name}.py" for name in _ANALYSIS),
)
RATES = {"cross_entropy": 2.0, "squared": 1.0}
MATRIX = 5000  # training images whose kernel is decomposed
PRESETS = {
    "tiny": Preset(
        {"perceptron": (8, 32), "convnet": (2, 4), "strided": (2, 4)},
        *(40, 20, 6, 20, 30, 6, 4),
    ),
    "small": Preset(
        {
            "perceptron": (32, 128, 512, 2048),
            "convnet": (4, 8, 16, 32),
            "strided": (16, 32, 64, 128),
        },
        *(1000, 150, 800, 100, 1000, 20, 16),
    ),
    "paper": Preset(
        {
            "perceptron": (256, 1024, 4096, 16384),
            "convnet": (8, 16, 32, 64, 128),
            "strided": (16, 64, 256),
        },
        *(60_000, 2000, 14_000, 64, 1000, 100, 64),
    ),
}


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
        common.need_neural_tangents()
        if preset.train > MATRIX:
            raise InputError(
                f"the infinite-width form decomposes a matrix of all {preset.train:,} "
                f"training images, {MATRIX:,} at most; choose --preset small, or the "
                "loss cross_entropy, which leaves it out"
            )
    setup = Setup(config.network, config.loss, rate, config.nodes, preset)
    folder = common.writable(config.out / "kernel_regression")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair, ood = next(iter(benchmark.ood.items()))
    results = []
    for seed in config.seeds:
        data = draw(benchmark, preset, seed)
        deciding = {
            **setup._asdict(),
            "preset": preset._replace(widths={})._asdict(),
            "seed": seed,
            "data": [d.sha256 for d in (benchmark.train, benchmark.test, ood)],
            "code": common.code_digest(SOURCES),
            "versions": common.versions(),
            "device": [common.device(), common.available_cores()],
        }
        parts = common.writable(
            config.out / "scores" / f"kernel-{common.config_digest(deciding)}"
        )
        of_widths = {w: measured(setup, data, seed, w, parts) for w in widths}
        digest = common.config_digest([deciding, widths])
        name = f"{pair}-{config.network}-{config.loss}-{seed}-{digest}"
        facts = {"benchmark": pair, **deciding, "rival": rival(data)} | {
            "widths": {str(w): facts for w, (facts, _) in of_widths.items()}
        }
        norms = {w: norms for w, (_, norms) in of_widths.items()}
        with common.results_folder(folder / name) as target:
            write(target, config, facts, norms)
        results.append(facts)
        print(f"results: {folder / name}")
    sheet = to_sheet(config, results)
    if len(results) > 1:
        name = f"{pair}-{config.network}-{config.loss}-{common.config_digest(results)}"
        common.write_json(folder / f"{name}.json", results)
        for ending, as_text in tables.FORMATS.items():
            (folder / f"{name}.{ending}").write_text(as_text(sheet))
        print(f"all of them: {folder / name}.md, .csv, .tex and .json")
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 200), sheet)
    return results


def measured(setup: Setup, data: Data, seed: int, width: int, parts: Path):
    """Facts and norms of one width, perhaps those of an earlier run."""
    facts, norms = parts / f"{width}.json", parts / f"{width}.npz"
    if not facts.exists():
        print(f"{setup.network} of width {width}, seed {seed}", flush=True)
        found, arrays = measure(setup, data, seed, width)
        np.savez(norms, **arrays)  # pyright: ignore[reportArgumentType]
        common.write_json(facts, found)  # last: it says that both are whole
    with np.load(norms) as arrays:
        return json.loads(facts.read_text()), dict(arrays)


COLUMNS = {
    "error, path": "relative_error_path",
    "error, quadrature": "relative_error_quadrature",
    "error, frozen": "relative_error_frozen",
    "kernel drift": "kernel_drift",
    "r path, in": "pearson_path_ind",
    "r path, OoD": "pearson_path_ood",
    "r frozen, in": "pearson_frozen_ind",
    "r frozen, OoD": "pearson_frozen_ood",
    "offset share, in": "offset_share_ind",
    "offset share, OoD": "offset_share_ood",
    "moved share, in": "moved_share_ind",
    "moved share, OoD": "moved_share_ood",
    "AUROC FSSD": "auroc_fssd",
    "AUROC ‖Δ‖": "auroc_displacement",
    "AUROC frozen": "auroc_frozen",
    "AUROC offset": "auroc_offset",
    "AUROC untrained": "auroc_untrained",
    "AUROC infinite": "auroc_infinite",
    "error, infinite": "relative_error_infinite",
    "r infinite, ‖Δ‖": "pearson_infinite_displacement",
}


def to_sheet(config: Config, results: list[dict[str, Any]]) -> tables.Sheet:
    """A row for each width and layer; mean ± deviation over several seeds."""
    rows = []
    for width, of_width in results[0]["widths"].items():
        for layer in of_width["layers"]:
            cells = []
            for fact in COLUMNS.values():
                values = [
                    r["widths"][width]["layers"][layer].get(fact) for r in results
                ]
                cells.append("" if None in values else tables.mean_cell(values, ".3g"))
            rows.append([width, layer, *cells])
    seeds = ", ".join(str(r["seed"]) for r in results)
    accuracy = {
        width: 100 * np.mean([r["widths"][width]["test_accuracy"] for r in results])
        for width in results[0]["widths"]
    }
    trained = {
        width: 100 * np.mean([r["widths"][width]["train_accuracy"] for r in results])
        for width in results[0]["widths"]
    }
    reached = ", ".join(
        f"{trained[width]:.1f} and {a:.1f} % at {width}"
        for width, a in accuracy.items()
    )
    near = tables.mean_cell([r["rival"]["auroc"] for r in results], ".3g")
    some = results[0]
    return tables.Sheet(
        f"{some['benchmark']}, {config.network}, {config.loss}, seed {seeds}: Eq. (4)",
        ["width", "layer", *COLUMNS],
        rows,
        [
            f"{some['preset']['train']:,} training images, {some['preset']['points']} "
            f"test points of each set; SGD of rate {some['rate']:g}. "
            f"Accuracy in training and test {reached}. Errors are relative to the "
            "displacement; r: Pearson's, with FSSD, within each set; shares are of the "
            "mean of FSSD² within each set: offset + cross + moved = 1.",
            f"AUROC of the nearest training image in pixels, no network: {near}.",
        ],
    )


def write(target: Path, config: Config, facts, sizes: dict[int, Any]) -> None:
    """What one seed leaves: facts, table, every image's sizes, pictures."""
    arrays = {
        f"{width}/{name}": a for width, of in sizes.items() for name, a in of.items()
    }
    np.savez(target / "scores.npz", **arrays)
    widest = max(sizes)
    layers = list(facts["widths"][str(widest)]["layers"])
    title = f"{config.network} of width {widest}"
    of_layers = {int(w): of["layers"] for w, of in facts["widths"].items()}
    figures = {
        "forms": kernel_plots.forms(sizes[widest], layers, title),
        "width": kernel_plots.against_width(of_layers),
        "detectors": kernel_plots.detectors(of_layers),
    }
    options = dataclasses.asdict(config)
    pages.leave(target, options, facts, to_sheet(config, [facts]), figures)


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
