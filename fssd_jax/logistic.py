"""Logistic regression of a few columns, its strength C chosen by cross-validation.

    min over w, b:   ½‖w‖² + C Σ_i log(1 + exp(−s_i (w·z_i + b))),   s_i = ±1,
    z = (d − mean) / std

C is the one of ten values, 10⁻⁴ to 10⁴, that predicts best, by mean accuracy on five
stratified folds; a tie goes to the smallest. This is scikit-learn's StandardScaler and
LogisticRegressionCV, which solves one fold and one C after the other and took nine
tenths of a fit's time: here Newton's method solves all of them together.
"""

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

STRENGTHS = np.logspace(-4, 4, 10)
FOLDS = 5
STEPS = 200  # of Newton's method; ten to twenty are usual
HALVINGS = 60  # of a step that goes too far
# Of tables so small, threads of BLAS wait for each other longer than they compute.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


class Weights(NamedTuple):
    """Of scores that are standardised, (d − center) / scale, before they are weighted.

    Arrays of float64.
    """

    center: np.ndarray  # [columns]
    scale: np.ndarray  # [columns]
    alpha: np.ndarray  # [columns]
    intercept: float


def decide(weights: Weights, d: np.ndarray) -> np.ndarray:
    """The log odds of class 1 [n], of columns d [n, columns]."""
    standard = (d - weights.center) / weights.scale
    return standard @ weights.alpha + weights.intercept


@one_thread
def fit(d: np.ndarray, y: np.ndarray) -> Weights:
    """Weights, with the C that predicts best.

    Args:
      d: [n, columns] float64.
      y: [n] 1 or 0, at least five of each.
    """
    # Here, as scikit-learn takes longer to import than all of JAX, and only fits with
    # labels need it.
    from sklearn.model_selection import StratifiedKFold

    center, scale = d.mean(0), d.std(0)
    # A column that is constant in this part of a set says nothing.
    scale = np.where(scale > 10 * np.finfo(np.float64).eps * abs(center), scale, 1)
    z = (d - center) / scale
    held = np.zeros((FOLDS, len(y)), bool)
    for fold, (_, rows) in enumerate(StratifiedKFold(FOLDS).split(d, y)):
        held[fold, rows] = True
    w = minimise(z, y, np.repeat(~held, len(STRENGTHS), 0), np.tile(STRENGTHS, FOLDS))
    right = ((w[:, :-1] @ z.T + w[:, -1:] > 0) == (y == 1)[None]).reshape(
        FOLDS, len(STRENGTHS), -1
    )
    accuracy = (right & held[:, None]).sum(-1) / held.sum(-1)[:, None]
    # In whole numbers of a unit that no difference of accuracies is smaller than, so
    # that a tie is one.
    total = np.round(accuracy.sum(0), 9)
    best = STRENGTHS[np.argmax(total)]
    (whole,) = minimise(z, y, np.ones((1, len(y)), bool), best[None])
    return Weights(center, scale, whole[:-1], float(whole[-1]))


def minimise(
    z: np.ndarray, y: np.ndarray, used: np.ndarray, strengths: np.ndarray
) -> np.ndarray:
    """(w, b) [problem, columns + 1] of regressions on parts of the same rows.

    Args:
      z: [n, columns].
      y: [n] 1 or 0.
      used: [problem, n] whether a row is among those that are fitted.
      strengths: [problem] C.

    Raises:
      RuntimeError: Newton's method did not end.
    """
    x = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    size = x.shape[1]
    # All Hessians Σ_i r_i x_i x_iᵀ are one matrix product.
    products = (x[:, :, None] * x[:, None]).reshape(len(x), size**2)
    penalty = np.append(np.ones(size - 1), 0.0)
    found = np.zeros((len(strengths), size))

    def evaluate(w, weight):
        """The objective, and the probabilities of class 1."""
        f = w @ x.T
        small = np.exp(-abs(f))  # one exponential for both
        losses = np.maximum(f, 0) - y * f + np.log1p(small)
        value = (weight * losses).sum(1) + 0.5 * (penalty * w**2).sum(1)
        return value, np.where(f > 0, 1, small) / (1 + small)

    open_ = np.arange(len(strengths))  # the problems that are not solved yet
    w, weight = found, used * strengths[:, None]
    value, p = evaluate(w, weight)
    for _ in range(STEPS):
        gradient = (weight * (p - y)) @ x + penalty * w
        curvature = ((weight * p * (1 - p)) @ products).reshape(-1, size, size)
        step = np.linalg.solve(curvature + np.diag(penalty), gradient[..., None])
        step = step[..., 0]
        # As H ≥ 1 in w, its square root bounds the distance to the minimum.
        decrement = (gradient * step).sum(1)
        length = np.ones(len(w))
        for _ in range(HALVINGS):
            trial = w - length[:, None] * step
            trial_value, p = evaluate(trial, weight)
            # Up to rounding, which is all that is left near the minimum.
            allowed = value - 1e-4 * length * decrement + 1e-11 * (1 + abs(value))
            worse = trial_value > allowed
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        found[open_] = trial
        left = decrement > 1e-12
        if not left.any():
            return found
        open_, w, weight = open_[left], trial[left], weight[left]
        value, p = trial_value[left], p[left]
    raise RuntimeError(f"logistic regression: no minimum after {STEPS} Newton steps")
