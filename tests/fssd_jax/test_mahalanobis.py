"""Mahalanobis: against scikit-learn, and its input step."""

import tracemalloc
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from fssd_jax import InputError, make_feature_fn, moments
from fssd_jax.detectors import mahalanobis

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


def written_out(f, y, tested, ridge):
    """M in float64, by the inverse of Σ + ridge · tr Σ / dim · 1."""
    f, tested = (a.astype(np.float64) for a in (f, tested))
    means = np.stack([f[y == c].mean(0) for c in range(y.max() + 1)])
    sigma = np.cov((f - means[y]).T, bias=True)
    sigma += ridge * np.trace(sigma) / len(sigma) * np.eye(len(sigma))
    precision = np.linalg.inv(sigma)
    gaps = tested[:, None] - means[None]
    return -np.einsum("nci,ij,ncj->nc", gaps, precision, gaps).min(1)


def ordinary(kind):
    """(features [n, dim], classes, tested features): what networks do."""
    rng = np.random.default_rng(3)
    y = np.arange(200) % 4
    f = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) + 3 * np.eye(12)[y]
    tested = 4 * rng.normal(size=(30, 12))
    narrow = rng.normal(size=(5, 64))  # a wide layer after a narrow one: rank 5 of 64
    constant = np.isin(np.arange(12), (3, 5))
    scales = {"1e-20": 1e-20, "1e-12": 1e-12, "1e12": 1e12, "1e15": 1e15}
    if kind in scales:
        return f * scales[kind], y, tested * scales[kind]
    if kind == "few images":
        return rng.normal(size=(20, 64)), np.arange(20) % 4, rng.normal(size=(30, 64))
    if kind == "one image of a class":
        return f, np.where(np.arange(200) == 7, 3, y % 3), tested
    return {
        "full rank": (f, y, tested),
        "low rank": (f[:, :5] @ narrow, y, tested[:, :5] @ narrow),
        "low rank, tested off it": (f[:, :5] @ narrow, y, rng.normal(size=(30, 64))),
        "units twice": (np.tile(f, 2), y, np.tile(tested, 2)),
        "constant units": (np.where(constant, 7.3, f), y, tested),
        "units of all sizes": (f * np.logspace(-2, 2, 12), y, tested),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *("full rank", "low rank", "low rank, tested off it", "few images"),
        *("one image of a class", "units twice", "constant units"),
        *("units of all sizes", "1e-20", "1e-12", "1e12", "1e15"),
    ],
)
def test_features_that_ordinary_networks_have(kind):
    f, y, tested = ordinary(kind)
    f, tested = np.float32(f), np.float32(tested)
    gaussians = mahalanobis.estimate_gaussians(
        raw, {}, f, y, 4, unit_range=False, batch_size=16
    )
    found = mahalanobis.confidences(raw, {}, gaussians, jnp.asarray(tested))
    expected = written_out(f, y, tested, ridge=1e-6)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_moments_of_many_classes_are_those_of_the_whole(batch_size):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.concatenate([np.arange(200), rng.integers(0, 200, 300)]))
    f = np.float32(rng.normal(size=(500, 6)) + 1e4 * rng.normal(size=(200, 6))[y])
    total = moments.nothing(200, 6)
    for start in range(0, 500, batch_size):
        part = slice(start, start + batch_size)
        moments.add("a", total, f[part], y[part])
    means = np.stack([f[y == c].mean(0, dtype=np.float64) for c in range(200)])
    own = f - means[y]
    np.testing.assert_array_equal(total.count, np.bincount(y))
    np.testing.assert_allclose(total.mean, means, rtol=1e-13)
    np.testing.assert_allclose(total.scatter, own.T @ own, rtol=1e-9, atol=1e-7)


