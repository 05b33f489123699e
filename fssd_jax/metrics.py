"""AUROC, AUPRC and FPR at a wanted TPR: exact, tie-aware, with bootstrap intervals.

In-distribution is the positive class and a higher score means more in-distribution.
"""

from typing import NamedTuple

import numpy as np

from fssd_jax import checks

Interval = tuple[float, float]


class Metrics(NamedTuple):
    """Fractions in [0, 1]; each interval is a 95 % percentile bootstrap interval."""

    auroc: float
    auprc: float
    fpr80: float
    fpr95: float
    auroc_ci95: Interval
    auprc_ci95: Interval
    fpr80_ci95: Interval
    fpr95_ci95: Interval


def evaluate(ind, ood, *, resamples: int = 1000, seed: int = 0) -> Metrics:
    """Metrics of the scores of in-distribution (positive) and OoD (negative) images.

    AUROC counts a tie as one half (Mann–Whitney); AUPRC is average precision,
    Σ (R_n − R_{n−1}) P_n over distinct thresholds; FPR80 is the false positive rate
    at the first threshold whose true positive rate is at least 80 %.

    Args:
      ind: scores [n] of in-distribution images.
      ood: scores [m] of OoD images.
      resamples: bootstrap resamples, drawn from each set separately.
      seed: of the resampling.

    Raises:
      InputError: an empty set, or scores that are not finite.
    """
    ind, ood = checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD")
    # Sort once; a resample only changes how often each distinct score occurs.
    values, index = np.unique(-np.concatenate([ind, ood]), return_inverse=True)
    groups_ind, groups_ood = index[: len(ind)], index[len(ind) :]

    def count(groups):
        return np.bincount(groups, minlength=len(values))

    point = _from_counts(count(groups_ind), count(groups_ood))
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            _from_counts(
                count(rng.choice(groups_ind, len(ind))),
                count(rng.choice(groups_ood, len(ood))),
            )
            for _ in range(resamples)
        ]
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    intervals = list(zip(low.tolist(), high.tolist(), strict=True))
    return Metrics(*map(float, point), *intervals)  # pyright: ignore[reportArgumentType]


def auroc(ind, ood) -> float:
    """P(score of a random in-distribution image > that of an OoD one), ties ½."""
    ind, ood = checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD")
    ordered = np.sort(ood)
    below = np.searchsorted(ordered, ind, "left")
    at_most = np.searchsorted(ordered, ind, "right")
    return float((below + at_most).sum() / (2 * len(ind) * len(ood)))


def _from_counts(positives, negatives) -> tuple[float, float, float, float]:
    """Metrics from how often each distinct score occurs, best score first."""
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    # A tied group is one straight piece of the ROC curve: the trapezoid gives it ½.
    auroc = (negatives * (tp - positives / 2)).sum() / (tp[-1] * fp[-1])
    seen = np.maximum(tp + fp, 1)  # 0 only where a resample has not begun yet
    auprc = (positives * (tp / seen)).sum() / tp[-1]
    # Whole numbers, because 0.8 · n in floating point may land just above a count.
    fpr80 = fp[np.argmax(100 * tp >= 80 * tp[-1])] / fp[-1]
    fpr95 = fp[np.argmax(100 * tp >= 95 * tp[-1])] / fp[-1]
    return auroc, auprc, fpr80, fpr95
