import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax.models import LeNet
from fssd_jax.models.lenet import max_pool_2x2


def test_parameter_count_is_that_of_the_released_network():
    """9·32+32 + 9·32·64+64 + 9216·128+128 + 128·10+10."""
    variables = LeNet().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    assert sum(a.size for a in jax.tree.leaves(variables)) == 1_199_882


def test_normalisation_is_part_of_the_model():
    x = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))
    model = LeNet(mean=(0.25,), std=(0.5,))
    variables = model.init(jax.random.key(0), x)
    plain = LeNet(mean=(0.0,), std=(1.0,)).apply(variables, (x - 0.25) / 0.5)
    np.testing.assert_allclose(model.apply(variables, x), plain, rtol=1e-5, atol=1e-6)


def test_pooling_agrees_with_flax():
    for side in (6, 7):
        x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
        found, expected = max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2))
        np.testing.assert_array_equal(found, expected)


def test_training_drops_whole_channels():
    x = jax.random.uniform(jax.random.key(1), (1, 28, 28, 1))
    model = LeNet()
    variables = model.init(jax.random.key(0), x)

    def hidden(key):
        rngs = {"dropout": jax.random.key(key)}
        _, state = model.apply(
            variables, x, train=True, rngs=rngs, capture_intermediates=True
        )
        dropout = state["intermediates"]["Dropout_0"]["__call__"][0]
        return np.asarray(dropout)[0].reshape(-1, 64)

    dropped = np.stack([(hidden(key) == 0).all(axis=0) for key in range(40)])
    # Some channels are silent anyway; those that are not, drop out a quarter of times.
    alive = dropped.mean(0)[dropped.mean(0) < 0.9]
    assert abs(alive.mean() - 0.25) < 5 * (0.25 * 0.75 / (40 * len(alive))) ** 0.5
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x))
