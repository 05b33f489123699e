"""Rules without labels of OoD images: of the distances to a centre, one score.

All take z, the logarithm of a layer's distance in standard deviations of the
in-distribution validation images:

    z_k(x) = (log d_k(x) − mean log d_k) / std log d_k
"""

from collections import OrderedDict
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import fssd_jax
from experiments.centre_study.centres import (
    COUNT,
    OF_IMAGES,
    ORACLE,
    singularities,
    with_logits,
)
from experiments.comparison.methods import METHODS, ask_mahalanobis
from experiments.comparison.rows import Ask, Method, Rows, Scored
from experiments.comparison.setting import Setting
from experiments.comparison.singular import (
    ask_combined,
    clean_state,
    singularity_of,
)
from experiments.harness.keys import Use
from fssd_jax import logistic
from fssd_jax.data import corruptions
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import displacement, mahalanobis
from fssd_jax.fssd import Singularity
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.questions import Question

DEEP = 2  # the last layers: the last hidden one, and the logits
LEFT_OUT = "fssd clean, turned layers left out"
LEAST = 1e-12  # of a distance, whose logarithm is taken
# Rivals that see no OoD image: rows of `table2` beside the rules.
RIVALS = tuple(
    name
    for name in METHODS
    if name
    not in (
        *("layers", "deep_ensemble", "mc_dropout", "outlier_exposure"),
        *("odin", "mahalanobis", "fssd"),
        *("fssd_tiles", "fssd_mahalanobis"),  # which are rules of the study
    )
)


class Standard:
    """z of distances, by those of in-distribution images."""

    def __init__(self, d: Float[np.ndarray, "n layers"]):
        logs = _logs(d)
        self.mean, self.std = logs.mean(0), logs.std(0)

    def __call__(self, d: Float[np.ndarray, "n layers"]) -> np.ndarray:
        return (_logs(d) - self.mean) / self.std


def _logs(d: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(d, np.float64), LEAST))


def ask_centres(s: Setting) -> list[Ask]:
    """Of each centre: the deep layers, all layers, and each layer alone."""
    s, asks = with_logits(s), []
    for name, singularity in singularities(s).items():
        question = Question(fssd_jax.fssd.fssd, s.feature_fn, singularity)
        asks.append(_of_distances(s, name, question, list(singularity.center)))
    start = s.initial, jnp.asarray(False)
    own = Question(displacement.displacements, s.feature_fn, start)
    return [
        *asks,
        _of_distances(s, "own, initial", own, list(singularity_of(s).center)),
    ]


def _of_distances(
    s: Setting, centre: str, question: Question, layers: list[str]
) -> Ask:
    z = Standard(_answers(s, question, s.val_ind))
    fitted_on, sees = f"{len(s.val_ind)} in", centre == ORACLE
    scored = partial(Scored, fitted_on=fitted_on, target_ood=sees, data="F*")

    def to_rows(ind, ood) -> Rows:
        pair = z(ind), z(ood)
        deep = [of[:, -DEEP:].sum(1) for of in pair]
        rows = {
            f"{centre}: deep": scored(*deep),
            f"{centre}: all": scored(*[of.sum(1) for of in pair]),
        }
        for k, layer in enumerate(layers):
            alone = ind[:, k].astype(np.float64), ood[:, k].astype(np.float64)
            rows[f"{centre}: {layer}"] = scored(*alone)
        return rows

    return Ask(question, to_rows, timed=False)


def _answers(s: Setting, question: Question, x) -> np.ndarray:
    return map_batches(
        *(question.score, question.apply_fn, s.variables, question.state, x),
        batch_size=s.batch_size,
    )


# ---- as it was ----------------------------------------------------------------------


def ask_left_out(s: Setting) -> list[Ask]:
    """`clean` without the layers that it turns: `fssd.fit`'s rule when this began.

    It gives no row where all are turned.
    """
    state = clean_state(s)
    alpha = jnp.maximum(state.ensemble.alpha, 0)
    if not alpha.any():
        return []
    state = state._replace(ensemble=state.ensemble._replace(alpha=alpha))
    return [ask_combined(LEFT_OUT, s, state)._replace(timed=False)]


# ---- with Mahalanobis ---------------------------------------------------------------


