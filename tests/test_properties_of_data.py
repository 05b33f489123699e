"""Any images, any state: what is made, split or saved of them is right, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fssd_jax
from fssd_jax import InputError
from fssd_jax.data import (
    benchmarks,
    corruptions,
    embedded,
    identities,
    inputs,
    sources,
)
from tests.any_input import arrays, examples, numbers

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
    found = embedded.enlarge(x, side)
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
