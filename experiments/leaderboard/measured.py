"""What OpenOOD 1.5 measures of a network: its methods' scores, by its conventions.

Methods are those of its evaluator: MSP; energy (EBO, T = 1); Mahalanobis of the last
features, pooled, without input step (MDS); k nearest neighbours of these, k chosen on
its validation sets (KNN). And FSSD: label-free, by noise and in-distribution validation
images, or with OpenOOD's OoD validation set, which chooses ε and the layers' weights.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.harness.files import is_there
from experiments.harness.keys import Use, of_seed
from experiments.leaderboard import kept
from fssd_jax.checks import InputError
from fssd_jax.data.folders import ImageStream
from fssd_jax.detectors import energy, fssd, knn, mahalanobis, msp
from fssd_jax.ensemble import EPSILONS
from fssd_jax.features import make_feature_fn, make_logit_fn
from fssd_jax.fssd import Singularity, estimate_singularity, uniform_noise
from fssd_jax.memory import scoring_batch
from fssd_jax.outputs import FeatureFn, logits_of
from fssd_jax.questions import Question, look

LAST = "last"  # the pooled features that the logits are computed from
NEIGHBOURS = (50, 100, 200, 500, 1000)  # what OpenOOD chooses k from
LABEL_FREE, LABELLED = "FSSD", "FSSD, val OoD"


class Metrics(NamedTuple):
    """By OpenOOD's evaluator; OoD is positive, but in `aupr_in`. Fractions."""

    fpr95: float  # of in-distribution images, where 95 % of OoD ones are found
    auroc: float
    aupr_in: float
    aupr_out: float


def evaluate(ind: np.ndarray, ood: np.ndarray) -> Metrics:
    """Of scores, higher for in-distribution. Areas under precision are by trapezoids.

    Args:
      ind: [n] of in-distribution images.
      ood: [m] of OoD images.
    """
    # Slow to import: see `fssd_jax.data.embedded`.
    from sklearn.metrics import auc, precision_recall_curve, roc_curve

    outside = np.repeat([0, 1], [len(ind), len(ood)])
    s = np.concatenate([ind, ood]).astype(np.float64)
    fpr, tpr, _ = roc_curve(outside, -s)
    inside, found_in, _ = precision_recall_curve(1 - outside, s)
    precision, recall, _ = precision_recall_curve(outside, -s)
    return Metrics(
        float(fpr[np.argmax(tpr >= 0.95)]),
        float(auc(fpr, tpr)),
        float(auc(found_in, inside)),
        float(auc(recall, precision)),
    )


class Measured(NamedTuple):
    accuracy: float
    metrics: dict[str, dict[str, Metrics]]  # OoD set → method
    scores: dict[str, dict[str, np.ndarray]]  # set → method → [n]
    chosen: dict[str, float]  # ε and k
    not_run: dict[str, str]  # method → why


def measure(
    sets: Mapping[str, ImageStream],
    outside: tuple[str, ...],
    model: Any,
    variables: Any,
    num_classes: int,
    *,
    noise: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    epsilons: tuple[float, ...] = EPSILONS,
    progress: bool = True,
    files: Mapping[str, Path] = MappingProxyType({}),
) -> Measured:
    """Fit all methods that there are sets for, and score all test sets.

    Nothing is fitted where the scores of all sets are kept.

    Args:
      sets: "test", and of "train", "val", "val_ood" and OoD sets those that are there.
      outside: the names of OoD sets.
      model: its last feature layer is pooled before the logits.
      variables: of it.
      num_classes: that it tells apart.
      noise: samples for F*.
      seed: of the noise, and of the folds of cross-validation.
      batch_size: images per compiled call; by default what `scoring_batch` chooses.
      epsilons: input steps to try.
      progress: whether to show progress bars.
      files: test set → where its scores are kept, of these arguments only.
    """
    names = ("test", *(name for name in outside if name in sets))
    there = [name for name in names if name in files and is_there(files[name])]
    scored = {name: kept.load(files[name]) for name in there}
    if len(there) < len(names):
        g = _given(
            *(sets, model, variables, num_classes),
            noise=noise,
            seed=seed,
            batch_size=batch_size,
            epsilons=epsilons,
            progress=progress,
        )
        fitted = _fit(g)
        for name in (name for name in names if name not in scored):
            scored[name] = _scored(g, fitted, name)
            if name in files:
                kept.save(files[name], scored[name])
    scores = {name: scored[name].scores for name in names}
    predicted = {name: of_set.pop("predicted") for name, of_set in scores.items()}
    right = predicted["test"] == sets["test"].y
    metrics = {
        name: {m: evaluate(scores["test"][m], s) for m, s in scores[name].items()}
        for name in scores
        if name != "test"
    }
    _, chosen, not_run = scored["test"]
    return Measured(float(right.mean()), metrics, scores, chosen, not_run)


def _scored(g: "_Given", fitted: "_Fitted", name: str) -> kept.Scored:
    """One look at the images of a set."""
    predicted = Question(_predicted, _logits(g.model), ())
    found = look(
        {**fitted.questions, "predicted": predicted},
        *(g.variables, g.sets[name]),
        batch_size=g.batch_size,
        progress=g.progress and name,
    )
    return kept.Scored(found, fitted.chosen, fitted.not_run)


