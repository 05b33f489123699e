"""One network followed through training, and measured against Eq. (4)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from scipy.stats import pearsonr, spearmanr
from sklearn.neighbors import NearestNeighbors

import fssd_jax
from analysis import infinite_width, ntk
from analysis.displacement import Terms, decompose, displacement
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.networks import ConvNet, Perceptron
from fssd_jax import losses, metrics, train
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.features import FeatureFn, Variables
from fssd_jax.fssd import distances

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "perceptron": Perceptron,
    "convnet": ConvNet,
    "strided": partial(ConvNet, strides=2, max_pool=False),
}
TWINS = ("perceptron", "strided")  # those with an infinitely wide twin
GRADIENTS = 2**28  # numbers in the gradients that are held at once: 1 GiB on a side
CORRELATIONS: dict[str, Callable] = {"pearson": pearsonr, "spearman": spearmanr}
LOSSES = {"cross_entropy": losses.cross_entropy, "squared": losses.squared}
_NOISE, _KERNEL, _TRAIN, _IND, _OOD = range(200, 205)  # what a key is for


class Preset(NamedTuple):
    widths: dict[str, tuple[int, ...]]  # of each network
    train: int  # images
    points: int  # images of each test set
    steps: int
    batch_size: int
    noise: int
    kernel: int  # training images between which the kernel's drift is measured
    directions: int  # of the output, for the trace of a wide layer's kernel


class Setup(NamedTuple):
    """What is the same for all seeds and widths."""

    network: str
    loss: str
    rate: float
    nodes: int  # of the quadrature; 0: none
    preset: Preset


class Data(NamedTuple):
    benchmark: Benchmark
    x: np.ndarray  # training images
    y: np.ndarray
    points: np.ndarray  # in-distribution, then as many OoD
    noise: jax.Array


def draw(benchmark: Benchmark, preset: Preset, seed: int) -> Data:
    """Images and noise, drawn by the seed; the points are never trained on."""

    def some(key, images, count):
        order = jax.random.permutation(_key(seed, key), len(images))
        return np.sort(np.asarray(order)[:count])

    chosen = some(_TRAIN, benchmark.train.x, preset.train)
    ind, ood = benchmark.test.x, next(iter(benchmark.ood.values())).x
    # As many of both, because whoever reads the points divides them in the middle.
    count = min(preset.points, len(ind), len(ood))
    points = [some(_IND, ind, count), some(_OOD, ood, count)]
    x = as_float(benchmark.train.x[chosen])
    return Data(
        benchmark,
        x,
        benchmark.train.y[chosen],
        np.concatenate([as_float(ind[points[0]]), as_float(ood[points[1]])]),
        fssd_jax.uniform_noise(_key(seed, _NOISE), preset.noise, x.shape[1:]),
    )


class Followed(NamedTuple):
    """One trained network, and what the forms of Eq. (4) say of the points."""

    model: nn.Module
    feature_fn: FeatureFn
    initial: Variables
    final: Variables
    history: np.ndarray
    forms: dict[str, dict[str, np.ndarray]]  # form → layer → [image, dim]


def follow(setup: Setup, data: Data, seed: int, width: int) -> Followed:
    """Train by plain SGD; the forms follow every step."""
    benchmark, loss = data.benchmark, LOSSES[setup.loss]
    model = NETWORKS[setup.network](
        width, benchmark.num_classes, benchmark.mean, benchmark.std
    )
    feature_fn = fssd_jax.make_feature_fn(model)
    initial = jax.jit(model.init)(jax.random.key(seed), data.x[:1])
    rules = {"path": 0} | ({"quadrature": setup.nodes} if setup.nodes else {})
    paths = {
        name: PathForm(feature_fn, data.points, nodes=nodes)
        for name, nodes in rules.items()
    }
    gradient_fn = make_gradient_fn(model, feature_fn, loss)
    frozen = FrozenForm(feature_fn, gradient_fn, initial, setup.rate)

    def on_step(*step):
        for form in (*paths.values(), frozen):
            form(*step)

    trained = train.train(
        model,
        data.x,
        data.y,
        num_classes=benchmark.num_classes,
        seed=seed,
        epochs=-(-setup.preset.steps // _batches(setup.preset, data)),
        batch_size=setup.preset.batch_size,
        recipe=lambda epochs, steps: optax.sgd(setup.rate),
        initial=initial,
        loss=loss,
        on_step=on_step,
    )
    forms = {name: dict(form.value()) for name, form in paths.items()}
    forms["frozen"] = dict(frozen.value(data.points))
    return Followed(
        model, feature_fn, initial, trained.variables, trained.history, forms
    )


def _batches(preset: Preset, data: Data) -> int:
    return len(data.x) // min(preset.batch_size, len(data.x))


def measure(setup: Setup, data: Data, seed: int, width: int):
    """Facts for metrics.json, and the size of each form, name → [image, layer]."""
    found = follow(setup, data, seed, width)
    feature_fn, initial, final = found.feature_fn, found.initial, found.final
    stars = [
        fssd_jax.estimate_singularity(feature_fn, variables, data.noise)
        for variables in (initial, final)
    ]
    terms = decompose(feature_fn, initial, final, stars[1], data.points)
    sizes = {
        "fssd": map_batches(_distances, feature_fn, final, stars[1], data.points),
        "displacement": np.sqrt(terms.moved),
        **{name: _sizes(form) for name, form in found.forms.items()},
        "cross": terms.cross,
        "offset": np.sqrt(terms.offset),
        "untrained": np.sqrt(
            decompose(feature_fn, initial, initial, stars[0], data.points).offset
        ),
    }
    steps = len(found.history) * _batches(setup.preset, data)
    if setup.network in TWINS and setup.loss == "squared":
        sizes["infinite"] = infinite(found.model, data, setup.rate * steps)
    moved = displacement(feature_fn, initial, final, data.points)
    drifts = kernel_drifts(setup.preset, feature_fn, initial, final, data)
    layers = {}
    for k, layer in enumerate(moved):
        # The infinitely wide network is known by its logits alone.
        of_layer = {
            name: size[:, -1 if name == "infinite" else k]
            for name, size in sizes.items()
            if name != "infinite" or layer == "logits"
        }
        layers[layer] = {
            f"relative_error_{name}": relative_error(form[layer], moved[layer])
            for name, form in found.forms.items()
        }
        if "infinite" in of_layer:
            lengths = of_layer["infinite"], of_layer["displacement"]
            layers[layer]["relative_error_infinite"] = relative_error(*lengths)
        layers[layer] |= compare(of_layer) | shares(terms, k) | drifts[layer]
        # o = (F_0(x) − F*_0) + (F*_0 − F*_T): the singularity moves, too.
        centers = [np.asarray(star.center[layer]) for star in stars]
        layers[layer]["singularity_moved"] = float(
            np.linalg.norm(centers[1] - centers[0])
        )
    benchmark = data.benchmark
    logit_fn = fssd_jax.make_logit_fn(found.model)
    facts = {
        "parameters": sum(a.size for a in jax.tree.leaves(initial)),
        "steps": steps,
        "loss": float(found.history[-1, 0]),
        "train_accuracy": float(found.history[-1, 1]),
        "test_accuracy": train.accuracy(
            logit_fn, final, benchmark.test.x, benchmark.test.y
        ),
        "layers": layers,
    }
    return facts, sizes


def shares(terms: Terms, k: int) -> dict[str, float]:
    """Each term's share of the sum of FSSD², of all points and of each set."""
    out = {}
    for ending, part in parts(len(terms.moved)).items():
        whole = np.sum(terms, axis=0)[part, k].sum()
        for name, term in terms._asdict().items():
            out[f"{name}_share{ending}"] = float(term[part, k].sum() / whole)
    return out


