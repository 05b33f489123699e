from fractions import Fraction
from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from fssd_jax import InputError, threshold

ACCEPTANCES = (0.05, 0.5, 2 / 3, 0.7, 0.9, 0.95)


def exact_coverage(values, acceptance):
    """P(new score >= threshold) when each of the n + 1 values is equally likely new."""
    accepted = 0
    for i, new in enumerate(values):
        accepted += new >= threshold(np.delete(values, i), acceptance).value
    return Fraction(int(accepted), len(values))


@pytest.mark.parametrize("acceptance", ACCEPTANCES)
def test_coverage_is_as_promised_over_all_exchangeable_draws(acceptance):
    rng = np.random.default_rng(0)
    asked = Fraction(acceptance).limit_denominator(1000)
    for n in (1, 2, 3, 9, 10, 19, 20, 29, 99, 100):
        if (n + 1) * (1 - asked) < 1:
            with pytest.raises(InputError, match="too few"):
                threshold(np.arange(n), acceptance)
            continue
        coverage = exact_coverage(rng.permutation(n + 1) - n / 2, acceptance)
        # 2 / 3 in floating point is a little less than two thirds.
        assert asked <= coverage < asked + Fraction(1, n + 1) + Fraction(1, 10**12)


def test_ties_only_raise_the_coverage():
    raised = 0
    for values in product(range(3), repeat=6):  # all that six images can score
        coverage = exact_coverage(np.array(values, np.float64), 0.5)
        assert coverage >= Fraction(1, 2)
        raised += coverage > Fraction(1, 2) + Fraction(1, 6)
    assert raised > 100
    assert exact_coverage(np.zeros(20), 0.9) == 1


@pytest.mark.parametrize(
    ("n", "acceptance", "k"),
    [
        (99, 0.9, 10),  # 100 · (1 − 0.9) = 9.999999999999998
        (9, 0.9, 1),  # 10 · (1 − 0.9) = 0.9999999999999998
        (98, 0.9, 9),
        (19, 0.95, 1),
        (38, 0.95, 1),
        (39, 0.95, 2),
        (9999, 0.9999, 1),
        (3, 0.01, 3),
    ],
)
def test_the_rank_by_hand(n, acceptance, k):
    scores = np.random.default_rng(0).permutation(n) + 1
    found = threshold(scores, acceptance)
    assert found[:3] == (k, acceptance, n)
    assert found == threshold(jnp.asarray(scores, jnp.float32), np.float64(acceptance))


def test_the_interval_is_that_of_the_realised_acceptance():
    """Over many calibration sets, against the true acceptance of a normal score."""
    rng = np.random.default_rng(0)
    n, repeats = 60, 4000
    realised = []
    for _ in range(repeats):
        found = threshold(rng.normal(size=n), 0.9)
        realised.append(special.ndtr(-found.value))
    # Three standard errors of a 2.5 % tail in 4,000 draws are 0.75 %.
    assert np.mean(np.array(realised) < found.low95) == pytest.approx(0.025, abs=0.0075)
    # The upper end allows for ties that were not seen.
    assert np.mean(np.array(realised) > found.high95) <= 0.025
    # The mean is the promised 1 − k / (n + 1), to three standard errors.
    error = 3 * np.std(realised) / np.sqrt(repeats)
    assert np.mean(realised) == pytest.approx(1 - 6 / 61, abs=error)


def grid(step):
    """Normal scores rounded to a grid, and the true share at a value or above."""
    return (
        lambda rng, n: (rng.normal(size=n) / step).round() * step,
        lambda value: special.ndtr(-(value - step / 2)),
    )


def one_atom(mass):
    """A share of all scores is 0, the rest uniform on [−1, 1] without it."""
    return (
        lambda rng, n: np.where(rng.random(n) < mass, 0.0, rng.uniform(-1, 1, n)),
        lambda v: (1 - mass) * (1 - v) / 2 + mass * (v <= 0),
    )


@pytest.mark.parametrize(
    "distribution", [grid(2.0), grid(1.0), grid(0.2), one_atom(0.9), one_atom(0.02)]
)
def test_the_interval_holds_with_ties(distribution):
    draw, accepted = distribution
    rng = np.random.default_rng(1)
    found = [threshold(draw(rng, 60), 0.9) for _ in range(2000)]
    realised = np.array([accepted(f.value) for f in found])
    low, high = np.array([f[3:] for f in found]).T
    # Three standard errors of a 2.5 % tail in 2,000 draws are 1 %.
    assert np.mean(realised < low) < 0.035
    assert np.mean(realised > high) < 0.035


