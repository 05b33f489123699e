"""A detector without training: how far an infinitely wide network would move x.

  python -m experiments.infinite_width

E‖f_t(x) − f_0(x)‖² of the infinitely wide perceptron and convolutional network (Eq. 4
in expectation, squared), its share that is owed to the labels, and the whole relative
to E‖f_0(x)‖²; at several times ηt, all of them shown. Beside them what needs no kernel
of a network: the nearest training image in pixels, RBF kernel regression, brightness.
No method sees an OoD image. Leaves OUT/infinite_width/BENCHMARK-DIGEST/ with
metrics.json and the table.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge

from analysis import infinite_width
from analysis.networks import ConvNet, Perceptron
from experiments import common, pages, tables
from experiments.kernel_forms import Data, Preset, draw
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark

LENGTHS = (0.25, 0.5, 1.0)  # of the RBF, in medians of the distance between images


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["fmnist", "mnist", "digits"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    train: int = 1000
    """Training images; an n × n matrix is decomposed."""
    points: int = 500
    """Images of each test set."""
    times: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, float("inf"))
    """ηt: learning rate × steps of gradient descent on the mean squared loss."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the choice of images; there is nothing else to draw."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    if min(config.train, config.points) < 2 or not config.seeds or not config.times:
        raise InputError(
            "--train and --points: 2 or more; --seeds and --times: one or more"
        )
    common.need_neural_tangents()
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    ood = next(iter(benchmark.ood.values()))
    preset = Preset({}, config.train, config.points, *(1, 1, 1, 0, 0))
    networks = {
        "perceptron": Perceptron(
            1, benchmark.num_classes, benchmark.mean, benchmark.std
        ),
        "convnet": ConvNet(
            *(1, benchmark.num_classes, benchmark.mean, benchmark.std),
            strides=2,
            max_pool=False,
        ),
    }
    found: list[dict[str, float]] = []
    for seed in config.seeds:
        data = draw(benchmark, preset, seed)
        scores = without_network(data, benchmark.num_classes)
        for name, network in networks.items():
            print(f"seed {seed}: {name}", flush=True)
            scores |= of_network(name, network, data, config.times)
        half = len(data.points) // 2
        found.append({k: metrics.auroc(s[:half], s[half:]) for k, s in scores.items()})
    facts = {
        "benchmark": benchmark.name,
        "train": len(data.x),
        "points": half,
        "data": [d.sha256 for d in (benchmark.train, benchmark.test, ood)],
        "seeds": config.seeds,
        "auroc": {name: [of[name] for of in found] for name in found[0]},
        "versions": common.versions(),
        "device": common.device(),
    }
    own = ("fssd_jax/**/*.py", "analysis/infinite_width.py", "analysis/networks.py")
    code = common.code_digest((*own, "experiments/infinite_width.py"))
    digest = common.config_digest([dataclasses.asdict(config), code])
    folder = common.writable(config.out / "infinite_width")
    sheet = to_sheet(facts, config.times)
    with common.results_folder(folder / f"{benchmark.name}-{digest}") as target:
        pages.leave(target, _plain(config), facts, sheet, {})
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {folder / f'{benchmark.name}-{digest}'}")
    return facts


def of_network(name: str, network, data: Data, times) -> dict[str, np.ndarray]:
    """Scores of one twin, "NAME, WHAT, TIME" → [image]; higher = in-distribution."""
    train = infinite_width.kernels(network, data.x)
    targets = infinite_width.centred_one_hot(data.y, network.num_classes)
    ntk = infinite_width.kernels(network, data.points, data.x).ntk
    initial = infinite_width.initial_variance(network, data.points)
    scores = {f"{name}, E‖f_0‖²": initial}  # no movement at all
    readouts = infinite_width.readouts(train, targets, list(times))
    for time, readout in zip(times, readouts, strict=True):
        squares = infinite_width.expected_squared_displacement(readout, ntk)
        whole = squares.total
        relative = whole / (network.num_classes * initial)
        for what, score in zip(
            MEASURES, (whole, squares.labels, relative), strict=True
        ):
            scores[f"{name}, {what}, {time:g}"] = score
    return scores


MEASURES = ("E‖Δ‖²", "‖AY‖², the labels' part", "E‖Δ‖²/E‖f_0‖²")


def without_network(data: Data, num_classes: int) -> dict[str, np.ndarray]:
    """Rivals that see the same training images, and no network's kernel."""
    train, points = (x.reshape(len(x), -1) for x in (data.x, data.points))
    scores = {
        "nearest training image": -cdist(points, train).min(axis=1),
        "brightness": points.mean(axis=1),
    }
    between = cdist(train, train)
    median = np.median(between[np.triu_indices(len(train), 1)])
    targets = infinite_width.centred_one_hot(data.y, num_classes)
    for length in LENGTHS:
        gamma = 1 / (2 * (length * median) ** 2)
        model = KernelRidge(kernel="rbf", gamma=gamma).set_params(alpha=1e-3)
        model.fit(train, targets)
        moved = np.linalg.norm(model.predict(points), axis=1)
        scores[f"RBF regression, ℓ = {length:g} medians"] = moved
    return scores


def to_sheet(facts: dict[str, Any], times) -> tables.Sheet:
    """Rows of the twins, a column a time; then the rivals, which have no time."""
    cells = {
        name: tables.mean_cell([100 * a for a in of], ".1f")
        for name, of in facts["auroc"].items()
    }
    rows = [
        [f"{name}, {what}", *(cells[f"{name}, {what}, {t:g}"] for t in times)]
        for name in ("perceptron", "convnet")
        for what in MEASURES
    ]
    timeless = [n for n in cells if n.count(",") < 2 and not n.endswith("medians")]
    timeless += [n for n in cells if n.endswith("medians")]
    rows += [[f"control: {n}", cells[n], *[""] * (len(times) - 1)] for n in timeless]
    return tables.Sheet(
        f"{facts['benchmark']}: AUROC of the movement at infinite width",
        ["score", *(f"ηt = {t:g}" for t in times)],
        rows,
        [
            f"In %, mean and deviation over {len(facts['seeds'])} choices of "
            f"{facts['train']:,} training images and {facts['points']} of each test "
            "set. Labels used: those of the training images' classes; of OoD none, and "
            "nothing is chosen by them.",
        ],
    )


def _plain(config: Config) -> dict[str, Any]:
    """The options; an infinite time as text, because JSON has no such number."""
    options = dataclasses.asdict(config)
    return options | {"times": [f"{t:g}" for t in config.times]}


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
