import numpy as np
import pytest

from analysis import pca


def test_components_are_the_singular_vectors():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 2, 3)) @ np.diag([5.0, 2.0, 0.5])) + 3
    basis = pca.fit(x, 2)
    flat = x.reshape(60, 6)
    _, s, vt = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(
        np.abs(basis.components @ vt[:2].T), np.eye(2), atol=1e-6
    )
    np.testing.assert_allclose(basis.share, (s**2 / (s**2).sum())[:2])
    np.testing.assert_allclose(
        pca.project(basis, x), (flat - flat.mean(0)) @ basis.components.T
    )


def test_the_sign_is_fixed():
    x = np.random.default_rng(0).normal(size=(30, 4))
    rows = pca.fit(x).components
    assert (rows[[0, 1], np.abs(rows).argmax(1)] > 0).all()


def test_features_of_one_number_lie_on_a_line():
    x = np.random.default_rng(0).normal(size=(30, 1))
    basis = pca.fit(x)
    assert basis.share.tolist() == [1, 0]
    np.testing.assert_allclose(
        np.abs(pca.project(basis, x)), np.abs(np.c_[x - x.mean(), 0 * x])
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (5, 1)])
def test_equal_features_are_one_point(shape):
    """A dead layer, or a probe set of one image."""
    basis = pca.fit(np.full(shape, 1e6))
    assert basis.share.tolist() == [0, 0]
    assert not pca.project(basis, np.full(shape, 1e6)).any()
    assert pca.project(basis, np.ones(shape)).shape == (len(np.ones(shape)), 2)
