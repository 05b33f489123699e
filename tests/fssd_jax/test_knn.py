"""k nearest neighbours: against scikit-learn."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fssd_jax import InputError, make_feature_fn, map_batches
from fssd_jax.detectors import knn


def test_knn_ranks_features_that_lie_close_together():
    """Directions 2·10⁻⁴ apart, which a product does not resolve in float32."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=16)
    bank, x = (base + 2e-4 * rng.normal(size=(n, 16)) for n in (200, 20))
    feature_fn = lambda variables, x: OrderedDict(z=jnp.asarray(x))  # noqa: E731
    train, tested = bank.astype(np.float32), x.astype(np.float32)
    state = knn.fit(feature_fn, {}, train, "z", k=10, unit_range=False)
    unit = [a / np.linalg.norm(a, axis=1)[:, None] for a in (train, tested)]
    unit = [a.astype(np.float64) for a in unit]
    distance = np.sort(np.linalg.norm(unit[1][:, None] - unit[0][None], axis=-1), 1)
    found = -np.asarray(knn.score(feature_fn, {}, state, jnp.asarray(tested)))
    np.testing.assert_allclose(found, distance[:, 9], rtol=2e-2)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("chunk", [10, 4096])
def test_knn_is_scikit_learns(blobs, monkeypatch, k, chunk):
    """Also where the last chunk is not full: 60 images in chunks of 10 or 4096."""
    monkeypatch.setattr(knn, "CHUNK", chunk)
    model, variables, (ind, _), (train, _) = blobs
    train = train[:57]
    feature_fn = make_feature_fn(model)
    state = knn.fit(feature_fn, variables, train, "second", k=k)
    z = [
        np.asarray(feature_fn(variables, x)["second"], np.float64) for x in (train, ind)
    ]
    bank, tested = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in z)
    distance, _ = NearestNeighbors(n_neighbors=k).fit(bank).kneighbors(tested)
    found = map_batches(knn.score, feature_fn, variables, state, ind)
    np.testing.assert_allclose(found, -distance[:, -1], rtol=1e-3, atol=1e-6)


def knn_scores(train, tested, k, dtype=jnp.float32):
    """The detector's scores, and scikit-learn's distances of normalised features.

    The input is the feature.
    """

    def directions(variables, x):
        return OrderedDict(image=x.astype(dtype))

    train, tested = (a[:, None, None].astype(np.float32) for a in (train, tested))
    of = directions, {}
    state = knn.fit(*of, train, "image", k=k, unit_range=False)
    found = map_batches(knn.score, *of, state, tested, unit_range=False)
    z = [a[:, 0, 0].astype(np.float64) for a in (train, tested)]
    lengths = [np.linalg.norm(a, axis=1, keepdims=True) for a in z]
    bank, tested = (a / np.where(n == 0, 1, n) for a, n in zip(z, lengths, strict=True))
    distance, _ = NearestNeighbors(n_neighbors=k).fit(bank).kneighbors(tested)
    return found, distance[:, -1]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("k", [1, 20, 45, 50])
def test_knn_ranks_features_of_zeros_by_distance(monkeypatch, k, x64):
    """A feature of zeros is 1 away from all, nearer than one at more than 60°."""
    monkeypatch.setattr(knn, "CHUNK", 16)  # the last chunk is filled with zeros, too
    rng = np.random.default_rng(0)
    train, tested = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    train[::10] = 0
    tested[0] = 0
    with jax.enable_x64(x64):  # then float32 networks are there, too
        for dtype in (jnp.float32, jnp.float64) if x64 else (jnp.float32,):
            found, expected = knn_scores(train, tested, k, dtype)
            assert found.dtype == dtype
            tolerance = 1e-12 if dtype == jnp.float64 else 1e-6
            np.testing.assert_allclose(found, -expected, tolerance, tolerance)


def test_what_fills_the_last_chunk_of_knn_is_nobodys_neighbour(monkeypatch):
    """All training features point away from what is tested: at more than zeros' 1."""
    monkeypatch.setattr(knn, "CHUNK", 16)
    train = np.abs(np.random.default_rng(0).normal(size=(50, 4)))
    found, expected = knn_scores(train, -train[:7], 3)
    assert expected.min() > 1.4
    np.testing.assert_allclose(found, -expected, rtol=1e-6)


def test_knn_refuses_an_unknown_layer_and_too_many_neighbours(blobs):
    model, variables, _, (train, _) = blobs
    with pytest.raises(InputError, match=r"k: expected 1 to 60"):
        knn.fit(make_feature_fn(model), variables, train, "second", k=61)
    with pytest.raises(InputError, match=r"unknown layer 'third'; choose from"):
        knn.fit(make_feature_fn(model), variables, train, "third", k=1)
