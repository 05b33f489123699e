"""Layer ensemble Σ_k α_k FSSD^(k): α from logistic regression, and the choice of ε.

Nested cross-validation inside the validation set, as in "Evaluation" of the paper and
in Lee et al. (2018): five stratified outer folds choose ε; inside each, and in the
final fit on the whole validation set, `LogisticRegressionCV` chooses its own strength.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fssd_jax.checks import InputError
from fssd_jax.metrics import auroc

FOLDS = 5
# Each outer training part, 4/5 of a set, must still fill the inner folds.
FEWEST = 10


class Ensemble(NamedTuple):
    """Scores are standardised, (d − center) / scale, before they are weighted."""

    center: Float[Array, " layers"]
    scale: Float[Array, " layers"]
    alpha: Float[Array, " layers"]  # its sign is the sign that the layer was given
    intercept: Float[Array, ""]


class EpsilonChoice(NamedTuple):
    epsilon: float
    auroc: np.ndarray  # [epsilon] mean over the outer folds


def combine(
    ensemble: Ensemble, d: Float[Array, "batch layers"]
) -> Float[Array, " batch"]:
    """Σ_k α_k (d_k − center_k) / scale_k + intercept."""
    standard = (d - ensemble.center[None]) / ensemble.scale[None]
    return standard @ ensemble.alpha + ensemble.intercept


def fit_ensemble(ind, ood, layers: list[str]) -> Ensemble:
    """α by logistic regression on standardised layer scores, in-distribution positive.

    Args:
      ind: [n, layers] scores of in-distribution validation images.
      ood: [m, layers] scores of OoD validation images.
      layers: their names, for errors.

    Raises:
      InputError: one of the sets is missing or too small, or a layer is constant.
    """
    d, y = _labelled(ind, ood, layers)
    model = logistic_regression().fit(d, y)
    scaler, regression = (step for _, step in model.steps)
    return Ensemble(
        jnp.asarray(scaler.mean_, jnp.float32),
        jnp.asarray(scaler.scale_, jnp.float32),
        jnp.asarray(regression.coef_[0], jnp.float32),
        jnp.asarray(regression.intercept_[0], jnp.float32),
    )


def choose_epsilon(ind, ood, epsilons, layers: list[str], seed=0) -> EpsilonChoice:
    """The ε with the best mean AUROC over five outer folds; a tie keeps the smaller.

    Args:
      ind: [epsilon, n, layers] swept scores of in-distribution validation images.
      ood: [epsilon, m, layers] the same for OoD validation images.
      epsilons: [epsilon] ascending.
      layers: names of the layers, for errors.
      seed: of the fold assignment, which all ε share.
    """
    epsilons = np.asarray(epsilons, np.float64)
    if len(epsilons) == 0 or np.any(np.diff(epsilons) <= 0):
        raise InputError(f"epsilons must ascend without repeats, got {epsilons}")
    means = []
    for ind_e, ood_e in zip(ind, ood, strict=True):
        d, y = _labelled(ind_e, ood_e, layers)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(d, y)
        fold_aurocs = []
        for train, held in folds:
            model = logistic_regression().fit(d[train], y[train])
            score = model.decision_function(d[held])
            fold_aurocs.append(auroc(score[y[held] == 1], score[y[held] == 0]))
        means.append(np.mean(fold_aurocs))
    means = np.array(means)
    best = int(np.argmax(means >= means.max() - 1e-12))  # the first: the smallest ε
    return EpsilonChoice(float(epsilons[best]), means)


def logistic_regression() -> Pipeline:
    """The paper's "logistic regression model", its strength chosen by inner folds."""
    return make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=10,
            cv=FOLDS,
            scoring="accuracy",
            # scikit-learn carries no types, and the defaults mislead the checker.
            l1_ratios=(0.0,),  # pyright: ignore[reportArgumentType]
            use_legacy_attributes=False,  # pyright: ignore[reportArgumentType]
        ),
    )


def _labelled(ind, ood, layers):
    ind, ood = np.asarray(ind, np.float64), np.asarray(ood, np.float64)
    for name, part in (("in-distribution", ind), ("OoD", ood)):
        if part.ndim != 2 or part.shape[1] != len(layers):
            raise InputError(
                f"{name} validation scores: expected [count, {len(layers)}], one "
                f"column for each of {layers}, got {part.shape}"
            )
        if len(part) < FEWEST:
            raise InputError(
                f"{name} validation set: {len(part)} images; nested cross-validation "
                f"needs both classes with at least {FEWEST} each"
            )
        if not np.isfinite(part).all():
            raise InputError(f"{name} validation scores hold NaN or infinite values")
    d = np.concatenate([ind, ood])
    spread = d.max(axis=0) - d.min(axis=0)
    dead = [name for name, s in zip(layers, spread, strict=True) if s == 0]
    if dead:
        raise InputError(
            f"layers {dead} give every validation image the same score: their features "
            "are constant (dead units?); leave them out with layers=[...]"
        )
    return d, np.concatenate([np.ones(len(ind)), np.zeros(len(ood))])