# ---- methods, fitted ----------------------------------------------------------------


class _Given(NamedTuple):
    sets: Mapping[str, ImageStream]
    model: Any
    variables: Any
    num_classes: int
    singularity: Singularity
    seed: int
    batch_size: int
    epsilons: tuple[float, ...]
    progress: bool


def _given(sets, model, variables, num_classes, *, noise: int, **options) -> _Given:
    shape, feature_fn = next(iter(sets["test"]))[0].shape, _features(model)
    drawn = uniform_noise(of_seed(options["seed"], Use.OPENOOD_NOISE), noise, shape)
    if options["batch_size"] is None:
        options["batch_size"] = scoring_batch(feature_fn, variables, drawn[:1])
    singularity = estimate_singularity(
        feature_fn, variables, drawn, options["batch_size"]
    )
    return _Given(sets, model, variables, num_classes, singularity, **options)


class _Fitted(NamedTuple):
    questions: dict[str, Question]
    chosen: dict[str, float]  # ε and k
    not_run: dict[str, str]


def _fit(g: _Given) -> _Fitted:
    questions: dict[str, Question] = {}
    chosen: dict[str, float] = {}
    not_run: dict[str, str] = {}
    for method, (fit, needed) in FITS.items():
        missing = [name for name in needed if name not in g.sets]
        if missing:
            not_run[method] = f"without {' and '.join(missing)}"
            continue
        # FSSD warns of layers that it leaves out.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                questions[method], choice = fit(g)
            except InputError as error:
                not_run[method] = str(error)
                continue
        chosen |= choice
        told = "; ".join(str(warning.message) for warning in caught)
        not_run |= {f"{method}, warning": told} if told else {}
    return _Fitted(questions, chosen, not_run)


Fit = tuple[Question, dict[str, float]]  # and what was chosen on validation sets


def _label_free(g: _Given) -> Fit:
    return Question(fssd.score, _features(g.model), _fssd(g, "val")), {}


def _labelled(g: _Given) -> Fit:
    state = _fssd(g, "val", "val_ood")
    epsilon = 0.0 if state.epsilon is None else float(state.epsilon)
    return Question(fssd.score, _features(g.model), state), {"ε": epsilon}


def _fssd(g: _Given, *validation: str) -> fssd.State:
    return fssd.fit(
        *(_features(g.model), g.variables, g.singularity),
        *(g.sets[name] for name in validation),
        epsilons=g.epsilons,
        seed=g.seed,
        batch_size=g.batch_size,
        progress=g.progress,
    )


def _msp(g: _Given) -> Fit:
    return Question(msp.score, _logits(g.model), msp.fit()), {}


def _energy(g: _Given) -> Fit:
    return Question(energy.score, _logits(g.model), energy.fit()), {}


def _gaussians(g: _Given) -> Fit:
    last, train = _last_features(g.model), g.sets["train"]
    gaussians = mahalanobis.estimate_gaussians(
        *(last, g.variables, train, train.y, g.num_classes), batch_size=g.batch_size
    )
    return Question(_nearest_class, last, gaussians), {}


def _neighbours(g: _Given) -> Fit:
    last, train = _last_features(g.model), g.sets["train"]
    tried = [k for k in NEIGHBOURS if k <= len(train.files)]
    if not tried:
        raise InputError(f"fewer than {NEIGHBOURS[0]} training images")
    bank = knn.fit(last, g.variables, train, LAST, k=tried[0], batch_size=g.batch_size)
    each = {
        f"{k}": Question(knn.score, last, bank._replace(ranks=jnp.arange(1, k + 1)))
        for k in tried
    }
    ind, ood = (
        look(each, g.variables, g.sets[name], batch_size=g.batch_size)
        for name in ("val", "val_ood")
    )
    best = max(each, key=lambda k: evaluate(ind[k], ood[k]).auroc)
    return each[best], {"k": float(best)}


# Method → how it is fitted, and by which sets.
FITS: dict[str, tuple[Callable[[_Given], Fit], tuple[str, ...]]] = {
    LABEL_FREE: (_label_free, ("val",)),
    LABELLED: (_labelled, ("val", "val_ood")),
    "MSP": (_msp, ()),
    "EBO": (_energy, ()),
    "MDS": (_gaussians, ("train",)),
    "KNN": (_neighbours, ("train", "val", "val_ood")),
}
METHODS = tuple(FITS)


# Kept, because what is compiled for one training run is found again by these functions.
_features = lru_cache(maxsize=8)(make_feature_fn)
_logits = lru_cache(maxsize=8)(make_logit_fn)


@lru_cache(maxsize=8)
def _last_features(model: Any) -> FeatureFn:
    """The last feature layer, pooled over the image: [batch, channels]."""
    name = model.feature_layers[-1]
    whole = make_feature_fn(model, [name])

    def last(variables, x) -> OrderedDict[str, Array]:
        return OrderedDict([(LAST, whole(variables, x)[name].mean((1, 2)))])

    return last


def _nearest_class(feature_fn, variables, gaussians, x) -> Float[Array, " batch"]:
    return mahalanobis.confidences(feature_fn, variables, gaussians, x)[:, 0]


def _predicted(logit_fn, variables, state, x) -> Int[Array, " batch"]:
    return logits_of(logit_fn, variables, x).argmax(-1)
