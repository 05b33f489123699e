"""A threshold for any detector's score, with a guarantee that holds for finite samples.

Split-conformal prediction: Vovk, Gammerman and Shafer (2005), "Algorithmic Learning in
a Random World"; Lei et al. (2018), "Distribution-Free Predictive Inference for
Regression"; Angelopoulos and Bates (2023), "Conformal Prediction: A Gentle
Introduction".
"""

from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import scipy  # whose modules it imports when they are first used

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.shown import brief


class Threshold(NamedTuple):
    """An input is accepted as in-distribution if its score is `value` or more."""

    value: float
    acceptance: float  # what was asked for: at least this share is accepted
    count: int  # how many calibration images
    # 95 % interval of the share that this very threshold accepts in the long run.
    low95: float
    high95: float

    __repr__ = brief


def threshold(scores, acceptance: float = 0.95) -> Threshold:
    """The threshold that a new in-distribution image passes with P ≥ `acceptance`.

        value = k-th smallest of the n scores,   k = ⌊(n + 1)(1 − acceptance)⌋

    If the new image and the n images are exchangeable (for instance independent draws
    from one distribution), all ranks of the new score among the n + 1 are equally
    likely, so it lies below the k-th smallest with probability k / (n + 1) at most, and
    exactly that without ties: the image is accepted with P in [acceptance,
    acceptance + 1 / (n + 1)). Ties only raise P.

    That P is over the calibration set too. Given the calibration set, the share of all
    new images that is accepted is Beta(n + 1 − k, k) distributed if no two images can
    have one score (Vovk 2012, "Conditional Validity of Inductive Conformal
    Predictors"); `low95` is its 2.5 % quantile. If they can, more images pass and
    `low95` still holds, but not the 97.5 % quantile; and whether they can the scores do
    not tell, as a value that many have may be hit once. So `high95` is the 97.5 %
    quantile of Beta(n + 1 − j, j), with j < k scores below `value`, or 1 if j = 0:
    Clopper and Pearson's upper end of the share that scores as high as `value` or
    higher. It is exceeded with P ≤ 0.025, whatever the distribution, because of the
    candidates for `value` for which it could be, a wrong bound at any needs too many
    scores below the highest one. All this says nothing about OoD images.

    Args:
      scores: [n] scores, higher for in-distribution, of in-distribution images that
        neither the network nor the detector was fitted on or chosen by.
      acceptance: the share of in-distribution images to accept, between 0 and 1; read
        as the decimal number that it prints as.

    Raises:
      InputError: scores that are not a vector of finite numbers, `acceptance` out of
        range, or too few images: k = 0 would accept everything.
    """
    scores = checks.to_numpy(scores, "scores")
    if scores.ndim != 1:
        raise InputError(
            f"scores: expected a vector, one score an image, got shape "
            f"{scores.shape}; give the scores of in-distribution images"
        )
    if not 0 < acceptance < 1:
        raise InputError(
            f"acceptance: expected a share between 0 and 1, got {acceptance}; 0.95 "
            "accepts 95 % of the in-distribution images"
        )
    # Fractions: in floating point 100 · (1 − 0.9) is less than 10.
    rejected = 1 - Fraction(str(acceptance))
    count = len(scores)
    k = floor((count + 1) * rejected)
    if k == 0:
        raise InputError(
            f"scores: {count} images are too few to accept {acceptance} of them with "
            f"a guarantee; give {ceil(1 / rejected) - 1} or more, or a lower acceptance"
        )
    ordered = np.sort(checks.scores(scores, "scores"))
    value = ordered[k - 1]
    low = scipy.stats.beta.ppf(0.025, count + 1 - k, k)
    below = int(np.searchsorted(ordered, value))
    high = scipy.stats.beta.ppf(0.975, count + 1 - below, below) if below else 1.0
    return Threshold(float(value), float(acceptance), count, float(low), float(high))
