import time

import numpy as np
import pytest
from scipy import stats

from fssd_jax import evaluate, intervals
from tests.by_hand.interval_coverage import METRICS, bootstrap, coverage, ours


@pytest.mark.parametrize(("wins", "trials"), [(0, 7), (3, 20), (19, 20), (50, 50)])
def test_a_share_has_the_exact_binomial_interval(wins, trials):
    expected = stats.binomtest(wins, trials).proportion_ci(0.95, "exact")
    assert intervals.share(wins / trials, float(trials)) == pytest.approx(
        expected, abs=1e-12
    )


def test_without_an_error_the_interval_of_auroc_is_that_of_disjoint_pairs():
    for n, m in ((20, 20), (20, 300), (300, 20)):
        low, high = evaluate(np.arange(n) + m, np.arange(m)).auroc_ci95
        assert high == 1
        # Scores for which it is exact: a share 1 − low of one kind lies wrongly.
        assert low ** min(n, m) == pytest.approx(0.025)
        low, high = evaluate(np.arange(n), np.arange(m) + n).auroc_ci95
        assert (low, (1 - high) ** min(n, m)) == (0, pytest.approx(0.025))


def test_with_many_errors_the_interval_of_auroc_is_delongs():
    """Every pair looked at; the square root of the variance, on a wide sample."""
    rng = np.random.default_rng(0)
    ind, ood = rng.normal(1, 1, 300).round(1), rng.normal(0, 2, 400).round(1)
    wins = (ind[:, None] > ood) + 0.5 * (ind[:, None] == ood)
    variance = wins.mean(1).var(ddof=1) / 300 + wins.mean(0).var(ddof=1) / 400
    low, high = evaluate(ind, ood).auroc_ci95
    length = 2 * stats.norm.ppf(0.975) * np.sqrt(variance)
    assert length < high - low < 1.06 * length
    trials = wins.mean() * (1 - wins.mean()) / variance
    assert (low, high) == pytest.approx(
        intervals.share(wins.mean(), trials), abs=0.02 * length
    )


def test_the_length_of_auprcs_interval_is_a_bootstraps_on_wide_samples():
    rng = np.random.default_rng(1)
    ind, ood = rng.normal(0.8, 1, 400).round(1), rng.normal(0, 1, 500).round(1)
    low, high = evaluate(ind, ood).auprc_ci95
    assert high - low == pytest.approx(
        np.diff(bootstrap(ind, ood, 2000)[1])[0], rel=0.12
    )


def test_the_interval_of_a_rate_by_brute_force():
    """Against both sums written out, with ties within and between the kinds."""
    rng = np.random.default_rng(2)
    for percent, name in ((80, "fpr80_ci95"), (95, "fpr95_ci95")):
        ind, ood = rng.normal(1, 1, 90).round(1), rng.normal(0, 1, 60).round(1)
        best = np.r_[np.inf, np.sort(ind)[::-1], -np.inf]
        low, high = getattr(evaluate(ind, ood), name)
        below, above = 0.0, 0.0
        for j in range(91):
            chance = stats.binom.pmf(j, 90, percent / 100)
            passed, more = (ood >= best[j]).sum(), (ood >= best[j + 1]).sum()
            below += chance * stats.binom.sf(passed - 1, 60, low)
            above += chance * stats.binom.cdf(more, 60, high)
        assert (below, above) == pytest.approx((0.025, 0.025), abs=1e-6)


def test_the_interval_of_a_rate_with_a_known_threshold_is_clopper_and_pearsons():
    """In-distribution scores in two places only: the threshold is beyond doubt."""
    ood = np.repeat([0.0, 1.0, 2.0], [47, 3, 10])
    found = evaluate(np.repeat([0.5, 3.0], [50, 50]), ood)
    expected = stats.binomtest(13, 60).proportion_ci(0.95, "exact")
    assert found.fpr80_ci95 == pytest.approx(expected, abs=1e-6)
    assert found.fpr80 == 13 / 60


def test_no_false_positive_seen_is_not_none_at_all():
    found = evaluate(np.arange(1000) + 200, np.arange(200))
    for low, high in (found.fpr80_ci95, found.fpr95_ci95):
        assert low == 0
        assert (1 - high) ** 200 == pytest.approx(0.025)
    # How low the lowest 5 % of 71 images score is not known from below.
    assert evaluate(np.arange(71) + 99, np.arange(99)).fpr95_ci95 == (0, 1)
    assert evaluate(np.arange(72) + 99, np.arange(99)).fpr95_ci95[1] < 1


@pytest.mark.parametrize(
    "cell",
    [
        ("normal", 0.993, 20, False),
        ("heavy tails (t, 2 d.f.)", 0.993, 50, True),
        ("contaminated", 0.9, 20, False),
        ("normal", 0.8, 200, True),
    ],
)
def test_the_intervals_hold_the_truth(cell):
    """The percentile bootstrap: down to 22 % here. More: tests/by_hand."""
    held, _ = coverage(ours, *cell, 100)
    assert dict(zip(METRICS, held > 0.9, strict=True)) == dict.fromkeys(METRICS, True)


def test_the_time_grows_with_the_sorting_only():
    rng = np.random.default_rng(3)
    ind, ood = rng.normal(2, 1, 200_000), rng.normal(0, 1, 200_000)
    start = time.perf_counter()
    evaluate(ind, ood)
    assert time.perf_counter() - start < 3  # 0.3 on an idle core


def test_one_image_of_a_kind_tells_next_to_nothing():
    found = evaluate([1.0], np.arange(-50.0, 0.0))
    assert found.auroc_ci95 == pytest.approx((0.025, 1))
    assert found.auprc_ci95[0] < 0.03
    assert found.fpr95_ci95 == (0, 1)


def test_the_variance_of_an_auroc_is_bounded_by_that_of_disjoint_pairs():
    """DeLong's estimate may exceed mean (1 − mean) / smaller, the variance cannot."""
    assert intervals.auroc(0.7, 0.5, 10) == pytest.approx(intervals.share(0.7, 10.0))