def parts(count: int) -> dict[str, slice]:
    """All points, the in-distribution half, and the OoD half."""
    half = count // 2
    return {"": slice(None), "_ind": slice(half), "_ood": slice(half, None)}


def compare(sizes: dict[str, np.ndarray]) -> dict[str, float | list[float] | None]:
    """Of one layer: correlations with FSSD and with ‖Δ‖, and AUROC as a detector.

    A correlation over both sets together may have the sign of the gap between them, so
    it is given within each set, too. It is None where a size is constant.
    """
    out = {}
    for name, size in sizes.items():
        half = len(size) // 2
        found = metrics.evaluate(size[:half], size[half:])
        out[f"auroc_{name}"] = found.auroc
        out[f"auroc_{name}_ci95"] = list(found.auroc_ci95)
        for target, ending in (("fssd", ""), ("displacement", "_displacement")):
            if name in ("fssd", target):
                continue
            for of, part in parts(len(size)).items():
                pair = size[part], sizes[target][part]
                for kind, correlation in CORRELATIONS.items():
                    varies = min(map(np.ptp, pair)) > 0
                    r = float(correlation(*pair)[0]) if varies else None
                    out[f"{kind}_{name}{ending}{of}"] = r
    return out


def _distances(feature_fn, variables, singularity, x):
    return distances(singularity, feature_fn(variables, x))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """‖found − expected‖ / ‖expected‖ over all points."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _sizes(form: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.linalg.norm(f, axis=1) for f in form.values()], axis=1)


def kernel_drifts(preset: Preset, feature_fn, initial, final, data: Data):
    """Drift of each layer's trace kernel, and its alignment with the labels."""
    x, y = data.x[: preset.kernel], data.y[: preset.kernel]
    shapes = jax.eval_shape(feature_fn, initial, x)
    parameters = sum(a.size for a in jax.tree.leaves(initial))
    block = max(1, min(len(x), GRADIENTS // parameters))
    drifts = {}
    for layer, shape in shapes.items():
        dim = math.prod(shape.shape[1:])
        key = jax.random.key(_KERNEL)
        directions = ntk.trace_directions(key, preset.directions, dim)
        start, end = (
            ntk.sketched_kernel(
                feature_fn, variables, layer, x, directions=directions, batch_size=block
            )
            for variables in (initial, final)
        )
        drifts[layer] = {
            "kernel_drift": ntk.drift(start, end),
            "kernel_alignment_before": ntk.alignment(start, y),
            "kernel_alignment_after": ntk.alignment(end, y),
        }
    return drifts


def infinite(model, data: Data, time: float) -> np.ndarray:
    """√E‖Δ‖² of the logits of the infinitely wide network [image, 1]."""
    train_kernels = infinite_width.kernels(model, data.x)
    targets = np.eye(model.num_classes)[data.y] - 1 / model.num_classes  # as the loss
    (readout,) = infinite_width.readouts(train_kernels, targets, [time])
    ntk = infinite_width.kernels(model, data.points, data.x).ntk
    squares = infinite_width.expected_squared_displacement(readout, ntk)
    return np.sqrt(squares.total)[:, None]


def rival(data: Data) -> dict[str, Any]:
    """A detector without a network: the nearest training image, in pixels."""
    flat = [x.reshape(len(x), -1) for x in (data.x, data.points)]
    distance = NearestNeighbors(n_neighbors=1).fit(flat[0]).kneighbors(flat[1])[0]
    half = len(distance) // 2
    found = metrics.evaluate(-distance[:half, 0], -distance[half:, 0])
    return {"auroc": found.auroc, "auroc_ci95": list(found.auroc_ci95)}


def _key(seed: int, purpose: int):
    return jax.random.fold_in(jax.random.key(seed), purpose)
