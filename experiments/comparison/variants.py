"""FSSD varied, as in "Effects of ensemble" of the paper and beyond.

Which images F* is the centre of (`CENTERS`); how layers are combined (`COMBINATIONS`);
which networks are combined. All of them are without input step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.comparison import networks, protocols
from experiments.comparison.rows import Ask, Method, Rows, Scored, seconds_per_1000
from experiments.comparison.setting import Setting
from experiments.comparison.singular import ask_combined, columns, singularity_of
from experiments.harness.keys import Use, of_seed
from fssd_jax.data import corruptions
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import displacement, fssd
from fssd_jax.ensemble import Ensemble, combine, fit_ensemble, standardise
from fssd_jax.features import join, make_feature_fn
from fssd_jax.outputs import FeatureFn, Variables
from fssd_jax.questions import Question

COMBINED = 3  # networks of an ensemble


def no_step(s: Setting) -> list[Ask]:
    """Labels for the weights, but ε = 0."""
    if s.clean:  # it is without step already
        return []
    protocol = s.protocol._replace(epsilons=(0.0,), perturbation="none")
    s = s._replace(protocol=protocol)
    state = protocols.fit(
        *(protocol, s.feature_fn, s.variables, s.noise, s.val_ind, s.val_ood, s.seed)
    )
    return [ask_combined("fssd, no input step", s, state)]


# ---- other centres ------------------------------------------------------------------

# What a center is made of: images [count, ...], and the fields of `Scored` that tell
# what they were made from.
Center = Callable[[Setting], tuple[Any, dict[str, Any]]]


def shuffled_pixels(s: Setting) -> tuple[np.ndarray, dict[str, Any]]:
    assert s.train is not None  # `needs`
    count, key = len(s.noise), of_seed(s.seed, Use.SHUFFLED_PIXELS)
    images = corruptions.shuffled_pixels(s.train.x, count, key)
    return images, {"fitted_on": f"{count} of the training set"}


def scaled_noise(s: Setting) -> tuple[np.ndarray, dict[str, Any]]:
    key = of_seed(s.seed, Use.SCALED_NOISE)
    return corruptions.scaled_noise(s.noise, key), {"fitted_on": "nothing"}


def ood_validation(s: Setting) -> tuple[np.ndarray, dict[str, Any]]:
    assert s.val_ood is not None  # `needs`
    facts = {"fitted_on": f"{len(s.val_ood)} target OoD", "target_ood": True}
    return as_input(s.val_ood), facts


# A new centre is a function like these, and a row here.
CENTERS: dict[str, Center] = {
    "shuffled pixels": shuffled_pixels,
    "scaled noise": scaled_noise,
    "OoD validation": ood_validation,
}
OF_PIXELS = ("shuffled pixels", "scaled noise")  # not of token ids


def singularities(s: Setting) -> list[Ask]:
    """Other centres than that of uniform noise; each layer alone, and all."""
    asks = []
    for name, center in CENTERS.items():
        if s.symbols and name in OF_PIXELS:
            continue
        images, of_center = center(s)
        network = s.feature_fn, s.variables
        state = protocols.fit_clean(*network, images, s.val_ind)
        # Weighted as under `clean`, which this is only if F* saw no OoD image.
        of_all = f"{len(s.val_ind)} in"
        if of_center["fitted_on"] != "nothing":
            of_all += f", {of_center['fitted_on']}"
        title = f"fssd, F* of {name}"
        to_rows = partial(
            _all_and_each, title, state, of_center, of_center | {"fitted_on": of_all}
        )
        question = Question(fssd_jax.fssd.fssd, s.feature_fn, state.singularity)
        asks.append(Ask(question, to_rows, timed=False))
    return asks


def _all_and_each(title: str, state, of_layer, of_all, ind, ood) -> Rows:
    whole = _combined(state.ensemble, ind), _combined(state.ensemble, ood)
    names = [f"{title}, {layer}" for layer in state.singularity.center]
    return {
        f"{title}, standardised": Scored(whole[0], whole[1], **of_all, data="F*"),
        **columns(names, ind, ood, **of_layer, data="F*"),
    }


# ---- other combinations -------------------------------------------------------------

# (distances [n, layers] of in-distribution validation images, of OoD ones or None,
# names of the layers) -> weights
Combination = Callable[[np.ndarray, np.ndarray | None, list[str]], Ensemble]


def summed(ind, ood, layers: list[str]) -> Ensemble:
    """Standardised layers, all of them counted positive."""
    return standardise(ind, layers)


# A new rule is a function like this, and a row here with what it is fitted on beyond
# the in-distribution validation images: whether it sees the OoD ones.
COMBINATIONS: dict[str, tuple[Combination, bool]] = {"summed": (summed, False)}


def combinations(s: Setting) -> list[Ask]:
    """Other weights than those of the protocol, at ε = 0."""
    apply = partial(map_batches, fssd_jax.fssd.fssd, s.feature_fn, s.variables)
    singularity = singularity_of(s)
    ind = apply(singularity, s.val_ind)
    ood = None if s.clean or s.val_ood is None else apply(singularity, s.val_ood)
    asks = []
    for name, (rule, by_labels) in COMBINATIONS.items():
        if by_labels and ood is None:
            continue
        known = s if by_labels else s.under_clean()
        weights = rule(ind, ood if by_labels else None, list(singularity.center))
        none = jnp.zeros(0)
        state = fssd.State(singularity, None, weights, none, none)
        asks.append(ask_combined(f"fssd, {name}", known, state))
    return asks


def displacement_layers(s: Setting) -> list[Ask]:
    """Displacement of each layer alone: no labels."""
    layers = list(s.feature_fn(s.variables, as_input(s.val_ind[:1])))
    facts = {"passes": "2", "data": "initial weights"}
    asks = []
    for kind in ("displacement", "relative displacement"):
        start = s.initial, jnp.asarray(kind.startswith("relative"))
        names = [f"{kind}, {layer}" for layer in layers]
        question = Question(displacement.displacements, s.feature_fn, start)
        asks.append(Ask(question, partial(columns, names, **facts), timed=False))
    return asks


# ---- several networks ---------------------------------------------------------------


def ensembles(s: Setting) -> Rows:
    """Layers of several networks together: `clean`, and by labels where allowed.

    All networks are joined to one, so that each of them sees an image once.
    """
    assert s.training is not None  # `needs`
    members, epochs = _members(s)
    feature_fn = join({name: pair[0] for name, pair in members.items()})
    variables = {name: pair[1] for name, pair in members.items()}
    state = protocols.fit_clean(feature_fn, variables, s.noise, s.val_ind)
    apply = partial(
        map_batches, fssd_jax.fssd.fssd, feature_fn, variables, state.singularity
    )
    # `needs` has looked that there are OoD images; `clean` does not look at them.
    distances = [apply(x) for x in (s.test_ind, s.test_ood, s.val_ind)]
    if not s.clean:
        distances.append(apply(s.val_ood))
    seconds = seconds_per_1000(s, apply)
    own, every = f"seed {s.seed}", list(state.singularity.center)
    snapshots = [name for name in members if name.startswith("epoch")]
    others = [name for name in members if name.startswith("seed") and name != own]
    kind = type(s.training.model()).__name__
    groups = {
        f"{COMBINED} networks": ([own, *others], f"{COMBINED - 1} networks"),
        "perceptron": (["perceptron"], "none"),
        f"{kind} and perceptron": ([own, "perceptron"], "1 perceptron"),
        "snapshots": ([*snapshots, own], "none"),
    }
    rows = {}
    for title, (group, training) in groups.items():
        chosen = [
            every.index(layer)
            for name in group
            for layer in every
            if layer.startswith(f"{name}/")
        ]
        # In the order of memory that a pass gives, which decides the last bits of sums.
        d = [np.ascontiguousarray(a[:, chosen]) for a in distances]
        weights = {"clean": (_part(state.ensemble, chosen), s.under_clean().labels)}
        if not s.clean:
            fitted = fit_ensemble(d[2], d[3], [every[k] for k in chosen])
            weights["labels"] = fitted, s.labels
        for how, (ensemble, labels) in weights.items():
            rows[f"fssd, {title}, {how}"] = Scored(
                _combined(ensemble, d[0]),
                _combined(ensemble, d[1]),
                **labels,
                note="epochs " + ", ".join(str(epochs[name]) for name in group),
                training=training,
                passes=str(len(group)),
                data=f"{len(group)} F*",
                seconds=seconds and seconds * len(group) / len(members),
            )
    return rows


def _members(
    s: Setting,
) -> tuple[dict[str, tuple[FeatureFn, Variables]], dict[str, int]]:
    """All networks that are combined, and the epochs of each."""
    training = s.training
    assert training is not None
    own = f"seed {s.seed}"
    members, epochs = {own: (s.feature_fn, s.variables)}, {}
    for seed in range(s.seed + 1, s.seed + COMBINED):
        trained = networks.plain(training, seed)
        members[f"seed {seed}"] = s.feature_fn, trained.variables
        epochs[f"seed {seed}"] = training.epochs_of(seed)
    perceptron = networks.other_architecture(training, s.seed)
    mlp = make_feature_fn(networks.perceptron(training.benchmark))
    members["perceptron"] = mlp, perceptron.variables
    # The last snapshot is the network itself.
    for epoch, variables in list((s.snapshots or {}).items())[:-1]:
        members[f"epoch {epoch}"] = s.feature_fn, variables
        epochs[f"epoch {epoch}"] = epoch
    epochs[own] = epochs["perceptron"] = training.epochs_of(s.seed)
    return members, epochs


def _part(ensemble: Ensemble, chosen: Sequence[int]) -> Ensemble:
    at = np.asarray(chosen)
    center, scale, alpha = ensemble.center, ensemble.scale, ensemble.alpha
    return Ensemble(center[at], scale[at], alpha[at], ensemble.intercept)


def _combined(ensemble: Ensemble, d: np.ndarray) -> np.ndarray:
    return np.asarray(combine(ensemble, jnp.asarray(d)))


VARIANTS: dict[str, Method] = {
    "no_step": Method(no_step, needs=("val_ood",)),
    "singularities": Method(singularities, needs=("train", "val_ood")),
    "combinations": Method(combinations),
    "displacement_layers": Method(displacement_layers, needs=("training",)),
    "ensembles": Method(run=ensembles, needs=("training", "val_ood", "pixels")),
}
