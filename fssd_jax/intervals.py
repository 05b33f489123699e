"""95 % intervals that hold near perfect separation, and with few images.

All start from Clopper and Pearson's (1934) interval of a share, and so never have the
length 0. Chosen by the coverage in simulations: docs/reliability.md.
"""

from collections.abc import Callable

import numpy as np
import scipy  # whose modules it imports when they are first used

Interval = tuple[float, float]
TAIL = 0.025


def share(mean: float, trials: float) -> Interval:
    """Clopper–Pearson: of a share `mean` seen in so many trials, whole or not.

    With a number of trials that has the variance of `mean`, mean (1 − mean) / trials,
    it serves means of dependent terms (Korn and Graubard 1998, "Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts").
    """
    wins = min(mean, 1.0) * trials
    losses = trials - wins
    low = scipy.special.betaincinv(wins, losses + 1, TAIL) if wins > 0 else 0.0
    high = scipy.special.betaincinv(wins + 1, losses, 1 - TAIL) if losses > 0 else 1.0
    return float(low), float(high)


def auroc(mean: float, variance: float, smaller: int) -> Interval:
    """Of an AUROC, from DeLong's estimate of its variance and the smaller set's size.

    The variance is at most mean (1 − mean) / smaller (van Dantzig 1951; Birnbaum and
    Klose 1957). With few errors DeLong's estimate may be far too small; it is averaged
    with that bound, which weighs like a quarter of an error. If all pairs are in order
    the bound alone remains, and low = 0.025^(1 / smaller) holds for any scores: as
    many pairs have no image in common, and are all in order with P ≤ AUROC^smaller.
    """
    spread = mean * (1 - mean)
    if spread <= 0:
        return share(mean, float(smaller))
    errors = spread * smaller
    weight = errors / (errors + 0.25)
    per_trial = weight * variance / spread + (1 - weight) / smaller
    return share(mean, 1 / min(per_trial, 1 / smaller))


def rate_at(positives, negatives, percent: int | float) -> Interval:
    """Of the false positive rate where the true positive rate is `percent`.

    Of n in-distribution scores, J ~ Binomial(n, percent / 100) lie at or above the
    *true* threshold, which so lies between the J-th and the (J + 1)-th best of them.
    Of the OoD images, between c_J and c_{J+1} pass it, where c_j is how many score as
    high as the j-th best or higher. The ends are the rates p at which

        Σ_J P(J) P(Binomial(m, p) ≥ c_J) = 0.025      and
        Σ_J P(J) P(Binomial(m, p) ≤ c_{J+1}) = 0.025:

    Clopper and Pearson's with both samples' variation. Where n is so small that J = n
    with P > 0.025, nothing is known from above, and the end is 1.

    Args:
      positives: how often each distinct score occurs in-distribution, best first.
      negatives: how often among OoD images.
      percent: the true positive rate.
    """
    n, m = positives.sum(), negatives.sum()
    passed = np.concatenate([[0], np.repeat(np.cumsum(negatives), positives), [m]])
    first, last = scipy.stats.binom.ppf([1e-9, 1 - 1e-9], n, percent / 100)
    count = np.arange(int(first), int(last) + 1)
    chance = scipy.stats.binom.pmf(count, n, percent / 100)
    return (
        _root(lambda p: chance @ scipy.special.bdtrc(passed[count] - 1, m, p), 0.0),
        _root(lambda p: chance @ scipy.special.bdtr(passed[count + 1], m, p), 1.0),
    )


def _root(tail: Callable[[float], float], end: float) -> float:
    """Where `tail` is 0.025; the end where it is not below that on [0, 1]."""
    if tail(end) >= TAIL:
        return end
    return scipy.optimize.brentq(lambda p: tail(p) - TAIL, 0.0, 1.0)  # pyright: ignore[reportReturnType]
