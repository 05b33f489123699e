"""One network followed through training, and measured against Eq. (4)."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from scipy.stats import pearsonr, spearmanr

import fssd_jax
from analysis import infinite_width, kernel_dynamics, kernel_statistics, ntk, pixels
from analysis.displacement import Terms, decompose, displacement, relative_error
from analysis.kernel_dynamics import NO_NULL
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from experiments.harness import keys
from experiments.harness.keys import Use
from experiments.kernel_study.setting import (
    LOSSES,
    NTK_NETWORKS,
    TWINS,
    Data,
    Preset,
    Setup,
    block_size,
)
from fssd_jax import metrics, recipes, train
from fssd_jax.data.pipeline import map_batches
from fssd_jax.features import make_init_fn
from fssd_jax.fssd import Singularity
from fssd_jax.outputs import FeatureFn, Variables

CORRELATIONS: dict[str, Callable] = {"pearson": pearsonr, "spearman": spearmanr}
# name → [image, layer]: FSSD, the length of Δ and of each form, the terms of FSSD².
Sizes = dict[str, np.ndarray]


class Followed(NamedTuple):
    """One trained network, and what the forms of Eq. (4) say of the points."""

    model: nn.Module
    feature_fn: FeatureFn
    initial: Variables
    final: Variables
    history: np.ndarray
    forms: dict[str, dict[str, np.ndarray]]  # form → layer → [image, dim]
    frozen: dict[str, str]  # layer → which form the frozen one is, see `FrozenForm`


def follow(setup: Setup, data: Data, seed: int, width: int) -> Followed:
    """Train by plain SGD; the forms follow every step."""
    benchmark, loss = data.benchmark, LOSSES[setup.loss]
    model = NTK_NETWORKS[setup.network](
        width, benchmark.num_classes, benchmark.mean, benchmark.std
    )
    feature_fn = fssd_jax.make_feature_fn(model)
    initial = make_init_fn(model)(jax.random.key(seed), data.x[:1])
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
        recipe=recipes.sgd(setup.rate),
        initial=initial,
        loss=loss,
        on_step=on_step,
    )
    forms = {name: dict(form.value()) for name, form in paths.items()}
    forms["frozen"] = dict(frozen.value(data.points))
    final, kinds = trained.variables, dict(frozen.forms)
    return Followed(model, feature_fn, initial, final, trained.history, forms, kinds)


def _batches(preset: Preset, data: Data) -> int:
    return len(data.x) // min(preset.batch_size, len(data.x))


def measure(
    setup: Setup, data: Data, seed: int, width: int
) -> tuple[dict[str, Any], Sizes]:
    """Facts for metrics.json, and the sizes that they were taken from."""
    found = follow(setup, data, seed, width)
    steps = len(found.history) * _batches(setup.preset, data)
    # F* before training and after it.
    stars = [
        fssd_jax.estimate_singularity(found.feature_fn, variables, data.noise)
        for variables in (found.initial, found.final)
    ]
    terms, moving = (
        decompose(
            *(found.feature_fn, found.initial, found.final, stars[1], data.points),
            initial_singularity=start,
        )
        for start in (None, stars[0])
    )
    sizes = sizes_of(found, stars, terms, moving, data)
    if setup.network in TWINS and setup.loss == "squared":
        sizes["infinite"] = infinite(found.model, data, setup.rate * steps)
    benchmark = data.benchmark
    facts = {
        "parameters": sum(a.size for a in jax.tree.leaves(found.initial)),
        "steps": steps,
        "loss": float(found.history[-1, 0]),
        "train_accuracy": float(found.history[-1, 1]),
        "test_accuracy": train.accuracy(
            fssd_jax.make_logit_fn(found.model),
            found.final,
            benchmark.test.x,
            benchmark.test.y,
        ),
        "layers": of_layers(setup.preset, data, found, stars, (terms, moving), sizes),
    }
    return facts, sizes


def sizes_of(
    found: Followed,
    stars: list[Singularity],
    terms: Terms,
    moving: Terms,
    data: Data,
) -> Sizes:
    """How far each point is or was moved, by FSSD, by each form and term.

    Args:
      terms: of FSSD², relative to F*_T.
      moving: likewise, relative to F*, which moves.
    """
    feature_fn, initial = found.feature_fn, found.initial
    untrained = decompose(feature_fn, initial, initial, stars[0], data.points)
    return {
        "fssd": map_batches(
            fssd_jax.fssd.fssd, feature_fn, found.final, stars[1], data.points
        ),
        "displacement": np.sqrt(terms.moved),
        "relative": np.sqrt(moving.moved),
        **{name: _lengths(form) for name, form in found.forms.items()},
        "cross": terms.cross,
        "offset": np.sqrt(terms.offset),
        "untrained": np.sqrt(untrained.offset),
    }


def of_layers(
    preset: Preset,
    data: Data,
    found: Followed,
    stars: list[Singularity],
    terms: tuple[Terms, Terms],
    sizes: Sizes,
) -> dict[str, dict[str, Any]]:
    """layer → its forms, the terms' shares, its kernel, and how far F* moved.

    Args:
      terms: relative to F*_T, and to F*, which moves.
    """
    resting, moving = map(shares, terms)
    moved = displacement(found.feature_fn, found.initial, found.final, data.points)
    kernels = kernel_drifts(preset, found, data)
    layers = {}
    for k, layer in enumerate(moved):
        # The infinitely wide network is known by its logits alone.
        of_layer = {
            name: size[:, -1 if name == "infinite" else k]
            for name, size in sizes.items()
            if name != "infinite" or layer == "logits"
        }
        forms = compare(of_layer)
        for name, form in found.forms.items():
            forms[name]["relative_error"] = relative_error(form[layer], moved[layer])
        forms["frozen"]["form"] = found.frozen[layer]
        if "infinite" in of_layer:
            lengths = of_layer["infinite"], of_layer["displacement"]
            forms["infinite"]["relative_error"] = relative_error(*lengths)
        # o = (F_0(x) − F*_0) + (F*_0 − F*_T): the singularity moves, too.
        centers = [np.asarray(star.center[layer]) for star in stars]
        layers[layer] = {
            "forms": forms,
            "shares": _of_layer(resting, k),
            "shares_moving": _of_layer(moving, k),
            **kernels[layer],
            "singularity_moved": float(np.linalg.norm(centers[1] - centers[0])),
        }
    return layers


def shares(terms: Terms) -> dict[str, Terms]:
    """part → each term's share of the sum of FSSD² over these points, [layers]."""
    return {
        part: terms.shares(chosen) for part, chosen in parts(len(terms.moved)).items()
    }


