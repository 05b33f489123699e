"""The tangent kernel while a network is trained, and what moves a test image."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import fssd_jax
from analysis import kernel_dynamics, kernel_statistics, ntk, pixels
from analysis.contributions import Contributions
from analysis.dynamics import log_steps, make_loss_fn
from analysis.kernel_regression import PathForm
from experiments.harness import keys
from experiments.harness.keys import Use
from experiments.kernel_study.setting import NTK_NETWORKS, Data, block_size, draw
from fssd_jax import metrics, recipes, train
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.features import make_init_fn
from fssd_jax.outputs import FeatureFn, Variables

BATCH = 100  # images a step
LAYER = "logits"  # of the movement that is told apart by training images
TOP = 5  # training images told of each test image
WHEN = ("before", "after")  # training
PERMUTATIONS = 999  # of the labels
STATISTICS = ("drift", "distance", "effective_rank", "alignment", "alignment_floor")


class Run(NamedTuple):
    """A training run that can be repeated with another observer."""

    model: Any
    feature_fn: FeatureFn
    initial: Variables
    data: Data
    seed: int
    epochs: int
    rate: float

    @property
    def steps(self) -> int:
        return self.epochs * batches(self.data)

    def follow(self, on_step) -> train.Trained:
        return train.train(
            self.model,
            self.data.x,
            self.data.y,
            num_classes=self.model.num_classes,
            seed=self.seed,
            epochs=self.epochs,
            batch_size=BATCH,
            recipe=recipes.sgd(self.rate),
            initial=self.initial,
            on_step=on_step,
        )


def batches(data: Data) -> int:
    return len(data.x) // min(BATCH, len(data.x))


def begin(
    benchmark: Benchmark,
    seed: int,
    *,
    network: str,
    width: int,
    train: int,
    points: int,
    steps: int,
    rate: float,
) -> Run:
    """Images and a network, drawn by the seed.

    Args:
      network: see `NTK_NETWORKS`.
      width: units of a hidden layer, or channels of conv1.
      train: training images.
      points: images of each test set.
      steps: of plain SGD; whole epochs.
      rate: learning rate.
    """
    data = draw(benchmark, seed, train=train, points=points, noise=1)
    model = NTK_NETWORKS[network](
        width, benchmark.num_classes, benchmark.mean, benchmark.std
    )
    initial = make_init_fn(model)(jax.random.key(seed), data.x[:1])
    feature_fn = fssd_jax.make_feature_fn(model)
    epochs = -(-steps // batches(data))
    return Run(model, feature_fn, initial, data, seed, epochs, rate)


def measure(
    one: Run, *, kernel: int, moments: int, directions: int, examples: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train; the kernels on the way, and what moved some of the test images.

    Args:
      kernel: training images between which kernels are taken.
      moments: log-spaced steps at which the kernel is looked at.
      directions: of the output, for the trace of a wide layer's kernel.
      examples: test images of each set whose movement is told apart.

    Returns:
      Facts for metrics.json, and the arrays that they were taken from: "distances" and
      those of `of_layer` below the layer's name, of `told_apart` below "contributions".
    """
    path, kept = PathForm(one.feature_fn, one.data.points), {}
    at = log_steps(one.steps, moments)

    def on_step(step, before, after, *batch):
        path(step, before, after, *batch)
        if step in at:
            kept[step] = before

    trained = one.follow(on_step)
    kept[one.steps] = trained.variables
    x, y = one.data.x[:kernel], one.data.y[:kernel]
    distances = pixels.distances(one.data.points, x)
    nearest = pixels.nearest(x, one.data.points)
    arrays = {"distances": distances, "nearest_pixels": nearest, "classes": y}
    layers = {}
    for layer in one.model.feature_layers:
        layers[layer], found = of_layer(one, kept, layer, x, y, distances, directions)
        arrays |= {f"{layer}/{name}": a for name, a in found.items()}
    told, found = told_apart(one, np.asarray(path.value()[LAYER]), examples)
    arrays |= {f"contributions/{name}": a for name, a in found.items()}
    facts = {
        "steps": one.steps,
        "train_accuracy": float(trained.history[-1, 1]),
        "layers": layers,
        "auroc_pixels": metrics.auroc(*halves(nearest)),
        "contributions": told,
        "path_error": path.error(),
    }
    return facts, arrays


