"""Features, distances and scores of any images: finite and right, or our error."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fssd_jax
from fssd_jax import InputError, features, outputs
from fssd_jax.data import pipeline
from fssd_jax.detectors import energy, knn, mahalanobis, max_logit, msp, odin
from fssd_jax.detectors import fssd as fssd_detector
from tests.any_input import arrays, examples


def network(variables, x):
    """Two layers and logits, of [batch, 2, 2, 1]."""
    flat = x.reshape(x.shape[0], -1)
    first = jnp.tanh(flat @ variables["w"])
    return OrderedDict(first=first.reshape(-1, 1, 3), second=first[:, :2] ** 2)


def logits(variables, x):
    return network(variables, x)["first"].reshape(-1, 3) * variables["scale"]


WEIGHTS = {
    "w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32),
    "scale": jnp.float32(10),
}
pixels = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([1, 12]), *map(st.just, (2, 2, 1))),
    elements=st.floats(0, 1, width=32),
)
anything = arrays(
    st.sampled_from([(0, 2, 2, 1), (1, 2, 2, 1), (3, 2, 2, 1)]), [*"?BiqefdF", "O"]
)


def as_float(x):
    return np.asarray(x, np.float64) / (255 if x.dtype.kind in "iu" else 1)


def finite_or_refused(f, *args, **kwargs):
    """The answer, of which all numbers are finite; None if it was refused."""
    try:
        found = f(*args, **kwargs)
    except InputError:
        return None
    for leaf in jax.tree.leaves(found):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert np.isfinite(np.asarray(leaf, np.float64)).all()
    return found


@examples(40)
@given(anything, st.integers(-1, 5))
def test_batches_come_back_whole(x, batch_size):
    score = lambda fn, variables, state, x: x.reshape(len(x), -1).sum(1)  # noqa: E731
    found = finite_or_refused(
        pipeline.map_batches, score, network, None, None, x, batch_size=batch_size
    )
    if found is not None:
        expected = as_float(x).reshape(len(x), -1).sum(1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    try:
        parts = list(pipeline.batches(x, batch_size))
    except InputError:
        assert found is None
        return
    whole = np.concatenate([part[mask] for part, mask, _ in parts])
    np.testing.assert_allclose(whole, as_float(x), rtol=1e-6, atol=1e-12)
    assert len({len(part) for part, _, _ in parts}) == 1


@examples(20)
@given(anything)
def test_singularity_is_mean_and_spread(x):
    found = finite_or_refused(
        fssd_jax.estimate_singularity, network, WEIGHTS, x, batch_size=2
    )
    if found is None:
        return
    for name, f in network(WEIGHTS, jnp.asarray(as_float(x), jnp.float32)).items():
        f = np.asarray(f, np.float64).reshape(len(x), -1)
        np.testing.assert_allclose(found.center[name], f.mean(0), atol=1e-5)
        spread = np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean())
        np.testing.assert_allclose(found.spread[name], spread, atol=1e-5)


# Images that are all 0 are told, and are among these.
@pytest.mark.filterwarnings("ignore:noise lies in")
@pytest.mark.filterwarnings("ignore:at layers .* noise, or")
@examples(8)
@given(pixels, pixels, st.sampled_from([None, "same"]))
def test_fssd_from_noise_and_images(noise, x, ind):
    ind = x if ind else None
    state = finite_or_refused(fssd_detector.fit, network, WEIGHTS, noise, ind)
    if state is not None:
        found = finite_or_refused(
            fssd_detector.score, network, WEIGHTS, state, jnp.asarray(x)
        )
        assert found is not None
        assert found.shape == (len(x),)


@examples(8)
@given(pixels, pixels, st.integers(-1, 4))
def test_nearest_neighbours(train, x, k):
    state = finite_or_refused(knn.fit, network, WEIGHTS, train, "second", k=k)
    assert (state is None) == (not 1 <= k <= len(train))
    if state is None:
        return
    found = finite_or_refused(knn.score, network, WEIGHTS, state, jnp.asarray(x))
    of = lambda x: np.asarray(network(WEIGHTS, jnp.asarray(x))["second"], np.float64)  # noqa: E731
    assume(np.linalg.norm(of(train), axis=1).min() > 1e-3)  # zeros have no direction
    assume(np.linalg.norm(of(x), axis=1).min() > 1e-3)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (of(x), of(train))]
    gaps = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=-1)
    np.testing.assert_allclose(found, -np.sort(gaps, 1)[:, k - 1], atol=1e-3)


@examples(8)
@given(pixels, arrays(st.tuples(st.sampled_from([1, 12])), ["q", "i", "d", "?"]))
def test_gaussians(x, y):
    y = y % 2 if y.dtype.kind == "i" else y
    found = finite_or_refused(
        mahalanobis.estimate_gaussians, network, WEIGHTS, x, y, 2, batch_size=4
    )
    if found is not None:
        state = finite_or_refused(mahalanobis.fit, network, WEIGHTS, found, x)
        if state is not None:
            finite_or_refused(
                mahalanobis.score, network, WEIGHTS, state, jnp.asarray(x)
            )


@examples(8)
@given(pixels, st.sampled_from([0.0, 1e-3, 1.0, 80.0, 1e4, 1e30]))
def test_scores_of_logits(x, scale):
    variables = WEIGHTS | {"scale": jnp.float32(scale)}
    for method in (msp, energy, max_logit, odin):
        state = method.fit()
        found = finite_or_refused(
            method.score, logits, variables, state, jnp.asarray(x)
        )
        assert found is not None
    z = np.asarray(logits(variables, x), np.float64)
    top = np.exp(z - z.max(1, keepdims=True)).sum(1)
    probability = 1 / top
    found = np.asarray(
        msp.score(logits, variables, msp.fit(), jnp.asarray(x)), np.float64
    )
    np.testing.assert_allclose(scipy.special.expit(found), probability, rtol=1e-4)


@examples(30)
@given(
    hnp.arrays(
        np.float32,
        st.sampled_from([(1, 2), (2, 3, 2), (2, 2, 2, 3)]),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    st.sampled_from(["flatten", "mean"]),
    st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_pool(f, how, dtype):
    given = OrderedDict(a=jnp.asarray(f, dtype))
    found = np.asarray(outputs.pool(given, how)["a"], np.float64)
    exact = np.asarray(given["a"], np.float64)
    axes = tuple(range(1, f.ndim - 1))
    expected = exact.reshape(len(f), -1) if how == "flatten" else exact.mean(axes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)


@examples(10)
@given(pixels)
def test_join(x):
    joined = features.join({"a": network, "b": network})
    found = joined({"a": WEIGHTS, "b": WEIGHTS}, x)
    assert list(found) == ["a/first", "a/second", "b/first", "b/second"]
    np.testing.assert_array_equal(found["a/first"], found["b/first"])
