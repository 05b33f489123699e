import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, map_batches
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import batches, pad


def total(apply_fn, variables, state, x, scale=1.0):
    return scale * (apply_fn(variables, x) + state).sum(axis=(1, 2, 3))


def multiply(variables, x):
    return variables * x


X = np.random.default_rng(0).integers(0, 256, (11, 2, 2, 1), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])
def test_all_images_are_scored_in_order(batch_size):
    found = map_batches(
        total, multiply, 2.0, 1.0, X, batch_size=batch_size, scale=3.0, progress="x"
    )
    expected = 3 * (2 * (X / 255) + 1).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_batch_axis_may_be_another():
    def twice(apply_fn, variables, state, x):
        return jnp.stack([x[:, 0, 0, 0], x[:, 1, 1, 0]])

    found = map_batches(twice, multiply, 0, 0, X, batch_size=4, batch_axis=1)
    np.testing.assert_allclose(found, X[:, [0, 1], [0, 1], 0].T / np.float32(255))


def test_padding_repeats_a_real_row():
    x = pad(as_input(X[:3]), 5)
    np.testing.assert_array_equal(x[:3], as_input(X[:3]))
    np.testing.assert_array_equal(x[3:], x[[0, 0]])


def test_batches_are_of_one_size():
    shapes = [(len(x), mask.sum()) for x, mask, _ in batches(X, 4)]
    assert shapes == [(4, 4), (4, 4), (4, 3)]


def test_bad_pixels_are_found_before_anything_runs():
    with pytest.raises(InputError, match="NaN"):
        map_batches(total, multiply, 2.0, 1.0, np.full((3, 2, 2, 1), np.nan))
    with pytest.raises(InputError, match="empty"):
        map_batches(total, multiply, 2.0, 1.0, X[:0])


@pytest.mark.parametrize("axes", [("x",), ("data", "model")])
def test_another_mesh_is_told_of(axes):
    devices = np.array(jax.devices()[:1]).reshape([1] * len(axes))
    with pytest.raises(InputError, match=r'mesh: expected one axis, .*\("data",\)'):
        list(batches(np.zeros((3, 2)), 2, mesh=jax.sharding.Mesh(devices, axes)))