def halves(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In-distribution, OoD."""
    half = len(points) // 2
    return points[:half], points[half:]


def of_layer(
    one: Run,
    kept: Mapping[int, Variables],
    layer: str,
    x: np.ndarray,
    y: np.ndarray,
    distances: np.ndarray,
    directions: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Drift, alignment, similarity and RBF fit of one layer's trace kernel.

    Args:
      kept: step → the variables before it.
      x: [n, ...] training images of the classes `y` [n].
      distances: [image, n], of the points and these images.

    Returns:
      Facts, and the arrays "kernel" [moment, n, n] and, of the points with `x`, [image,
      n] "before/kernel", "before/cosine", and both after training.
    """
    shape = jax.eval_shape(one.feature_fn, one.initial, x)[layer].shape[1:]
    key = keys.fixed(Use.TANGENT_DIRECTIONS)
    options = {
        "directions": ntk.trace_directions(key, directions, math.prod(shape)),
        "batch_size": block_size(one.initial, len(x)),
    }
    sketch = partial(ntk.sketched_kernel, **options)
    own = partial(ntk.self_similarity, **options)
    steps = sorted(kept)
    # The first moment's is that before training.
    kernels = [sketch(one.feature_fn, kept[step], layer, x) for step in steps]
    null = partial(
        kernel_statistics.permutation_null,
        key=keys.fixed(Use.TANGENT_PERMUTATIONS),
        count=PERMUTATIONS,
    )
    told = [kernel_dynamics.statistics(kernels[0], k, y, null) for k in kernels]
    facts: dict[str, Any] = {
        "steps": steps,
        **{name: [getattr(of, name) for of in told] for name in STATISTICS},
        "debiased_alignment": [
            of.debiased_alignment._asdict() for of in told if of.debiased_alignment
        ],
    }
    arrays = {"kernel": np.stack(kernels)}
    for when, step in zip(WHEN, (steps[0], steps[-1]), strict=True):
        args = one.feature_fn, kept[step], layer
        kernel = sketch(*args, one.data.points, x)
        owns = own(*args, one.data.points), own(*args, x)
        cosine = ntk.normalised(kernel, *owns)
        ind, ood = halves(ntk.mean_similarity(cosine))
        facts[when] = {
            "rbf": ntk.rbf_fit(distances, cosine, affine=True)._asdict(),
            "plain_rbf": ntk.rbf_fit(distances, cosine)._asdict(),
            "auroc_similarity": metrics.auroc(*halves(ntk.mean_similarity(kernel))),
            "auroc_cosine": metrics.auroc(ind, ood),
            "mean_cosine": {"ind": float(ind.mean()), "ood": float(ood.mean())},
        }
        arrays[f"{when}/kernel"], arrays[f"{when}/cosine"] = kernel, cosine
    return facts, arrays


def told_apart(
    one: Run, moved: np.ndarray, examples: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The movement of some test images, as a sum over the training images.

    Args:
      moved: [image, dim], the path form of the points.
      examples: test images of each set.

    Returns:
      Facts, and the arrays "value" [tested, train], along the image's own movement;
      "length" [tested]; "tested" [tested, ...]; and of the training images that moved
      it most "top" [tested, k, ...], "classes" and "shares" [tested, k].
    """
    chosen = np.concatenate([half[:examples] for half in halves(np.arange(len(moved)))])
    length = np.linalg.norm(moved[chosen], axis=1, keepdims=True)
    tested = one.data.points[chosen]
    form = Contributions(
        one.feature_fn,
        make_loss_fn(one.model),
        LAYER,
        tested,
        moved[chosen] / length,
        one.data.x,
        one.rate,
    )
    one.follow(form)
    value = form.value()
    top = np.argsort(-value, axis=1)[:, :TOP]
    totals = value.sum(axis=1)
    positive = np.where(value > 0, value, 0).sum(axis=1)
    largest = np.cumsum(np.sort(value)[:, ::-1], axis=1)
    of_top = np.take_along_axis(value, top, 1)
    facts = {
        "length": length[:, 0],
        # Both are ‖path form‖.
        "largest_relative_error": np.abs(totals / length[:, 0] - 1).max(),
        "share_of_top": of_top.sum(axis=1) / positive,
        "needed_for_half": (largest < positive[:, None] / 2).sum(axis=1) + 1,
    }
    arrays = {
        "value": value,
        "length": length[:, 0],
        "tested": tested,
        "top": one.data.x[top],
        "classes": one.data.y[top],
        "shares": of_top / positive[:, None],
    }
    return facts, arrays
