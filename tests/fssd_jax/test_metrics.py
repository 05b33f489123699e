import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fssd_jax import InputError, evaluate
from fssd_jax.metrics import auprc_out, auroc, fpr_at, paired


def sklearn_metrics(ind, ood):
    y = np.r_[np.ones(len(ind)), np.zeros(len(ood))]
    s = np.r_[ind, ood]
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    at = [fpr[np.argmax(tpr >= level - 1e-12)] for level in (0.8, 0.95)]
    return roc_auc_score(y, s), average_precision_score(y, s), *at


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [(50, 50), (40, 333), (7, 5)])
def test_agrees_with_scikit_learn(ties, sizes):
    rng = np.random.default_rng(sum(sizes))
    ind, ood = rng.normal(0.7, 1, sizes[0]), rng.normal(0, 1, sizes[1])
    if ties:
        ind, ood = ind.round(), ood.round()
    found = evaluate(ind, ood)
    np.testing.assert_allclose(found[:4], sklearn_metrics(ind, ood), atol=1e-12)
    outside = np.r_[np.zeros(len(ind)), np.ones(len(ood))]
    expected = average_precision_score(outside, -np.r_[ind, ood])
    out = auprc_out(ind, ood)
    assert out.value == pytest.approx(expected, abs=1e-12)
    assert out.ci95[0] <= expected <= out.ci95[1]
    assert auroc(ind, ood) == pytest.approx(found.auroc, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("tpr", [0.001, 0.5, 0.8, 0.9, 0.975, 0.99, 1.0])
def test_the_fpr_at_any_tpr_is_scikit_learns(ties, tpr):
    rng = np.random.default_rng(1)
    ind, ood = rng.normal(1, 1, 80), rng.normal(0, 1, 130)
    if ties:
        ind, ood = ind.round(), ood.round()
    truth = np.repeat([1, 0], [80, 130])
    fpr, found, _ = roc_curve(truth, np.r_[ind, ood], drop_intermediate=False)
    expected = fpr[1:][np.argmax(found[1:] >= tpr - 1e-12)]
    rate = fpr_at(ind, ood, tpr)
    assert rate.value == pytest.approx(expected, abs=1e-12)
    assert rate.ci95[0] <= expected <= rate.ci95[1]
    if tpr == 0.8:
        whole = evaluate(ind, ood)
        assert rate == (whole.fpr80, whole.fpr80_ci95)


def test_a_decimal_rate_is_that_fraction_exactly():
    """The seventh of 100, though 0.07 · 100 is 7.000000000000001."""
    ind, ood = np.arange(100.0, 0.0, -1), [93.5, 94.5]
    assert 0.07 * 100 > 7
    assert fpr_at(ind, ood, 0.07).value == 0.5
    assert fpr_at(ind, ood, 0.08).value == 1
    for wrong in (0.0, 1.01, -1.0):
        with pytest.raises(InputError, match="tpr: expected above 0 and to 1"):
            fpr_at(ind, ood, wrong)


def test_swapping_the_classes_swaps_the_precisions():
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 1, 60), rng.normal(0, 1, 45)
    one, other = evaluate(a, b), evaluate(-b, -a)
    out = auprc_out(a, b)
    assert out.value == pytest.approx(other.auprc, abs=1e-12)
    assert out.ci95 == pytest.approx(other.auprc_ci95)
    assert one.auprc != pytest.approx(other.auprc, abs=0.01)


def test_limits():
    assert evaluate([2, 3], [0, 1])[:4] == (1, 1, 0, 0)
    assert evaluate([0, 1], [2, 3]).auroc == 0
    everything_tied = evaluate([1, 1, 1], [1])
    assert everything_tied[:4] == (0.5, 0.75, 1, 1)
    # AUROC is a probability over pairs: 2 wins and a tie of 4 pairs.
    assert auroc([1, 3], [1, 2]) == 2.5 / 4


def test_the_threshold_is_the_first_that_reaches_the_rate():
    # 5 positives: 80 % is reached at the fourth, exactly, before the second negative.
    assert evaluate([9, 8, 7, 5, 1], [6, 4]).fpr80 == 0.5


def test_negating_scores_and_swapping_classes_keeps_auroc():
    rng = np.random.default_rng(0)
    ind, ood = rng.normal(1, 1, 30), rng.normal(0, 1, 40)
    assert auroc(ind, ood) == pytest.approx(auroc(-ood, -ind), abs=1e-12)
    assert auroc(ind, ood) == pytest.approx(auroc(np.exp(ind), np.exp(ood)))


@pytest.mark.parametrize(
    ("ind", "ood", "message"),
    [
        ([], [1.0], "in-distribution: expected a non-empty"),
        ([1.0], [], "OoD: expected a non-empty"),
        ([1.0, np.nan], [0.0], "1 of 2 scores are NaN"),
        ([1.0], [np.inf], "1 of 1 scores are NaN or infinite"),
        ([[1.0]], [0.0], r"got shape \(1, 1\)"),
    ],
)
def test_bad_scores(ind, ood, message):
    with pytest.raises(InputError, match=message):
        evaluate(ind, ood)


def two_scores(rng, n, m, shift=(1.0, 1.0)):
    """(ind_a, ood_a, ind_b, ood_b): two normal scores of the same images, correlated.

    The AUROC of a score is Φ(its shift / √2).
    """
    ind, ood = rng.normal(0, 0.8, n), rng.normal(0, 0.8, m)

    def score(of_ind):
        return (
            ind + rng.normal(0, 0.6, n) + of_ind,
            ood + rng.normal(0, 0.6, m),
        )

    return *score(shift[0]), *score(shift[1])


