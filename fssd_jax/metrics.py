"""AUROC, AUPRC and FPR at a wanted TPR: exact, tie-aware, with bootstrap intervals.

In-distribution is the positive class and a higher score means more in-distribution.
`paired` tests whether two scores of the same images differ in AUROC.
"""

import math
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
    return float(_wins(ind, ood).sum() / (2 * len(ind) * len(ood)))


class Paired(NamedTuple):
    """AUROC of the first score less that of the second, in [−1, 1]."""

    difference: float
    ci95: Interval  # normal approximation
    p: float  # two-sided, of the hypothesis that there is no difference


def paired(ind_a, ood_a, ind_b, ood_b) -> Paired:
    """Test the difference of two AUROCs on the same images, by DeLong et al.

    Let V_i be the share of OoD images that in-distribution image i exceeds, and W_j
    the share of in-distribution images that exceed OoD image j; a tie counts one half.
    AUROC is the mean of either. With D_i = V_i(a) − V_i(b) and E_j = W_j(a) − W_j(b),

        difference = mean(D),    Var(difference) = s²(D) / n + s²(E) / m,

    and the difference over the root of its variance is about standard normal if the
    AUROCs are equal. Where a score makes next to no error V and W hardly vary, and the
    test is too sure of itself.

    DeLong, DeLong and Clarke-Pearson (1988), "Comparing the Areas under Two or More
    Correlated Receiver Operating Characteristic Curves"; by sorting in O(n log n), as
    Sun and Xu (2014), "Fast Implementation of DeLong's Algorithm".

    Args:
      ind_a: first scores [n] of in-distribution images.
      ood_a: first scores [m] of OoD images.
      ind_b: second scores [n] of the same in-distribution images, in the same order.
      ood_b: second scores [m] of the same OoD images, in the same order.

    Raises:
      InputError: a set of fewer than two, scores that are not finite, or first and
        second scores of which there are not equally many.
    """
    ind_a, ind_b = (checks.scores(s, "in-distribution") for s in (ind_a, ind_b))
    ood_a, ood_b = (checks.scores(s, "OoD") for s in (ood_a, ood_b))
    n, m = len(ind_a), len(ood_a)
    if (n, m) != (len(ind_b), len(ood_b)):
        raise checks.InputError(
            f"paired: expected two scores of the same images, got {n} and {len(ind_b)} "
            f"in-distribution, {m} and {len(ood_b)} OoD"
        )
    if min(n, m) < 2:
        raise checks.InputError(
            f"paired: expected two images or more of either set, got {n} "
            f"in-distribution, {m} OoD"
        )
    over_ind = (_wins(ind_a, ood_a) - _wins(ind_b, ood_b)) / (2 * m)
    over_ood = (_wins(ood_b, ind_b) - _wins(ood_a, ind_a)) / (2 * n)
    difference = over_ind.mean()
    error = math.sqrt(over_ind.var(ddof=1) / n + over_ood.var(ddof=1) / m)
    # The error is 0 where every image wins as often by either score: equal scores, say.
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error else difference == 0
    low, high = difference - 1.959964 * error, difference + 1.959964 * error
    return Paired(float(difference), (float(low), float(high)), float(p))


def _wins(scores, others) -> np.ndarray:
    """How many others each score exceeds, twice, so that a tie counts 1."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left")
    return below + np.searchsorted(ordered, scores, "right")


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
