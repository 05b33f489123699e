"""Against scikit-learn's own solver, run to the end, of the same folds and C."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from fssd_jax import logistic


def table(n, m, columns, shift, noise=1.0, seed=0):
    """The smaller the noise, the more collinear; very unlike scales."""
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(n + m, 1)) + noise * rng.normal(size=(n + m, columns))
    d[:n] += shift * rng.normal(size=columns)
    return d * np.logspace(-3, 3, columns), np.r_[np.ones(n), np.zeros(m)]


@pytest.mark.parametrize(
    "data",
    [
        table(100, 100, 3, 0.5),
        table(40, 160, 5, 1.0, noise=0.05),  # nearly collinear, unequal sets
        table(30, 30, 2, 20.0),  # separable
        table(12, 11, 4, 0.0),  # nothing to find
        table(60, 60, 20, 0.3),
        table(50, 50, 1, 1.0),
    ],
    ids=["plain", "collinear", "separable", "nothing", "many", "one"],
)
def test_weights_are_scikit_learns(data):
    d, y = data
    found = logistic.fit(d, y)
    scaler = StandardScaler().fit(d)
    np.testing.assert_allclose(found.center, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.scale, scaler.scale_, rtol=1e-12)
    expected = LogisticRegressionCV(
        Cs=10, cv=5, scoring="accuracy", solver="newton-cholesky", tol=1e-12,
        max_iter=10_000, l1_ratios=(0.0,), use_legacy_attributes=False,
    ).fit(scaler.transform(d), y)  # fmt: skip
    np.testing.assert_allclose(found.alpha, expected.coef_[0], rtol=1e-7, atol=1e-9)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-9)
    odds = expected.decision_function(scaler.transform(d))
    np.testing.assert_allclose(logistic.decide(found, d), odds, rtol=1e-6, atol=1e-8)


def test_all_problems_of_a_batch_are_solved_apart():
    """Each is what scikit-learn makes of its own rows and strength."""
    d, y = table(40, 50, 3, 1.0)
    z = StandardScaler().fit_transform(d)
    rng = np.random.default_rng(1)
    used = rng.uniform(size=(6, 90)) < 0.7
    strengths = np.logspace(-4, 4, 6)
    found = logistic.minimise(z, y, used, strengths)
    for (*w, b), rows, strength in zip(found, used, strengths, strict=True):
        one = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12)
        one.fit(z[rows], y[rows])
        np.testing.assert_allclose(w, one.coef_[0], rtol=1e-7, atol=1e-9)
        assert b == pytest.approx(one.intercept_[0], abs=1e-8)


def test_a_tie_of_strengths_goes_to_the_smallest():
    """Perfectly separable by far: every strength predicts all images right."""
    d, y = table(30, 30, 2, 50.0)
    z = StandardScaler().fit_transform(d)
    smallest = logistic.minimise(z, y, np.ones((1, 60), bool), np.array([1e-4]))[0]
    np.testing.assert_allclose(logistic.fit(d, y).alpha, smallest[:-1], rtol=1e-9)


def test_a_column_that_is_constant_in_a_part_says_nothing():
    d, y = table(30, 30, 2, 1.0)
    found = logistic.fit(np.c_[d, np.full(60, 7.0)], y)
    assert found.alpha[2] == 0
    np.testing.assert_allclose(found.alpha[:2], logistic.fit(d, y).alpha, rtol=1e-9)