def delong_by_definition(ind_a, ood_a, ind_b, ood_b):
    """Difference and standard error: DeLong et al. (1988), every pair looked at."""
    v10, v01 = [], []
    for ind, ood in ((ind_a, ood_a), (ind_b, ood_b)):
        psi = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in ood] for x in ind]
        v10.append(np.mean(psi, axis=1))
        v01.append(np.mean(psi, axis=0))
    s = np.cov(v10) / len(ind_a) + np.cov(v01) / len(ood_a)
    contrast = np.array([1, -1])
    return np.mean(v10[0]) - np.mean(v10[1]), np.sqrt(contrast @ s @ contrast)


@pytest.mark.parametrize("digits", [0, 1, 9])
@pytest.mark.parametrize("sizes", [(30, 30), (13, 41), (2, 5)])
def test_paired_is_delong_by_definition(digits, sizes):
    scores = two_scores(np.random.default_rng(3), *sizes, shift=(1.5, 0.5))
    scores = [s.round(digits) for s in scores]
    difference, error = delong_by_definition(*scores)
    found = paired(*scores)
    assert error > 0
    assert found.difference == pytest.approx(difference, abs=1e-12)
    two_sided = 2 * stats.norm.sf(abs(difference) / error)
    assert found.p == pytest.approx(max(two_sided, 2.0 ** (1 - min(sizes))), rel=1e-6)
    assert found.difference == pytest.approx(auroc(*scores[:2]) - auroc(*scores[2:]))


def test_the_interval_of_paired_agrees_with_a_bootstrap_of_the_images():
    rng = np.random.default_rng(4)
    scores = two_scores(rng, 150, 200, shift=(1.2, 0.9))

    def draws(same_images):
        for _ in range(2000):
            i, j = rng.integers(150, size=(2, 150)), rng.integers(200, size=(2, 200))
            other = 0 if same_images else 1
            a = auroc(scores[0][i[0]], scores[1][j[0]])
            yield a - auroc(scores[2][i[other]], scores[3][j[other]])

    low, high = paired(*scores).ci95
    error = (high - low) / (2 * stats.norm.ppf(0.975))
    bootstrapped = np.std(list(draws(True)))
    assert bootstrapped < error < 1.1 * bootstrapped
    # What is gained by looking at the same images.
    assert error < 0.8 * np.std(list(draws(False)))


@pytest.mark.parametrize("aurocs", [(0.998, 0.97), (0.998, 0.993), (0.9, 0.8)])
def test_the_interval_of_paired_holds_a_difference_near_perfection(aurocs):
    """DeLong's own holds these in 80, 65 and 92 % of the samples."""
    rng = np.random.default_rng(8)
    shift = np.sqrt(2) * stats.norm.ppf(aurocs)
    found = [paired(*two_scores(rng, 20, 20, tuple(shift))).ci95 for _ in range(300)]
    true = aurocs[0] - aurocs[1]
    assert np.mean([low <= true <= high for low, high in found]) > 0.93


def test_paired_is_wrong_as_often_as_it_says():
    """Equal AUROCs: p is uniform, and the interval misses 0 one time in twenty."""
    rng = np.random.default_rng(5)
    found = [paired(*two_scores(rng, 60, 80)) for _ in range(600)]
    p = np.array([f.p for f in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    misses = np.array([not f.ci95[0] < 0 < f.ci95[1] for f in found])
    assert 0.02 < np.mean(misses) < 0.06
    assert (p < 0.05)[misses].all()


def test_paired_is_antisymmetric_and_sees_the_order_of_scores_only():
    a, b, c, d = two_scores(np.random.default_rng(6), 40, 50, shift=(1.5, 0.5))
    one, other = paired(a, b, c, d), paired(c, d, a, b)
    assert one.difference == -other.difference
    assert one.ci95 == (-other.ci95[1], -other.ci95[0])
    assert one.p == other.p
    assert paired(np.exp(a), np.exp(b), c, d) == one
    negated = paired(-a, -b, -c, -d)
    assert negated.difference == pytest.approx(-one.difference, abs=1e-12)
    assert negated.p == pytest.approx(one.p)


def test_paired_at_its_limits():
    a, b, _, _ = two_scores(np.random.default_rng(7), 20, 30)
    same = paired(a, b, a, b)
    assert (same.difference, same.p) == (0, 1)
    # Both without an error: any of the AUROCs from 0.025^(1/20) on may be the true one.
    perfect = paired(a + 99, b, 2 * a + 99, b)
    assert (perfect.difference, perfect.p) == (0, 1)
    assert perfect.ci95 == pytest.approx((0.025**0.05 - 1, 1 - 0.025**0.05))
    assert paired([1, 1], [1, 1], [0, 0], [0, 0])[::2] == (0, 1)
    # No surer than two images can be.
    assert paired([2, 3], [0, 1], [0, 1], [2, 3])[::2] == (1, 0.5)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (([1, 2, 3], [0, 1], [1, 2], [0, 1]), "same images, got 3 and 2 in-dist"),
        (([1, 2], [0, 1], [1, 2], [0, 1, 2]), "in-distribution, 2 and 3 OoD"),
        (([1], [0, 1], [1], [0, 1]), "two images or more"),
        (([1, 2], [0], [1, 2], [0]), "two images or more"),
        (([1, 2], [0, 1], [1, np.nan], [0, 1]), "in-distribution: 1 of 2 scores"),
        (([1, 2], [], [1, 2], [0, 1]), "OoD: expected a non-empty"),
    ],
)
def test_bad_pairs(scores, message):
    with pytest.raises(InputError, match=message):
        paired(*scores)
