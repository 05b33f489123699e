"""Noise: its moments, in the range of the data, and whoever fits with another."""

import inspect
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, noise
from fssd_jax.data.inputs import Watched
from fssd_jax.detectors import fssd
from tests.fssd_jax.test_inputs import FLOATS

RNG = np.random.default_rng(0)


def test_noises_have_the_moments_they_say():
    key, shape = jax.random.key(0), (20, 10)
    uniform = fssd_jax.uniform_noise(key, 100, shape, low=-3.0, high=1.0)
    assert abs(uniform.mean() + 1) < 5 * 4 / 12**0.5 / 20000**0.5
    assert -3 <= uniform.min() < -2.99 < 0.99 < uniform.max() <= 1
    normal = noise.normal_noise(key, 100, shape, mean=2.0, std=0.5)
    assert abs(normal.mean() - 2) < 5 * 0.5 / 20000**0.5
    assert abs(normal.std() - 0.5) < 0.02
    tokens = noise.random_tokens(key, 100, shape, 5)
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=5)
    assert len(counts) == 5
    assert abs(counts - 4000).max() < 5 * (20000 * 0.2 * 0.8) ** 0.5
    # Drawn piece by piece, they are the same.
    draws = {
        "uniform": partial(fssd_jax.uniform_noise, key, shape=shape),
        "normal": partial(noise.normal_noise, key, shape=shape),
        "tokens": partial(noise.random_tokens, key, shape=shape, vocabulary=9),
        "like": partial(noise.noise_like, key, data=FLOATS),
    }
    for draw in draws.values():
        np.testing.assert_array_equal(draw(n=5)[2:], draw(n=3, start=2))


def test_noise_like_data_is_in_their_range():
    data = {"x": RNG.uniform(-4, 9, (200, 8)), "ids": RNG.integers(3, 7, (200, 5))}
    data["mask"] = RNG.random((200, 3)) < 0.5
    found = noise.noise_like(jax.random.key(0), 500, data)
    low, high = data["x"].min(), data["x"].max()
    assert low <= found["x"].min() < low + 0.1
    assert high - 0.1 < found["x"].max() <= high
    assert set(np.unique(found["ids"])) == {3, 4, 5, 6}
    assert found["mask"].dtype == bool
    assert found["x"].shape == (500, 8)
    with pytest.raises(InputError, match="all numbers of the data are"):
        noise.noise_like(jax.random.key(0), 3, np.ones((4, 2)))


def test_noise_in_another_range_is_warned_of():
    signals = np.float32(RNG.uniform(8, 10, (60, 16)) * RNG.choice([-1, 1], (60, 16)))
    feature_fn = lambda v, x: OrderedDict(z=x @ v)  # noqa: E731
    weights = jnp.asarray(RNG.random((16, 4)), jnp.float32)
    fit = partial(fssd.fit, feature_fn, weights, unit_range=False)
    pixels = fssd_jax.uniform_noise(jax.random.key(0), 50, (16,))
    with pytest.warns(UserWarning, match=r"noise lies in .*noise_like"):
        fit(pixels, signals)
    with pytest.warns(UserWarning, match=r"unit_range=False, but noise lies in"):
        fit(pixels)
    # And at the line here that called: a filter by module, and readers, find it.
    with pytest.warns(UserWarning, match="noise lies in") as told:
        fit(pixels, signals)
    line = inspect.currentframe().f_lineno - 1
    ((where, at),) = {(w.filename, w.lineno) for w in told}
    assert (where, at) == (__file__, line)
    # As advised: no warning, which would be an error here.
    matched = noise.noise_like(jax.random.key(0), 50, signals)
    fit(matched, signals * np.float32(1.5))
    fit(matched)
    fssd.fit(feature_fn, weights, pixels, np.float32(RNG.random((60, 16)) * 0.3 + 0.7))


def test_a_mask_that_is_true_throughout_has_noise():
    data = {"x": np.float32([[0, 1], [2, 3]]), "mask": np.ones((2, 40), bool)}
    found = noise.noise_like(jax.random.key(0), 3, data)["mask"]
    assert {*np.unique(found)} == {False, True}


def test_noise_on_both_sides_of_zero_is_not_taken_for_pixels():
    seen = Watched(None, "noise")
    for seen.range in ((-0.5, 0.5), (0.0, 5.0)):
        fssd.tell_range(seen, None, False)  # a warning would be an error
    for seen.range in ((0.0, 1.0), (0.2, 0.8)):
        with pytest.warns(UserWarning, match="are the data there"):
            fssd.tell_range(seen, None, False)
