import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fssd_jax import InputError, evaluate
from fssd_jax.metrics import auroc


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
