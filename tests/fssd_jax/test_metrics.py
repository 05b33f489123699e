import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fssd_jax import InputError, evaluate
from fssd_jax.metrics import auroc, paired


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
    found = evaluate(ind, ood, resamples=10)
    np.testing.assert_allclose(found[:4], sklearn_metrics(ind, ood), atol=1e-12)
    assert auroc(ind, ood) == pytest.approx(found.auroc, abs=1e-12)


def test_limits():
    assert evaluate([2, 3], [0, 1], resamples=5)[:4] == (1, 1, 0, 0)
    assert evaluate([0, 1], [2, 3], resamples=5).auroc == 0
    everything_tied = evaluate([1, 1, 1], [1], resamples=5)
    assert everything_tied[:4] == (0.5, 0.75, 1, 1)
    # AUROC is a probability over pairs: 2 wins and a tie of 4 pairs.
    assert auroc([1, 3], [1, 2]) == 2.5 / 4


def test_the_threshold_is_the_first_that_reaches_the_rate():
    # 5 positives: 80 % is reached at the fourth, exactly, before the second negative.
    assert evaluate([9, 8, 7, 5, 1], [6, 4], resamples=5).fpr80 == 0.5


def test_negating_scores_and_swapping_classes_keeps_auroc():
    rng = np.random.default_rng(0)
    ind, ood = rng.normal(1, 1, 30), rng.normal(0, 1, 40)
    assert auroc(ind, ood) == pytest.approx(auroc(-ood, -ind), abs=1e-12)
    assert auroc(ind, ood) == pytest.approx(auroc(np.exp(ind), np.exp(ood)))


def test_intervals_agree_with_resampling_by_scikit_learn():
    rng = np.random.default_rng(1)
    ind, ood = rng.normal(0.8, 1, 60).round(1), rng.normal(0, 1, 80).round(1)
    draws = np.array(
        [
            sklearn_metrics(rng.choice(ind, len(ind)), rng.choice(ood, len(ood)))
            for _ in range(1500)
        ]
    )
    expected = np.percentile(draws, [2.5, 97.5], axis=0).T
    found = np.array(evaluate(ind, ood, resamples=1500)[4:])
    np.testing.assert_allclose(found[:2], expected[:2], atol=0.02)
    np.testing.assert_allclose(found[2:], expected[2:], atol=0.05)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """Normal scores one deviation apart: AUROC is Φ(1/√2) = 0.7602."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = evaluate(rng.normal(1, 1, 100), rng.normal(0, 1, 100)).auroc_ci95
        hits += low <= 0.76025 <= high
    assert 0.89 < hits / 200 < 0.99


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
    expected = stats.norm(difference, error)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.ci95 == pytest.approx(expected.interval(0.95), abs=1e-6)
    two_sided = 2 * stats.norm.sf(abs(difference) / error)
    assert found.p == pytest.approx(two_sided, rel=1e-6)
    assert found.difference == pytest.approx(auroc(*scores[:2]) - auroc(*scores[2:]))


def test_the_error_of_paired_agrees_with_a_bootstrap_of_the_images():
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
    assert error == pytest.approx(np.std(list(draws(True))), rel=0.06)
    # What is gained by looking at the same images.
    assert error < 0.8 * np.std(list(draws(False)))


def test_paired_is_wrong_as_often_as_it_says():
    """Equal AUROCs: p is uniform, and the interval misses 0 one time in twenty."""
    rng = np.random.default_rng(5)
    found = [paired(*two_scores(rng, 60, 80)) for _ in range(600)]
    p = np.array([f.p for f in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    misses = [not f.ci95[0] < 0 < f.ci95[1] for f in found]
    assert 0.025 < np.mean(misses) < 0.08
    np.testing.assert_array_equal(misses, p < 0.05)


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
    assert paired(a, b, a, b) == (0, (0, 0), 1)
    assert paired([2, 3], [0, 1], [8, 9], [7, 5]) == (
        0,
        (0, 0),
        1,
    )  # both without error
    assert paired([1, 1], [1, 1], [0, 0], [0, 0]) == (0, (0, 0), 1)
    assert paired([2, 3], [0, 1], [0, 1], [2, 3]) == (1, (1, 1), 0)


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