def test_the_upper_end_holds_by_exact_sums_for_the_worst_atoms():
    """P(share accepted > high95) <= 2.5 % over all pairs of shares of three scores."""
    n, k = 20, 4
    counts = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
    ways = stats.multinomial(n, [1 / 3] * 3).pmf(counts) * 3.0**n
    high, value = [], []
    for count in counts:
        found = threshold(np.repeat([0, 1, 2], count), 1 - k / (n + 1))
        high.append(found.high95)
        value.append(int(found.value))
    worst = 0.0
    for p, q in product(np.linspace(0.002, 0.3, 40), repeat=2):
        shares = np.array([p, q, 1 - p - q])
        accepted = shares[::-1].cumsum()[::-1][value]
        missed = accepted > np.array(high) + 1e-12
        worst = max(
            worst, ways[missed] @ np.prod(shares ** np.array(counts)[missed], 1)
        )
    assert 0.02 < worst <= 0.025


def test_the_interval_with_ties_by_hand():
    assert threshold(np.zeros(20), 0.9).high95 == 1
    # 5 of 40 scores are below the threshold 1; k = 8.
    scores = np.repeat([0, 1, 2], [5, 10, 25])
    found = threshold(scores, 0.8)
    assert found.value == 1
    exact = stats.binomtest(35, 40).proportion_ci(0.95, "exact")
    assert found.high95 == pytest.approx(exact.high, abs=1e-12)
    assert found.low95 == threshold(np.arange(40), 0.8).low95


def test_the_interval_by_hand():
    # k = n = 1: the acceptance is uniform on [0, 1], or the score has but one value.
    np.testing.assert_allclose(threshold([3.0], 0.5)[3:], (0.025, 1))
    # k = 1: P(acceptance <= p) = p^n.
    found = threshold(np.arange(19), 0.95)
    np.testing.assert_allclose(np.power(found[3:], 19), (0.025, 1))
    # k = 4, and three scores below.
    exact = stats.binomtest(36, 39).proportion_ci(0.95, "exact")
    assert threshold(np.arange(39), 0.9).high95 == pytest.approx(exact.high, abs=1e-12)


def test_the_upper_end_holds_where_a_tie_is_hit_once():
    """Scores clipped from below: the value is that of a share of all images."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(1000):
        scores = np.where(rng.random(19) < 0.05, -1.0, rng.random(19))
        found = threshold(scores, 0.95)
        accepted = 1.0 if found.value == -1 else 0.95 * (1 - found.value)
        missed += accepted > found.high95
    assert missed / 1000 < 0.035


def test_the_default_accepts_95_percent():
    assert threshold(np.arange(100)) == threshold(np.arange(100), 0.95)


@pytest.mark.parametrize(
    ("scores", "acceptance", "message"),
    [
        (np.arange(18), 0.95, "18 images are too few .*; give 19 or more"),
        (np.arange(8), 0.9, "give 9 or more"),
        (np.arange(1), 0.7, "give 3 or more"),
        ([], 0.95, "0 images are too few .*; give 19 or more"),
        (np.ones((30, 1)), 0.95, r"vector, one score an image, got shape \(30, 1\)"),
        (3.0, 0.95, r"got shape \(\)"),
        ([*range(30), np.nan], 0.95, "1 of 31 scores are NaN or infinite"),
        ([*range(30), np.inf], 0.95, "1 of 31 scores are NaN or infinite"),
        (np.arange(30), 0.0, "share between 0 and 1, got 0.0"),
        ([[1.0, 2.0], [3.0]], 0.9, "scores: expected an array"),
        (np.arange(30), 1.0, "share between 0 and 1, got 1.0"),
        (np.arange(30), 95.0, "share between 0 and 1, got 95.0"),
        (np.arange(30), float("nan"), "share between 0 and 1, got nan"),
    ],
)
def test_what_gives_no_threshold(scores, acceptance, message):
    with pytest.raises(InputError, match=message):
        threshold(scores, acceptance)
