"""Any input at all: our error, or an answer that is right; nothing else comes out.

FSSD_JAX_EXAMPLES=1000 tries more than the few of every day.
"""

import math
import os
from collections import OrderedDict
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fssd_jax
from fssd_jax import InputError, checks, ensemble, features, metrics, outputs
from fssd_jax.data import benchmarks, corruptions, identities, inputs, pipeline, sources
from fssd_jax.detectors import energy, knn, mahalanobis, max_logit, msp, odin
from fssd_jax.detectors import fssd as fssd_detector

EXAMPLES = int(os.environ.get("FSSD_JAX_EXAMPLES", 0))


def examples(count: int):
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


SPECIAL = [0.0, -0.0, 1.0, 0.5, -1.0, 255.0, 1e-320, 1e-38, 1e38, -1e308, 1e308]
BAD = [math.nan, math.inf, -math.inf]
numbers = st.sampled_from(SPECIAL + BAD) | st.floats()
finite = st.sampled_from(SPECIAL) | st.floats(-1e6, 1e6)
DTYPES = [*"?bBhHiIqQefdFD", "S1", "U1", "O", "M8[s]"]
# What somebody may hand over in place of an array.
oddities = st.sampled_from(
    [
        None,
        3,
        2.5,
        "text",
        b"",
        [],
        [[]],
        {},
        {"a": 1},
        {1},
        [[1], [1, 2]],
        ["a"],
        len,
        [None],
        [1j],
        object(),
        np.float64(1),
        np.array("a"),
        range(3),
    ]
)


@st.composite
def arrays(draw, shapes, dtypes=DTYPES):
    """Of any dtype, with special values and duplicates."""
    shape, dtype = draw(shapes), np.dtype(draw(st.sampled_from(dtypes)))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = draw(hnp.arrays(np.float64, shape, elements=numbers))
            return values.astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, None)
    return draw(hnp.arrays(dtype, shape))


vectors = arrays(st.tuples(st.integers(0, 6))) | arrays(
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
)
real = st.lists(finite, min_size=1, max_size=12).map(np.array)


def refused(f, *args, **kwargs) -> bool:
    try:
        f(*args, **kwargs)
    except InputError:
        return True
    return False


# ---- checks -------------------------------------------------------------------------


@examples(150)
@given(vectors | oddities)
def test_scores(s):
    try:
        found = checks.scores(s, "scores")
    except InputError:
        return
    assert found.dtype == np.float64
    assert found.ndim == 1
    assert found.size
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, np.asarray(s).astype(np.float64))


@examples(150)
@given(vectors | oddities, st.booleans())
def test_images(x, unit_range):
    try:
        found = np.asarray(checks.images(x, unit_range=unit_range))
    except InputError:
        return
    assert found.ndim >= 2
    assert found.size
    values = found.astype(np.float64)
    assert np.isfinite(values).all()
    if found.dtype.kind in "iu" and not checks.are_pixels(found):
        assert -(2**31) <= values.min() <= values.max() < 2**31
    elif found.dtype.kind in "biu" or unit_range:
        assert (
            0 <= values.min() <= values.max() <= (255 if found.dtype.kind != "f" else 1)
        )


@examples(150)
@given(vectors | oddities, st.integers(0, 6), st.integers(-1, 300))
@example(np.zeros(0, int), 0, 2)
def test_labels(y, count, classes):
    try:
        found = checks.labels(y, count, classes)
    except InputError:
        return
    assert found.dtype == np.int32
    assert found.shape == (count,)
    assert len(set(found.tolist())) > 1
    assert 0 <= found.min() <= found.max() < classes
    assert found.tolist() == np.asarray(y).tolist()


@examples(50)
@given(st.integers())
def test_at_least_one(value):
    assert refused(checks.at_least_one, "some number", value) == (value < 1)


# ---- metrics and thresholds ---------------------------------------------------------


def by_pairs(ind, ood):
    """The definition: each pair counts 1, ½ or 0."""
    wins = [(a > b) + Fraction(int(a == b), 2) for a in ind for b in ood]
    return float(sum(wins) / Fraction(len(wins)))


@examples(100)
@given(real, real)
def test_auroc_is_the_share_of_pairs(ind, ood):
    assert metrics.auroc(ind, ood) == pytest.approx(by_pairs(ind, ood), abs=1e-12)


@examples(60)
@given(vectors | oddities, vectors | oddities)
def test_metrics_of_anything(ind, ood):
    if not refused(metrics.evaluate, ind, ood):
        found = metrics.evaluate(ind, ood)
        assert all(0 <= value <= 1 for value in found[:4])
    if not refused(metrics.paired, ind, ood, ind, ood):
        assert metrics.paired(ind, ood, ind, ood)[::2] == (0, 1)


@examples(20)
@given(real, real)
def test_metrics_are_right_and_lie_in_their_intervals(ind, ood):
    found = metrics.evaluate(ind, ood)
    assert found.auroc == pytest.approx(by_pairs(ind, ood), abs=1e-12)
    for share, fpr in ((0.8, found.fpr80), (0.95, found.fpr95)):
        passed = [t for t in ind if np.sum(ind >= t) >= share * len(ind) - 1e-9]
        assert fpr == pytest.approx(np.mean(ood >= max(passed)))
    for low, high in found[4:]:
        assert 0 <= low <= high <= 1


