"""Any numbers at all: our error, or an answer that is right; nothing else comes out."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fssd_jax
from fssd_jax import InputError, checks, ensemble, metrics
from tests.any_input import (
    BAD,
    examples,
    finite,
    numbers,
    oddities,
    real,
    refused,
    vectors,
)

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
