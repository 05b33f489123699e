from inspect import unwrap
from itertools import permutations

import jax
import numpy as np
import pytest

from analysis.kernel_statistics import (
    alignment,
    alignment_floor,
    debiased_alignment,
    drift,
    effective_rank,
    kernel_distance,
    permutation_null,
    spectrum,
    stable_rank,
)
from fssd_jax import InputError


def gram(n, dim, seed=0):
    z = np.random.default_rng(seed).normal(size=(n, dim))
    return z @ z.T + 1  # not centred


# ---- how far a kernel moved ---------------------------------------------------------


def test_drift():
    k = np.random.default_rng(0).normal(size=(3, 4, 2))
    assert drift(k, k) == 0
    np.testing.assert_allclose(drift(k, 1.5 * k), 0.5)
    np.testing.assert_allclose(drift(k, 0 * k), 1)


def test_kernel_distance_is_of_the_shape_alone():
    a, b = gram(8, 3), gram(8, 3, seed=1)
    traces = [np.trace(k @ other.T) for k, other in ((a, b), (a, a), (b, b))]
    expected = 1 - traces[0] / np.sqrt(traces[1] * traces[2])
    np.testing.assert_allclose(kernel_distance(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(kernel_distance(3 * a, b / 7), expected, rtol=1e-12)
    assert kernel_distance(a, 5 * a) < 1e-30
    # Kernels of images of which none is like both are as far apart as can be.
    one, two = np.diag([1.0, 2, 0, 0]), np.diag([0, 0, 5.0, 1])
    assert kernel_distance(one, two) == pytest.approx(1)
    # To second order it is half the squared angle.
    turned = np.array([[1.0, 0], [0, 1e-6]])
    found = kernel_distance(np.diag([1.0, 0]), turned)
    np.testing.assert_allclose(found, 0.5e-12, rtol=1e-6)
    for bad in (0 * a, a * np.nan):
        with pytest.raises(InputError, match="no shape"):
            kernel_distance(a, bad)


# ---- alignment ----------------------------------------------------------------------


def test_alignment():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    k = z @ z.T
    np.testing.assert_allclose(alignment(k, 2 * k), 1)
    # Centring makes it blind to a shift of the features and to a constant.
    np.testing.assert_allclose(alignment((z + 5) @ (z + 5).T + 3, k), 1)
    hot = np.eye(3)[y]
    labels = hot @ hot.T
    np.testing.assert_allclose(alignment(labels, y), 1)
    h = np.eye(30) - 1 / 30
    a, b = h @ k @ h, h @ labels @ h
    expected = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    np.testing.assert_allclose(alignment(k, y), expected)
    assert alignment(k, y) < 0.3
    for constant in (np.zeros(30, np.int64), np.full((30, 30), 0.1)):
        with pytest.raises(InputError, match="constant"):
            alignment(k, constant)


def u_statistic(k, other):
    """HSIC as its definition says: over all quadruples of different images."""
    quadruples = list(permutations(range(len(k)), 4))
    terms = (
        k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
        for i, j, q, r in quadruples
    )
    return sum(terms) / len(quadruples)


def test_debiased_alignment_is_of_u_statistics():
    k, other = gram(7, 2), gram(7, 3, seed=1)
    hsic = u_statistic(k, other)
    sizes = u_statistic(k, k) * u_statistic(other, other)
    expected = hsic / np.sqrt(sizes)
    np.testing.assert_allclose(debiased_alignment(k, other), expected, rtol=1e-10)
    # No diagonal counts, and neither does what is centred away.
    diagonal, shift = np.diag(np.arange(7.0)), np.arange(7.0)
    shifted = 3 * k + diagonal + shift[:, None] + shift[None]
    np.testing.assert_allclose(debiased_alignment(shifted, other), expected)
    np.testing.assert_allclose(debiased_alignment(k, 2 * k), 1)
    y = np.array([0, 0, 1, 1, 2, 2, 2])
    labels = (y[:, None] == y[None]).astype(float)
    assert debiased_alignment(k, y) == debiased_alignment(k, labels)


@pytest.mark.parametrize("y", [[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 2]])
def test_the_null_over_all_permutations_is_known(y):
    """Debiased: mean 0, variance 2/(n(n − 3)); else the mean is the floor."""
    k, y, n = gram(6, 2), np.array(y), 6
    all_labels = [y[list(order)] for order in permutations(range(n))]
    debiased = np.array([debiased_alignment(k, labels) for labels in all_labels])
    np.testing.assert_allclose(debiased.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(debiased.var(), 2 / (n * (n - 3)), rtol=1e-10)
    biased = np.array([alignment(k, labels) for labels in all_labels])
    np.testing.assert_allclose(alignment_floor(k, y), biased.mean(), rtol=1e-12)
    # Drawn at random: the same moments, and the p-value of the exact test.
    count = 2000
    for exact, found in (
        (debiased, permutation_null(k, y, jax.random.key(0), count)),
        (biased, permutation_null(k, y, jax.random.key(1), count, debiased=False)),
    ):
        assert found.value == pytest.approx(exact[0])
        assert abs(found.mean - exact.mean()) < 4 * exact.std() / np.sqrt(count)
        assert found.sd == pytest.approx(exact.std(), rel=0.15)
        p = (exact >= exact[0] - 1e-9).mean()
        assert abs(found.p_value - p) < 4 * np.sqrt(p * (1 - p) / count) + 1 / count
        assert found.count == count


def test_the_identity_kernel_has_a_floor_and_debiased_no_alignment():
    y = np.arange(50) % 10
    assert alignment(np.eye(50), y) == pytest.approx(3 / 7)
    assert alignment_floor(np.eye(50), y) == pytest.approx(3 / 7)
    with pytest.raises(InputError, match="beside its diagonal"):
        debiased_alignment(np.eye(50), y)


def test_labels_that_a_kernel_is_made_of_are_found():
    y = np.arange(40) % 4
    z = np.eye(4)[y] + np.random.default_rng(0).normal(size=(40, 4))
    found = permutation_null(z @ z.T, y, jax.random.key(0), 99)
    assert found.p_value == 0.01
    assert found.value > found.mean + 5 * found.sd
    again = permutation_null(z @ z.T, y, jax.random.key(0), 99)
    assert again == found
    with pytest.raises(InputError, match="count"):
        permutation_null(z @ z.T, y, jax.random.key(0), 0)
    with pytest.raises(InputError, match="four images"):
        debiased_alignment(gram(3, 2), y[:3])


def test_what_does_not_fit_the_kernel_is_no_labels():
    k = gram(6, 2)
    hot = np.eye(3)[np.arange(6) % 3]
    for of in (alignment, debiased_alignment):
        np.testing.assert_allclose(of(k, hot @ hot.T), of(k, np.arange(6) % 3))
        for bad in (hot, hot.argmax(1)[:5], hot[:, 0], 0.5 * hot.argmax(1)):
            with pytest.raises(InputError, match=r"class indices \[n\].*Y @ Y\.T"):
                unwrap(of)(k, bad)
        with pytest.raises(InputError, match=r"kernel \[n, n\]"):
            unwrap(of)(k[:5], np.arange(5))
        turned = k + np.triu(k, 1)
        for bad in (turned, k + 1j):
            with pytest.raises(InputError, match="real, and symmetric"):
                unwrap(of)(bad, np.arange(6) % 3)


# ---- the spectrum -------------------------------------------------------------------


def test_ranks_are_of_the_singular_values():
    jacobian = np.random.default_rng(0).normal(size=(9, 5))
    k = jacobian @ jacobian.T
    singular = np.linalg.svd(jacobian, compute_uv=False) ** 2
    p = singular / singular.sum()
    np.testing.assert_allclose(spectrum(k)[:5], p, rtol=1e-10)
    np.testing.assert_allclose(spectrum(k)[5:], 0, atol=1e-14)
    np.testing.assert_allclose(effective_rank(k), np.prod(p**-p), rtol=1e-10)
    frobenius, spectral = (np.linalg.norm(jacobian, o) for o in ("fro", 2))
    np.testing.assert_allclose(stable_rank(k), (frobenius / spectral) ** 2, rtol=1e-10)
    for rank in (effective_rank, stable_rank):
        np.testing.assert_allclose(rank(spectrum(k)), rank(k))
        np.testing.assert_allclose(rank(3 * np.eye(6)), 6)
        ones = np.ones((6, 6), np.float32)  # whose eigenvalue 0 rounds to either side
        np.testing.assert_allclose(rank(ones), 1, rtol=1e-5)


def test_what_is_no_kernel_has_no_spectrum():
    for bad in (np.zeros((3, 3)), np.diag([1.0, -0.5]), -np.eye(2)):
        with pytest.raises(InputError, match="positive semidefinite"):
            spectrum(bad)
    with pytest.raises(InputError, match="NaN"):
        effective_rank(np.full((2, 2), np.nan))