def ask_with_mahalanobis(s: Setting) -> list[Ask]:
    """Deep layers about means of 16, plus Mahalanobis, each standardised."""
    (ask,) = ask_mahalanobis("mahalanobis", s)
    s = with_logits(s)
    singularity = _mix_16(s)
    question = Question(_both, s.feature_fn, (singularity, ask.question.state))
    val = _answers(s, question, s.val_ind)
    z, (mean, std) = Standard(val[:, :-1]), (val[:, -1].mean(), val[:, -1].std())
    fitted_on = f"{len(s.val_ind)} in, training set"
    scored = partial(Scored, fitted_on=fitted_on, data="F*, Gaussians")
    z_deep = z(val[:, :-1])[:, -DEEP:].sum(1)

    def one(found: np.ndarray) -> np.ndarray:
        deep = z(found[:, :-1])[:, -DEEP:].sum(1)
        return _standardised(deep, z_deep) + (found[:, -1] - mean) / std

    def to_rows(ind, ood) -> Rows:
        return {"mix 16: deep + mahalanobis": scored(one(ind), one(ood))}

    return [Ask(question, to_rows)]


def _standardised(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    return (x - by.mean()) / by.std()


def _both(
    feature_fn: FeatureFn, variables: Variables, state, x: Inputs
) -> Float[Array, "batch columns"]:
    """Distances of all layers, and in the last column Mahalanobis'."""
    singularity, fitted = state

    def without_logits(variables, x) -> OrderedDict[str, Array]:
        found = feature_fn(variables, x)
        return OrderedDict((k, found[k]) for k in fitted.gaussians.whitening)

    d = fssd_jax.fssd.fssd(feature_fn, variables, singularity, x)
    own = mahalanobis.score(without_logits, variables, fitted, x)
    return jnp.concatenate([d, own[:, None]], 1)


def _mix_16(s: Setting) -> Singularity:
    return fssd_jax.estimate_singularity(
        s.feature_fn, s.variables, OF_IMAGES["mix 16"](s), batch_size=s.batch_size
    )


# ---- learned on self-made sets ------------------------------------------------------


def self_made(s: Setting) -> dict[str, np.ndarray]:
    """Fifteen sets that are made of noise and of training images."""
    assert s.train is not None
    rng = np.random.default_rng([s.seed, int(Use.SELF_MADE)])
    some = as_input(s.train.x[np.sort(rng.permutation(len(s.train.x))[: COUNT // 4])])
    noisy = some + rng.normal(0, corruptions.SIGMA, some.shape)
    grown = np.repeat(np.repeat(some[:, ::2, ::2], 2, 1), 2, 2)
    half = some.shape[2] // 2
    pasted = np.concatenate([some[:, :, :half], some[::-1, :, half:]], 2)
    of_centres = {
        name: np.asarray(images(s))[: COUNT // 4]
        for name, images in OF_IMAGES.items()
        if name not in ("mean", ORACLE)
    }
    return {
        "noise": np.asarray(s.noise)[: COUNT // 4],
        **of_centres,
        "Gaussian noise": noisy.clip(0, 1).astype(np.float32),
        "inverted": 1 - some,
        "upside down": some[:, ::-1],
        "coarse": grown[:, : some.shape[1], : some.shape[2]],
        "pasted": pasted,
    }


def ask_learned(s: Setting) -> list[Ask]:
    """Logistic regression on (z, −z²) of all layers, against fifteen self-made sets."""
    s = with_logits(s)
    question = Question(fssd_jax.fssd.fssd, s.feature_fn, _mix_16(s))
    val = _answers(s, question, s.val_ind)
    z = Standard(val)

    def view(d: np.ndarray) -> np.ndarray:
        return np.concatenate([z(d), -np.square(z(d))], 1)

    made = np.concatenate([_answers(s, question, x) for x in self_made(s).values()])
    x = np.concatenate([view(val), view(made)])
    y = np.concatenate([np.ones(len(val)), np.zeros(len(made))])
    classify = partial(logistic.decide, logistic.fit(x, y))
    scored = partial(Scored, fitted_on=f"{len(val)} in, 15 self-made sets", data="F*")

    def to_rows(ind, ood) -> Rows:
        tested = classify(view(ind)), classify(view(ood))
        return {"mix 16: learned": scored(*tested)}

    return [Ask(question, to_rows)]


RULES: dict[str, Method] = {
    "left_out": Method(ask_left_out),
    "centres": Method(ask_centres, needs=("train", "initial", "val_ood")),
    "with_mahalanobis": Method(ask_with_mahalanobis, needs=("train",)),
    "learned": Method(ask_learned, needs=("train", "pixels")),
}