def _of_layer(shares: dict[str, Terms], k: int) -> dict[str, dict[str, float]]:
    """term → part → share."""
    return {
        term: {part: float(getattr(of, term)[k]) for part, of in shares.items()}
        for term in Terms._fields
    }


def parts(count: int) -> dict[str, slice]:
    """All points, the in-distribution half, and the OoD half."""
    half = count // 2
    return {"all": slice(None), "ind": slice(half), "ood": slice(half, None)}


def compare(sizes: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Of one layer: name → AUROC as a detector, correlations with FSSD and with ‖Δ‖.

    A correlation over both sets together may have the sign of the gap between them, so
    it is given within each set, too. It is None where a size is constant.

    Args:
      sizes: name → [image], "fssd" and "displacement" among them.
    """
    out = {}
    for name, size in sizes.items():
        half = len(size) // 2
        found = metrics.evaluate(size[:half], size[half:])
        out[name] = {"auroc": found.auroc, "auroc_ci95": list(found.auroc_ci95)}
        if name != "fssd":
            out[name]["with_fssd"] = correlations(size, sizes["fssd"])
        if name not in ("fssd", "displacement"):
            out[name]["with_displacement"] = correlations(size, sizes["displacement"])
    return out


def correlations(
    size: np.ndarray, other: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """kind → part → r."""
    out: dict[str, dict[str, float | None]] = {kind: {} for kind in CORRELATIONS}
    for part, chosen in parts(len(size)).items():
        pair = size[chosen], other[chosen]
        varies = min(map(np.ptp, pair)) > 0
        for kind, correlation in CORRELATIONS.items():
            out[kind][part] = float(correlation(*pair)[0]) if varies else None
    return out


def _lengths(form: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.linalg.norm(f, axis=1) for f in form.values()], axis=1)


def kernel_drifts(
    preset: Preset, found: Followed, data: Data
) -> dict[str, dict[str, Any]]:
    """Drift of each layer's trace kernel, and its alignment with the labels.

    Both as they are, and what tells them from scale and chance: the distance of shapes,
    the floor of alignment, and its debiased estimate with p by permutations.
    """
    x, y = data.x[: preset.kernel], data.y[: preset.kernel]
    shapes = jax.eval_shape(found.feature_fn, found.initial, x)
    block = block_size(found.initial, len(x))
    drifts = {}
    for layer, shape in shapes.items():
        dim = math.prod(shape.shape[1:])
        key = keys.fixed(Use.KERNEL_DIRECTIONS)
        directions = ntk.trace_directions(key, preset.directions, dim)
        start, end = (
            ntk.sketched_kernel(
                found.feature_fn,
                variables,
                layer,
                x,
                directions=directions,
                batch_size=block,
            )
            for variables in (found.initial, found.final)
        )
        null = partial(
            kernel_statistics.permutation_null,
            key=keys.fixed(Use.TANGENT_PERMUTATIONS),
        )
        ends = [kernel_dynamics.statistics(start, k, y, null) for k in (start, end)]
        drifts[layer] = {
            "kernel_drift": ends[1].drift,
            "kernel_distance": ends[1].distance,
            **{
                f"kernel_alignment_{when}": {
                    "alignment": of.alignment,
                    "floor": of.alignment_floor,
                    "debiased": (of.debiased_alignment or NO_NULL).value,
                    "p": (of.debiased_alignment or NO_NULL).p_value,
                }
                for when, of in zip(("before", "after"), ends, strict=True)
            },
        }
    return drifts


def infinite(model, data: Data, time: float) -> np.ndarray:
    """√E‖Δ‖² of the logits of the infinitely wide network [image, 1]."""
    train_kernels = infinite_width.kernels(model, data.x)
    targets = np.eye(model.num_classes)[data.y] - 1 / model.num_classes  # as the loss
    (readout,) = infinite_width.readouts(train_kernels, targets, [time])
    kernel = infinite_width.kernels(model, data.points, data.x).ntk
    squares = infinite_width.expected_squared_displacement(readout, kernel)
    return np.sqrt(squares.total)[:, None]


def rival(data: Data) -> tuple[dict[str, Any], np.ndarray]:
    """A detector without a network, the nearest training image: facts, [image]."""
    near = pixels.nearest(data.x, data.points)
    half = len(near) // 2
    found = metrics.evaluate(near[:half], near[half:])
    return {"auroc": found.auroc, "auroc_ci95": list(found.auroc_ci95)}, near
