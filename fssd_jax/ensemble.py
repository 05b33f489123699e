"""Layer ensemble Σ_k α_k FSSD^(k): α from logistic regression, and the choice of ε.

Nested cross-validation inside the validation set, as in "Evaluation" of the paper and
in Lee et al. (2018): five stratified outer folds choose ε; inside each, and in the
final fit on the whole validation set, the regression chooses its own strength (see
`logistic`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from tqdm import tqdm

from fssd_jax import checks, logistic
from fssd_jax.checks import InputError
from fssd_jax.data.inputs import count_rows
from fssd_jax.data.pipeline import bar_options
from fssd_jax.logistic import FOLDS, Weights
from fssd_jax.metrics import auroc
from fssd_jax.shown import brief

# "from 0 to 0.2 with step size 0.01" (Evaluation), in pixel units.
EPSILONS = tuple(i / 100 for i in range(21))

# (in-distribution scores, OoD scores) -> how well they are told apart
Criterion = Callable[[np.ndarray, np.ndarray], float]
# ([n, columns], classes [n]) -> weights
Regression = Callable[[np.ndarray, np.ndarray], Weights]

# Each outer training part, 4/5 of a set, must still fill the inner folds.
FEWEST = 10
# What varies by less, relative to its mean, is rounding: the unit of float32 is 6e-8,
# and a score is a sum of many terms.
ROUNDING = 1e-6
LEAST = 1e-12  # of a distance whose logarithm is taken


class Ensemble(NamedTuple):
    """Scores are standardised, (d − center) / scale, before they are weighted.

    With `logs`, d is the logarithm of the score.
    """

    center: Float[Array, " layers"]
    scale: Float[Array, " layers"]
    alpha: Float[Array, " layers"]  # its sign is the sign that the layer was given
    intercept: Float[Array, ""]
    logs: Bool[Array, " layers"] | None = None  # None: of none

    __repr__ = brief


class EpsilonChoice(NamedTuple):
    epsilon: float
    auroc: np.ndarray  # [epsilon] mean over the outer folds, or of another criterion

    __repr__ = brief


def combine(
    ensemble: Ensemble, d: Float[Array, "batch layers"]
) -> Float[Array, " batch"]:
    """Σ_k α_k (d_k − center_k) / scale_k + intercept."""
    if ensemble.logs is not None:
        d = jnp.where(ensemble.logs[None], jnp.log(jnp.maximum(d, LEAST)), d)
    standard = (d - ensemble.center[None]) / ensemble.scale[None]
    # What is left out is not looked at: 0 times infinity would be no number.
    standard = jnp.where(ensemble.alpha[None] == 0, 0, standard)
    # In full precision on every device: a score is a sum of few numbers.
    return (
        jnp.matmul(standard, ensemble.alpha, precision="highest") + ensemble.intercept
    )


def fit_ensemble(
    ind, ood, layers: list[str], regression: Regression = logistic.fit
) -> Ensemble:
    """α by logistic regression on standardised layer scores, in-distribution positive.

    Args:
      ind: [n, layers] scores of in-distribution validation images.
      ood: [m, layers] scores of OoD validation images.
      layers: their names, for errors.
      regression: fits the weights.

    Raises:
      InputError: one of the sets is missing or too small, or a layer gives all images
        the same score, up to rounding.
    """
    d, y = _labelled(ind, ood, layers)
    return Ensemble(*(jax.device_put(np.float32(a)) for a in regression(d, y)))


def standardise(d, layers: list[str], alpha=None, *, logs: bool = False) -> Ensemble:
    """Weights without OoD data: Σ_k α_k (d_k − mean_k) / std_k.

    Args:
      d: [n, layers] scores of in-distribution validation images.
      layers: their names, for errors.
      alpha: [layers] by default every layer counts as 1.
      logs: whether d_k is the logarithm of the score, which must not be negative then.

    Raises:
      InputError: no images, scores that are not finite, or a layer that gives all
        images the same score, up to rounding.
    """
    d = np.asarray(d, np.float64)
    if d.shape != (len(d), len(layers)) or not d.size or not np.isfinite(d).all():
        raise InputError(
            f"in-distribution scores: expected finite numbers [count, {len(layers)}], "
            f"got {d.shape}, some of them missing or not finite"
        )
    alpha = np.ones(len(layers)) if alpha is None else np.asarray(alpha)
    counted = [name for name, a in zip(layers, alpha, strict=True) if a != 0]
    check_varied(d[:, alpha != 0], counted, "in-distribution")
    if logs:
        d = np.log(np.maximum(d, LEAST))
    center, scale = d.mean(0), d.std(0)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1)  # if left out, say
    found = Ensemble(
        *(jax.device_put(np.float32(a)) for a in (center, scale, alpha, 0))
    )
    return found._replace(logs=jnp.full(len(layers), True)) if logs else found


def check_varied(d: np.ndarray, layers: list[str], which: str) -> None:
    """Raise if a layer gives all images the same score, up to rounding.

    Standardised, its rounding errors would be worth as much as another layer's scores.
    """
    # What is 0 in float32 cannot be divided by.
    least = np.maximum(ROUNDING * abs(d.mean(0)), np.finfo(np.float32).tiny)
    flat = [n for n, v in zip(layers, d.std(0) > least, strict=True) if not v]
    if flat:
        raise InputError(
            f"layers {flat} give all {which} images the same score, up to rounding: "
            "too few images, or constant features (dead units?); give more images, or "
            "leave the layers out: make_feature_fn(model, layers=[...])"
        )


def fit_swept(
    ind,
    ood,
    epsilons: Sequence[float],
    layers: list[str],
    seed: int,
    progress: bool = False,
) -> tuple[EpsilonChoice, Ensemble]:
    """ε by nested cross-validation, then α on all validation images at that ε.

    Args: as in `choose_epsilon`.
    """
    choice = choose_epsilon(ind, ood, epsilons, layers, seed, progress=progress)
    best = list(epsilons).index(choice.epsilon)
    return choice, fit_ensemble(ind[best], ood[best], layers)


def check_validation(ind, ood, epsilons: Sequence[float]) -> None:
    """Before a sweep, which takes long: are there images and steps enough?"""
    if ind is None:
        raise InputError("fit: OoD validation images need in-distribution ones beside")
    for name, part in (("in-distribution", ind), ("OoD", ood)):
        count = count_rows(part)  # None of a stream, which is counted on the way
        if count is not None and count < FEWEST:
            raise InputError(
                f"{name} validation set: {count} images; nested cross-validation "
                f"needs at least {FEWEST}"
            )
    steps = checks.to_numpy(epsilons, "epsilons")
    if steps.ndim != 1 or not len(steps) or np.any(np.diff(steps) <= 0):
        raise InputError(f"epsilons must ascend without repeats, got {epsilons}")


def choose_epsilon(
    ind,
    ood,
    epsilons,
    layers: list[str],
    seed=0,
    regression: Regression = logistic.fit,
    criterion: Criterion = auroc,
    progress: bool = False,
) -> EpsilonChoice:
    """The ε with the best mean AUROC over five outer folds; a tie keeps the first.

    Args:
      ind: [epsilon, n, layers] swept scores of in-distribution validation images.
      ood: [epsilon, m, layers] the same for OoD validation images.
      epsilons: [epsilon] in the order of preference: ascending in the paper's protocol.
      layers: names of the layers, for errors.
      seed: of the fold assignment, which all ε share.
      regression: as in `fit_ensemble`.
      criterion: what is averaged over the folds.
      progress: whether to show a progress bar.

    Raises:
      InputError: no or repeated ε, or not as many as were swept; as `fit_ensemble`.
    """
    from sklearn.model_selection import StratifiedKFold  # seconds, see `logistic`

    epsilons = np.asarray(epsilons, np.float64)
    if len(epsilons) == 0 or len(set(epsilons)) < len(epsilons):
        raise InputError(f"epsilons: one or more, without repeats; got {epsilons}")
    for name, swept in (("in-distribution", ind), ("OoD", ood)):
        if len(swept) != len(epsilons):
            raise InputError(
                f"{name} validation scores: swept over {len(swept)} ε, but {epsilons} "
                f"are {len(epsilons)}; give the ε that were swept, in their order"
            )
    means = []
    bar = tqdm(
        zip(ind, ood, strict=True),
        total=len(epsilons),
        desc="choose ε",
        **bar_options("ε", progress),
    )
    for ind_e, ood_e in bar:
        d, y = _labelled(ind_e, ood_e, layers)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(d, y)
        of_folds = []
        for train, held in folds:
            score = logistic.decide(regression(d[train], y[train]), d[held])
            of_folds.append(criterion(score[y[held] == 1], score[y[held] == 0]))
        means.append(np.mean(of_folds))
    return first_best(epsilons, means)


def first_best(epsilons, values) -> EpsilonChoice:
    """The first ε whose value is the best, up to rounding."""
    values = np.asarray(values)
    best = int(np.argmax(values >= values.max() - 1e-12))
    return EpsilonChoice(float(epsilons[best]), values)


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
    check_varied(d, layers, "validation")
    return d, np.concatenate([np.ones(len(ind)), np.zeros(len(ood))])
