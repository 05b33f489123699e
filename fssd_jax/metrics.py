"""AUROC, AUPRC and FPR at a wanted TPR: exact, tie-aware, with intervals.

In-distribution is the positive class and a higher score means more in-distribution.
`paired` tests whether two scores of the same images differ in AUROC.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fssd_jax import checks, intervals
from fssd_jax.intervals import Interval
from fssd_jax.shown import brief


class Metrics(NamedTuple):
    """Fractions in [0, 1], each with a 95 % interval; see `evaluate`."""

    auroc: float
    auprc: float
    fpr80: float
    fpr95: float
    auroc_ci95: Interval
    auprc_ci95: Interval
    fpr80_ci95: Interval
    fpr95_ci95: Interval

    __repr__ = brief


def evaluate(ind, ood) -> Metrics:
    """Metrics of the scores of in-distribution (positive) and OoD (negative) images.

    AUROC counts a tie as one half (Mann–Whitney); AUPRC is average precision,
    Σ (R_n − R_{n−1}) P_n over distinct thresholds (`auprc_out` is that of OoD images);
    FPR80 is the false positive rate at the first threshold whose true positive rate is
    at least 80 % (`fpr_at` has any other).

    The intervals are of new images of both kinds, by the same network and detector;
    nothing is resampled. AUROC and AUPRC: Clopper–Pearson with the number of trials
    that has their variance, by DeLong and by the influence of each image, made safe for
    few errors (`intervals.auroc`; for AUPRC, the largest variance of the sample and of
    it with one image more, of either kind, that scores above all). FPR: Clopper–Pearson
    averaged over where the true threshold may lie (`intervals.rate_at`): with fewer
    than 72 in-distribution images the upper end of FPR95 is 1, with fewer than 17 that
    of FPR80.

    Args:
      ind: scores [n] of in-distribution images.
      ood: scores [m] of OoD images.

    Raises:
      InputError: an empty set, or scores that are not finite.
    """
    ind, ood = checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD")
    positives, negatives = _counts(ind, ood)
    auroc, auroc_variance = _auroc(positives, negatives)
    auprc, trials = _safe_auprc(positives, negatives)
    return Metrics(
        auroc,
        auprc,
        _rate_at(positives, negatives, 80),
        _rate_at(positives, negatives, 95),
        intervals.auroc(auroc, auroc_variance, min(len(ind), len(ood))),
        intervals.share(auprc, trials),
        intervals.rate_at(positives, negatives, 80),
        intervals.rate_at(positives, negatives, 95),
    )


class Rate(NamedTuple):
    """A fraction in [0, 1] with its 95 % interval."""

    value: float
    ci95: Interval

    __repr__ = brief


def auprc_out(ind, ood) -> Rate:
    """Average precision with OoD as the positive class, by the negated score.

    Args and errors as of `evaluate`.
    """
    counts = _counts(checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD"))
    positives, negatives = counts
    # OoD images that score lowest come first.
    value, trials = _safe_auprc(negatives[::-1], positives[::-1])
    return Rate(value, intervals.share(value, trials))


def fpr_at(ind, ood, tpr: float) -> Rate:
    """The false positive rate at the first threshold with that true positive rate.

    Args:
      ind: scores [n] of in-distribution images, the positive class.
      ood: scores [m] of OoD images.
      tpr: in (0, 1]; a decimal such as 0.95 is that fraction exactly.

    Raises:
      InputError: another tpr; an empty set, or scores that are not finite.
    """
    if not 0 < tpr <= 1:
        raise checks.InputError(f"tpr: expected above 0 and to 1, got {tpr}")
    counts = _counts(checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD"))
    percent = 100 * Fraction(str(tpr))
    ends = intervals.rate_at(*counts, float(percent))
    return Rate(_rate_at(*counts, percent), ends)


def auroc(ind, ood) -> float:
    """P(score of a random in-distribution image > that of an OoD one), ties ½."""
    ind, ood = checks.scores(ind, "in-distribution"), checks.scores(ood, "OoD")
    return float(_wins(ind, ood).sum() / (2 * len(ind) * len(ood)))


class Paired(NamedTuple):
    """AUROC of the first score less that of the second, in [−1, 1]."""

    difference: float
    ci95: Interval
    p: float  # two-sided, of the hypothesis that there is no difference

    __repr__ = brief


def paired(ind_a, ood_a, ind_b, ood_b) -> Paired:
    """Test the difference of two AUROCs on the same images, by DeLong et al.

    Let V_i be the share of OoD images that in-distribution image i exceeds, and W_j
    the share of in-distribution images that exceed OoD image j; a tie counts one half.
    AUROC is the mean of either. With D_i = V_i(a) − V_i(b) and E_j = W_j(a) − W_j(b),

        difference = mean(D),    Var(difference) = s²(D) / n + s²(E) / m,

    and the difference over the root of its variance is about standard normal if the
    AUROCs are equal: p, which is never below 2^(1 − min(n, m)), that of a sign test.

    Near AUROC 1 that variance is too small if the AUROCs differ; p stays honest, being
    of equal ones. `ci95` so comes from the intervals [l, u] of A = AUROC(a) and B,
    as in `evaluate`, and DeLong's correlation r of the two (Zou and Donner 2008):

        low = A − B − √((A − l_A)² + (u_B − B)² − 2 r (A − l_A)(u_B − B)),

    and high likewise. It is wider than p tells, and may hold 0 with p < 0.05.

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
    over = np.stack([_wins(ind_a, ood_a), _wins(ind_b, ood_b)]) / (2 * m)
    under = 1 - np.stack([_wins(ood_a, ind_a), _wins(ood_b, ind_b)]) / (2 * n)
    a, b = over.mean(1).tolist()
    covariance = np.cov(over) / n + np.cov(under) / m
    error = math.sqrt(
        np.var(over[0] - over[1], ddof=1) / n + np.var(under[0] - under[1], ddof=1) / m
    )
    # The error is 0 where every image wins as often by either score: equal scores, say.
    p = math.erfc(abs(a - b) / error / math.sqrt(2)) if error else float(a == b)
    low_a, high_a = intervals.auroc(a, covariance[0, 0], min(n, m))
    low_b, high_b = intervals.auroc(b, covariance[1, 1], min(n, m))
    errors = math.sqrt(covariance[0, 0] * covariance[1, 1])
    r = covariance[0, 1] / errors if errors else 0.0

    def reach(x, y):
        return math.sqrt(max(x * x + y * y - 2 * r * (x * y), 0))

    low = a - b - reach(a - low_a, high_b - b)
    high = a - b + reach(high_a - a, b - low_b)
    return Paired(a - b, (low, high), max(p, 2.0 ** (1 - min(n, m))))