@examples(60)
@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_paired(n, m, data):
    draw = [data.draw(hnp.arrays(np.float64, k, elements=finite)) for k in (n, m) * 2]
    found = metrics.paired(*draw)
    assert found.difference == pytest.approx(by_pairs(*draw[:2]) - by_pairs(*draw[2:]))
    assert 0 <= found.p <= 1
    assert found.ci95[0] <= found.difference <= found.ci95[1]


@examples(100)
@given(vectors | oddities, numbers)
def test_threshold_of_anything(scores, acceptance):
    try:
        found = fssd_jax.threshold(scores, acceptance)
    except InputError:
        return
    assert 0 <= found.low95 <= found.high95 <= 1
    # Of n + 1 scores, as many as the guarantee takes are not below it.
    n = len(scores)
    accepted = np.sum(np.asarray(scores, np.float64) >= found.value)
    assert accepted + 1 >= (n + 1) * acceptance - 1e-9


# ---- ensembles ----------------------------------------------------------------------

tables = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 12), st.integers(1, 2)), elements=numbers
)


@examples(60)
@given(tables)
def test_standardise(d):
    assume(np.abs(d[np.isfinite(d)]).max(initial=0) < 1e30)
    layers = [str(k) for k in range(d.shape[1])]
    try:
        found = ensemble.standardise(d, layers)
    except InputError:
        return
    score = np.asarray(ensemble.combine(found, jnp.asarray(d, jnp.float32)), np.float64)
    assert np.isfinite(score).all()


@examples(15)
@given(st.integers(8, 12), st.integers(8, 12), st.data())
def test_fit_ensemble(n, m, data):
    moderate = st.floats(-100, 100, width=32) | st.sampled_from(BAD)
    ind, ood = (
        data.draw(hnp.arrays(np.float32, (k, 2), elements=moderate)) for k in (n, m)
    )
    try:
        found = ensemble.fit_ensemble(ind, ood, ["a", "b"])
    except InputError:
        return
    assert min(n, m) >= ensemble.FEWEST
    assert all(np.isfinite(a).all() for a in found)


@examples(40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_first_best(values):
    found = ensemble.first_best(np.arange(len(values)), values)
    best = int(found.epsilon)
    assert values[best] == pytest.approx(max(values), abs=1e-11)
    assert all(v < max(values) for v in values[:best])


# ---- features and distances, on a network that is a plain function -------------------


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


# ---- data ---------------------------------------------------------------------------


@examples(10)
@given(
    hnp.arrays(np.uint8, st.sampled_from([(1, 4, 4, 1), (5, 4, 8, 3), (4, 8, 8, 1)])),
    st.integers(0, 2**31),
)
def test_corruptions(x, seed):
    key = jax.random.key(seed)
    for made in (
        corruptions.corrupted(x, key),
        corruptions.shuffled_pixels(x, 3, key),
        corruptions.scaled_noise(jnp.asarray(inputs.as_input(x)), key),
    ):
        assert made.shape[1:] == x.shape[1:]
        assert 0 <= made.min() <= made.max() <= 1
    shuffled = corruptions.shuffled_pixels(x, 3, key)
    sums = inputs.as_input(x).reshape(len(x), -1).sum(1)
    for image in shuffled:
        assert np.isclose(image.sum(), sums, rtol=1e-4).any()


@examples(60)
@given(arrays(st.tuples(st.integers(0, 8)), ["q", "B", "U1", "d"]), st.integers(-1, 3))
def test_identities(ids, least):
    try:
        found = identities.number(ids, least)
    except InputError:
        return
    np.testing.assert_array_equal(found.names[found.y], ids[found.kept])
    assert np.bincount(found.y, minlength=found.count).min() >= least
    assert found.count >= 2


@examples(30)
@given(hnp.arrays(np.float32, st.sampled_from([(1, 1, 1), (2, 3, 2)]),
                  elements=st.floats(0, 1, width=32)), st.integers(1, 9))  # fmt: skip
def test_enlarge(x, side):
    found = sources.enlarge(x, side)
    assert found.shape == (len(x), side, side)
    assert x.min() - 1e-6 <= found.min() <= found.max() <= x.max() + 1e-6


@examples(30)
@given(st.integers(1, 6), st.integers(-2, 8))
def test_validation_is_split_off_without_overlap(n, count):
    x = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    data = sources.ArrayDataset(x, np.arange(n, dtype=np.int32), "a", "all", "", "")
    try:
        parts = benchmarks.split_validation(data, count, jax.random.key(0))
    except InputError:
        return
    assert [len(p.x) for p in parts] == [count, n - count]
    assert sorted(np.concatenate([p.y for p in parts]).tolist()) == list(range(n))


# ---- saving -------------------------------------------------------------------------

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | arrays(
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
        ["?", "b", "B", "i", "f", "e", "q", "d", "O", "U1", "F"],
    )
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@examples(60)
@given(trees, st.dictionaries(st.text(max_size=3), numbers | st.text(max_size=3)))
def test_what_is_saved_comes_back(tmp_path_factory, state, config):
    path = tmp_path_factory.mktemp("saved") / "a.npz"
    try:
        fssd_jax.save(path, fssd_jax.Fitted("msp", config, state), {})
    except InputError:
        return
    found = fssd_jax.load(path, {})
    assert found.config == config
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    for a, b in zip(*map(jax.tree.leaves, (found.state, state)), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)
