"""Mahalanobis: against scikit-learn, and its input step."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from fssd_jax import InputError, make_feature_fn
from fssd_jax.detectors import (
    mahalanobis,
)

EPSILONS = (0.0, 0.02)
LAYERS = ["second", "logits"]


def raw(variables, x):
    """A network that a user wrote as a plain function: the input is the feature."""
    return OrderedDict(image=x)


def gaussian_images(offset=0.0):
    """Two classes of correlated 1×1 images with 5 channels."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 500)
    mixing = rng.normal(size=(5, 5))
    x = rng.normal(size=(500, 5)) @ mixing + y[:, None] * np.arange(5) + offset
    return x.astype(np.float32)[:, None, None], y


def by_scikit_learn(x, y, tested):
    x, tested = (a.astype(np.float64).mean((1, 2)) for a in (x, tested))
    means = np.stack([x[y == c].mean(0) for c in np.unique(y)])
    tied = EmpiricalCovariance(assume_centered=True).fit(x - means[y])
    return -np.min([tied.mahalanobis(tested - mean) for mean in means], axis=0)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("batch_size", [7, 500])
def test_mahalanobis_is_scikit_learns(offset, batch_size):
    """Also far from 0, where Σ x xᵀ / n − μ μᵀ would lose all digits in float32."""
    x, y = gaussian_images(offset)
    gaussians = mahalanobis.estimate_gaussians(
        raw, {}, x, y, 2, ridge=0.0, batch_size=batch_size, unit_range=False
    )
    tested = x[:50] + np.random.default_rng(2).normal(0, 3, (50, 1, 1, 5))
    tested = tested.astype(np.float32)
    found = mahalanobis.confidences(raw, {}, gaussians, jnp.asarray(tested))
    expected = by_scikit_learn(x, y, tested)
    np.testing.assert_allclose(found[:, 0], expected, rtol=2e-3 if offset else 1e-4)


def test_mahalanobis_averages_over_space_and_takes_every_layer(lenet):
    feature_fn, variables, _, images = lenet
    y = np.arange(len(images)) % 2
    feature_fn = partial(_two_channels, feature_fn)
    options = {"ridge": 0.01, "batch_size": 6}
    found = mahalanobis.estimate_gaussians(
        feature_fn, variables, images, y, 2, **options
    )
    f = np.asarray(feature_fn(variables, images / np.float32(255))["conv1"], np.float64)
    f = f.mean((1, 2))
    means = np.stack([f[y == c].mean(0) for c in (0, 1)])
    sigma = np.cov((f - means[y]).T, bias=True)
    sigma += 0.01 * np.trace(sigma) / 2 * np.eye(2)
    factor = np.asarray(found.factor["conv1"], np.float64)
    np.testing.assert_allclose(factor @ factor.T, sigma, rtol=1e-4)
    np.testing.assert_allclose(
        factor @ np.asarray(found.center["conv1"]).T, means.T, rtol=1e-4
    )


def _two_channels(feature_fn, variables, x):
    return OrderedDict(conv1=feature_fn(variables, x)["conv1"][..., :2])


def test_the_mahalanobis_step_raises_the_confidence(blobs):
    model, variables, (ind, _), _ = blobs
    y = np.asarray(model.apply(variables, ind)).argmax(-1)
    feature_fn = make_feature_fn(model, LAYERS)
    gaussians = mahalanobis.estimate_gaussians(feature_fn, variables, ind, y, 3)
    steps = jnp.array([0.0, 1e-4])
    swept = mahalanobis.sweep(feature_fn, variables, gaussians, jnp.asarray(ind), steps)
    plain = mahalanobis.confidences(feature_fn, variables, gaussians, jnp.asarray(ind))
    np.testing.assert_allclose(swept[0], plain, rtol=1e-5)
    assert np.all(swept[1] >= swept[0])


def plain_formula(gaussians, f):
    """Values and gradients in NumPy: ∇ max_c −‖L⁻¹f − m_c‖² = −2 (L⁻¹f − m_c)ᵀ L⁻¹."""
    (factor,), (center,) = (list(part.values()) for part in gaussians)
    white = np.linalg.solve(factor, f.T).T
    squares = np.square(white[:, None] - center[None]).sum(-1)
    gap = white - center[squares.argmin(-1)]
    return -squares.min(-1), -2 * np.linalg.solve(factor.T, gap.T).T


@jax.jit
def ours(gaussians, f):
    def total(f):
        values = mahalanobis._confidence(gaussians, "layer", f)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(f)
    return values, gradient


def many_classes(classes, offset=0.0):
    """(gaussians, features near some of the centres)."""
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(64, 64)), -1) * 0.05 + np.eye(64)
    center = rng.normal(size=(classes, 64)) + offset
    f = (center[:16] + rng.normal(size=(16, 64))[: len(center)]) @ factor.T
    return mahalanobis.Gaussians(
        OrderedDict(layer=factor), OrderedDict(layer=center)
    ), f


@pytest.mark.parametrize("classes", [3, 200])
def test_the_nearest_class_is_the_plain_formulas(classes):
    case = many_classes(classes)
    with jax.enable_x64(True):
        found = ours(*case)
    for a, b in zip(found, plain_formula(*case), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_the_nearest_class_is_found_far_from_zero():
    """Where ‖w‖² − 2 w·c + ‖c‖² keeps no digit in float32: 6·10⁷ less 6·10⁷."""
    case = jax.tree.map(np.float32, many_classes(200, offset=1000.0))
    expected = plain_formula(*jax.tree.map(np.float64, case))
    np.testing.assert_allclose(ours(*case)[0], expected[0], rtol=0.02)


def test_many_classes_need_little_memory():
    case = jax.tree.map(np.float32, many_classes(2000))
    analysis = ours.lower(*case).compile().memory_analysis()
    assert analysis is not None
    # [batch, classes, dim] would be 8 MiB; one more set of centres is 0.5 MiB.
    assert analysis.temp_size_in_bytes < 1.5 * 2**20


def test_mahalanobis_refuses_what_it_cannot_estimate():
    x, y = gaussian_images()
    estimate = partial(mahalanobis.estimate_gaussians, raw, {}, unit_range=False)
    with pytest.raises(InputError, match=r"no image of classes \[2\]"):
        estimate(x, y, 3)
    with pytest.raises(InputError, match="expected one label per image"):
        estimate(x, y[:-1], 2)
    with pytest.raises(InputError, match=r"'image' has the same features"):
        estimate(np.zeros((6, 1, 1, 2), np.float32), np.array([0, 1] * 3), 2)
