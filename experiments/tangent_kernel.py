"""The tangent kernel while a network is trained: what it measures, and what moves F.

  python -m experiments.tangent_kernel

Of the small networks of experiments.kernel_regression, layer by layer: the kernel's
drift and its alignment with the labels over training; its similarity to the training
images, of in-distribution and of OoD images; the normalised kernel against ‖x − x_m‖
with an RBF fitted (the paper's remark after Eq. 4); and the training images that moved
a test image most. Leaves OUT/tangent_kernel/BENCHMARK-NETWORK-SEED-DIGEST/ with
metrics.json, the table and pictures.
"""

import dataclasses
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console
from scipy.spatial.distance import cdist

import fssd_jax
from analysis import kernel_plots, ntk
from analysis.contributions import Contributions
from analysis.dynamics import log_steps, make_loss_fn
from analysis.kernel_regression import PathForm
from experiments import common, pages, tables
from experiments.kernel_forms import GRADIENTS, NETWORKS, Data, Preset, draw
from fssd_jax import metrics, train
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.features import FeatureFn, Variables

BATCH = 100  # images a step
LAYER = "logits"  # of the movement that is told apart by training images
SHOWN = 5  # training images beside each test image


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


class Run(NamedTuple):
    """A training run that can be repeated with another observer."""

    model: Any
    feature_fn: FeatureFn
    initial: Variables
    data: Data
    config: Config

    @property
    def batches(self) -> int:
        return len(self.data.x) // min(BATCH, len(self.data.x))

    @property
    def epochs(self) -> int:
        return -(-self.config.steps // self.batches)

    def follow(self, on_step) -> train.Trained:
        return train.train(
            self.model,
            self.data.x,
            self.data.y,
            num_classes=self.model.num_classes,
            seed=self.config.seed,
            epochs=self.epochs,
            batch_size=BATCH,
            recipe=lambda epochs, steps: optax.sgd(self.config.rate),
            initial=self.initial,
            on_step=on_step,
        )


def run(config: Config) -> dict[str, Any]:
    sizes = (config.width, config.steps, config.moments, config.examples)
    if min(sizes) < 1 or not 2 <= config.kernel <= config.train:
        raise InputError(
            "--width, --steps, --moments, --examples: 1 or more; --kernel: 2 to --train"
        )
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    preset = Preset({}, config.train, config.kernel, *(config.steps, BATCH, 1, 0, 0))
    data = draw(benchmark, preset, config.seed)
    model = NETWORKS[config.network](
        config.width, benchmark.num_classes, benchmark.mean, benchmark.std
    )
    initial = jax.jit(model.init)(jax.random.key(config.seed), data.x[:1])
    one = Run(model, fssd_jax.make_feature_fn(model), initial, data, config)

    path, kept = PathForm(one.feature_fn, data.points), {}
    total = one.epochs * one.batches
    at = log_steps(total, config.moments)

    def on_step(step, before, after, *batch):
        path(step, before, after, *batch)
        if step in at:
            kept[step] = before

    trained = one.follow(on_step)
    kept[total] = trained.variables
    facts = {
        "benchmark": benchmark.name,
        **{k: v for k, v in dataclasses.asdict(config).items() if k not in _PLACES},
        "steps": total,
        "data": [d.sha256 for d in (benchmark.train, benchmark.test)],
        "train_accuracy": float(trained.history[-1, 1]),
        "layers": {layer: of_layer(one, kept, layer) for layer in model.feature_layers},
        "versions": common.versions(),
        "device": common.device(),
    }
    examples = told_apart(one, np.asarray(path.value()[LAYER]))
    facts["contributions"] = examples["facts"]
    write(config, facts, examples)
    return facts


_PLACES = ("out", "data_dir")


def of_layer(one: Run, kept: dict[int, Variables], layer: str) -> dict[str, Any]:
    """Drift, alignment, similarity and RBF fit of one layer's trace kernel."""
    config, data = one.config, one.data
    x, y = data.x[: config.kernel], data.y[: config.kernel]
    shape = jax.eval_shape(one.feature_fn, one.initial, x)[layer].shape[1:]
    key = jax.random.key(0)
    directions = ntk.trace_directions(key, config.directions, math.prod(shape))
    parameters = sum(a.size for a in jax.tree.leaves(one.initial))
    block = max(1, min(len(x), GRADIENTS // parameters))
    sketch = partial(ntk.sketched_kernel, directions=directions, batch_size=block)
    own = partial(ntk.self_similarity, directions=directions, batch_size=block)
    found: dict[str, Any] = {"steps": sorted(kept), "drift": [], "alignment": []}
    start = sketch(one.feature_fn, one.initial, layer, x)
    for step in found["steps"]:
        kernel = sketch(one.feature_fn, kept[step], layer, x)
        found["drift"].append(ntk.drift(start, kernel))
        found["alignment"].append(ntk.alignment(kernel, y))
    distances = cdist(data.points.reshape(2 * len(x), -1), x.reshape(len(x), -1))
    half = len(data.points) // 2
    for name, variables in (("before", one.initial), ("after", kept[max(kept)])):
        args = one.feature_fn, variables, layer
        kernel = sketch(*args, data.points, x)
        owns = own(*args, data.points), own(*args, x)
        cosine = ntk.normalised(kernel, *owns)
        raw = ntk.mean_similarity(kernel)
        similar = ntk.mean_similarity(kernel, owns)
        found[name] = {
            "rbf": ntk.rbf_fit(distances, cosine, affine=True)._asdict(),
            "plain_rbf": ntk.rbf_fit(distances, cosine)._asdict(),
            "auroc_similarity": metrics.auroc(raw[:half], raw[half:]),
            "auroc_cosine": metrics.auroc(similar[:half], similar[half:]),
            "mean_cosine": [float(s.mean()) for s in (similar[:half], similar[half:])],
            # A part of the pairs is enough for a picture.
            "shown": [a[::5, ::10].round(4).tolist() for a in (distances, cosine)],
        }
    near = -distances.min(axis=1)
    found["auroc_pixels"] = metrics.auroc(near[:half], near[half:])
    return found


def told_apart(one: Run, moved: np.ndarray) -> dict[str, Any]:
    """The movement of some test images, as a sum over the training images."""
    count, half = one.config.examples, len(moved) // 2
    chosen = np.r_[:count, half : half + count]
    length = np.linalg.norm(moved[chosen], axis=1, keepdims=True)
    form = Contributions(
        one.feature_fn,
        make_loss_fn(one.model),
        LAYER,
        one.data.points[chosen],
        moved[chosen] / length,
        one.data.x,
        one.config.rate,
    )
    one.follow(form)
    value = form.value()
    order = np.argsort(-value, axis=1)
    top = order[:, :SHOWN]
    totals = value.sum(axis=1)
    positive = np.where(value > 0, value, 0).sum(axis=1)
    return {
        "facts": {
            "length": length[:, 0],
            # Both are ‖path form‖.
            "largest_relative_error": np.abs(totals / length[:, 0] - 1).max(),
            "share_of_top": np.take_along_axis(value, top, 1).sum(1) / positive,
            "needed_for_half": (np.cumsum(np.sort(value)[:, ::-1], 1)
                                < positive[:, None] / 2).sum(1) + 1,
        },
        "tested": one.data.points[chosen],
        "top": one.data.x[top],
        "classes": one.data.y[top],
        "shares": np.take_along_axis(value, top, 1) / positive[:, None],
    }  # fmt: skip


def to_sheet(facts: dict[str, Any]) -> tables.Sheet:
    rows = []
    for layer, of in facts["layers"].items():
        before, after = of["before"], of["after"]
        rows.append(
            [
                layer,
                f"{of['drift'][-1]:.2f}",
                *(f"{of['alignment'][i]:.2f}" for i in (0, -1)),
                *(f"{part['plain_rbf']['r2']:.2f}" for part in (before, after)),
                *(f"{part['rbf']['r2']:.2f}" for part in (before, after)),
                *(f"{part['rbf']['spearman']:.2f}" for part in (before, after)),
                *(f"{100 * part['auroc_cosine']:.1f}" for part in (before, after)),
                *(f"{100 * part['auroc_similarity']:.1f}" for part in (before, after)),
            ]
        )
    pixels = 100 * next(iter(facts["layers"].values()))["auroc_pixels"]
    pairs = ("alignment", "R² of RBF", "R² of a·RBF + b", "Spearman")
    pairs += ("AUROC, cosine", "AUROC, kernel")
    return tables.Sheet(
        f"{facts['benchmark']}, {facts['network']} of width {facts['width']}: kernels",
        ["layer", "drift", *(f"{p}, {w}" for p in pairs for w in ("before", "after"))],
        rows,
        [
            f"{facts['kernel']} training images, {facts['kernel']} of each test set, "
            f"seed {facts['seed']}; before and after {facts['steps']} steps. AUROC in "
            "%, of the mean similarity to the training images: of the normalised "
            "kernel, and of the kernel. By the nearest of these training images in "
            f"pixels: {pixels:.1f}. RBF, and Spearman's correlation, of the normalised "
            "kernel and ‖x − x_m‖, over the images of both test sets.",
        ],
    )


def write(config: Config, facts: dict[str, Any], examples: dict[str, Any]) -> None:
    own = ("fssd_jax/**/*.py", "analysis/*.py", "experiments/tangent_kernel.py")
    options = dataclasses.asdict(config)
    digest = common.config_digest([options, common.code_digest(own)])
    name = f"{facts['benchmark']}-{config.network}-{config.seed}-{digest}"
    folder = common.writable(config.out / "tangent_kernel")
    sheet = to_sheet(facts)
    with common.results_folder(folder / name) as target:
        figures = {
            "drift": kernel_plots.over_time(facts["layers"]),
            "rbf": kernel_plots.against_distance(facts["layers"]),
            "contributions": kernel_plots.moved_by(examples),
        }
        pages.leave(target, options, facts, sheet, figures)
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {folder / name}")


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