def _counts(ind: np.ndarray, ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each distinct score occurs in either set, best first."""
    values, index = np.unique(-np.concatenate([ind, ood]), return_inverse=True)
    groups = index[: len(ind)], index[len(ind) :]
    positives, negatives = (np.bincount(g, minlength=len(values)) for g in groups)
    return positives, negatives


def _wins(scores, others) -> np.ndarray:
    """How many others each score exceeds, twice, so that a tie counts 1."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left")
    return below + np.searchsorted(ordered, scores, "right")


def _auroc(positives, negatives) -> tuple[float, float]:
    """AUROC, and DeLong's estimate of its variance."""
    n, m = positives.sum(), negatives.sum()
    # A tied group is one straight piece of the ROC curve: each counts one half.
    over_ood = 1 - (np.cumsum(negatives) - negatives / 2) / m
    under_ind = (np.cumsum(positives) - positives / 2) / n
    variance = _variance(positives, over_ood) + _variance(negatives, under_ind)
    return float((positives * over_ood).sum() / n), variance


def _auprc(positives, negatives) -> tuple[float, float]:
    """Average precision, and how many trials of a share would vary as much.

    With the precision P = tp / (tp + fp) at each score, an in-distribution image there
    adds P and raises P at each lower score; an OoD image lowers it there.
    """
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    n, m, seen = tp[-1], fp[-1], tp + fp

    def lower(at):
        return np.cumsum(at[::-1])[::-1]

    precision = tp / seen
    of_ind = precision + lower(positives * fp / seen / seen)
    of_ood = lower(positives * precision / seen) * (m / n)
    value = float((positives * precision).sum() / n)
    variance = _variance(positives, of_ind) + _variance(negatives, of_ood)
    return value, value * (1 - value) / variance if variance else math.inf


def _safe_auprc(positives, negatives) -> tuple[float, float]:
    """Average precision, and the fewest trials of three samples.

    As if one more image of either kind, better than all, had been seen: the best
    scores decide most, and those of the sample may happen to be all of one kind.
    """
    value, trials = _auprc(positives, negatives)
    for first_positive, first_negative in ((1, 0), (0, 1)):
        more = (
            np.append(first_positive, positives),
            np.append(first_negative, negatives),
        )
        trials = min(trials, _auprc(*more)[1])
    return value, trials


def _rate_at(positives, negatives, percent: int | Fraction) -> float:
    """False positive rate at the first threshold with that true positive rate."""
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    # Whole numbers, because 0.8 · n in floating point may land just above a count.
    least = math.ceil(Fraction(percent) * int(tp[-1]) / 100)
    return float(fp[np.argmax(tp >= least)] / fp[-1])


def _variance(counts, values) -> float:
    """Of the mean of `values`, each seen `counts` times; infinite if seen once."""
    number = counts.sum()
    if number < 2:
        return math.inf
    mean = (counts * values).sum() / number
    return float((counts * (values - mean) ** 2).sum() / number / (number - 1))