def test_a_batch_costs_what_its_own_classes_cost():
    """Not what all do: 10,000 identities, of which a batch holds few."""
    f, y = np.ones((64, 512), np.float32), np.arange(64)
    total = moments.nothing(10_000, 512)
    tracemalloc.start()
    moments.add("a", total, f, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < total.mean.nbytes / 4


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
    whitening = np.asarray(found.whitening["conv1"], np.float64)
    np.testing.assert_allclose(
        whitening @ sigma @ whitening.T, np.eye(2), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found.center["conv1"], means @ whitening.T, rtol=1e-4)


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
    """Values and gradients in NumPy: ∇ max_c −‖Wf − m_c‖² = −2 (Wf − m_c)ᵀ W."""
    (whitening,), (center,) = (list(part.values()) for part in gaussians)
    squares = np.square((f @ whitening.T)[:, None] - center[None]).sum(-1)
    gap = f @ whitening.T - center[squares.argmin(-1)]
    return -squares.min(-1), -2 * gap @ whitening


@jax.jit
def ours(gaussians, f):
    def total(f):
        values = mahalanobis.confidence(gaussians, "layer", f)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(f)
    return values, gradient


def many_classes(classes, offset=0.0):
    """(gaussians, features near some of the centres)."""
    rng = np.random.default_rng(0)
    whitening = np.tril(rng.normal(size=(64, 64)), -1) * 0.05 + np.eye(64)
    center = rng.normal(size=(classes, 64)) + offset
    white = center[:16] + rng.normal(size=(16, 64))[: len(center)]
    return mahalanobis.Gaussians(
        OrderedDict(layer=whitening), OrderedDict(layer=center)
    ), np.linalg.solve(whitening, white.T).T


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


def test_the_nearest_class_is_found_where_others_are_far():
    """Two groups of classes 10⁴ deviations apart: a product tells none within one."""
    rng = np.random.default_rng(0)
    side = np.repeat([-1, 1], 30)[:, None]
    center = np.float32(1e4 * side + rng.normal(size=(60, 16)))
    w = np.float32(center[rng.integers(0, 60, 100)] + rng.normal(size=(100, 16)))
    squares = np.square(w[:, None].astype(np.float64) - center).sum(-1)
    np.testing.assert_array_equal(mahalanobis._nearest(w, center), squares.argmin(-1))


@pytest.mark.parametrize("classes", [1, 64, 65, 150])
def test_the_nearest_class_is_the_first_of_equal_ones(classes):
    """However the classes fill the blocks; and one that is not a number is told."""
    rng = np.random.default_rng(classes)
    center = np.float32(rng.integers(-2, 3, (classes, 3)))
    w = np.float32(rng.integers(-2, 3, (50, 3)))
    squares = np.square(w[:, None] - center).sum(-1)
    np.testing.assert_array_equal(mahalanobis._nearest(w, center), squares.argmin(-1))
    center[classes // 2] = np.nan
    np.testing.assert_array_equal(mahalanobis._nearest(w, center), classes // 2)


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
    of_classes = np.float32([[0.1, 0.7], [0.3, 0.2]])
    for constant in (0 * of_classes, of_classes, of_classes * 1e-9):
        with pytest.raises(InputError, match=r"'image' has the same features"):
            estimate(np.tile(constant, (50, 1)), np.array([0, 1] * 50), 2)
    with pytest.raises(InputError, match="one image a class"):
        estimate(of_classes, np.array([0, 1]), 2)
    twice = np.tile(x[:, 0, 0], 2)
    with pytest.raises(InputError, match=r"is singular.* give .* ridge=1e-6"):
        estimate(twice, y, 2, ridge=0.0)
    estimate(twice, y, 2, ridge=1e-6)
    for ridge in (-1e-6, np.nan):
        with pytest.raises(InputError, match="ridge: expected 0 or more, got"):
            estimate(x, y, 2, ridge=ridge)

    def broken(variables, x):
        return OrderedDict(image=jnp.where(x > x.mean(), jnp.inf, x))

    with pytest.raises(InputError, match=r"'image' has features that are not finite"):
        mahalanobis.estimate_gaussians(broken, {}, x, y, 2, unit_range=False)
