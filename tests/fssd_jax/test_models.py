import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, make_feature_fn
from fssd_jax.models import MLP, LeNet
from fssd_jax.models.inputs import normalised
from fssd_jax.models.lenet import (
    ConvRelu,
    DenseRelu,
    max_pool_2x2,
)


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


@pytest.mark.parametrize(
    ("channels", "means", "stds"), [(1, 3, 3), (3, 1, 1), (3, 3, 1), (3, 1, 3)]
)
def test_images_of_other_channels_are_not_broadcast(channels, means, stds):
    mean, std = (0.5,) * means, (0.25,) * stds
    with pytest.raises(InputError, match=rf"expected .*, {means}\], got shape"):
        normalised(np.ones((2, 4, 4, channels), np.float32), mean, std)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_advised_for_other_axes_is_right(channels):
    x = np.random.default_rng(0).random((2, channels, 4, 5), np.float32)
    mean, std = (0.0,) * channels, (1.0,) * channels
    with pytest.raises(InputError, match=r"come last: x\.transpose\(0, 2, 3, 1\)"):
        normalised(x, mean, std)
    np.testing.assert_array_equal(
        normalised(x.transpose(0, 2, 3, 1), mean, std), np.moveaxis(x, 1, -1)
    )
    with pytest.raises(InputError, match=r"a last axis of 1: x\[\.\.\., None\]"):
        normalised(x[:, 0], mean, std)


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


def dropouts(model, variables, x, key):
    """(into, out of) each dropout of a LeNet, as it computes them."""
    _, state = model.apply(
        variables,
        x,
        train=True,
        rngs={"dropout": key},
        capture_intermediates=True,
    )
    layers = state["intermediates"]
    del layers["__call__"]
    found = {name: calls["__call__"][0] for name, calls in layers.items()}
    return {
        "conv1": (found["conv1"], found["conv1_dropout"]),
        "conv2": (max_pool_2x2(found["conv2"]), found["Dropout_0"]),
        "fc1": (found["fc1"], found["Dropout_1"]),
    }


@pytest.mark.parametrize(
    ("rates", "dense"), [((0.4, 0.1), 0.3), ((0.0, 0.25), 0.5), ((0.2, 0.2), 0.0)]
)
def test_each_dropout_has_its_rate(rates, dense):
    """A channel of an image, or a dense unit, is 0 or 1 / (1 − rate) times as large."""
    x = jax.random.uniform(jax.random.key(1), (64, 28, 28, 1))
    model = LeNet(conv_dropout=rates, dense_dropout=dense)
    variables = model.init(jax.random.key(0), x)
    found = dropouts(model, variables, x, jax.random.key(2))
    for layer, rate in zip(("conv1", "conv2", "fc1"), (*rates, dense), strict=True):
        before, after = (
            np.asarray(a).reshape(64, -1, a.shape[-1]) for a in found[layer]
        )
        kept = (after != 0).any(axis=1, keepdims=True)
        np.testing.assert_allclose(after, before * kept / (1 - rate), rtol=1e-5)
        alive = (before != 0).any(axis=1, keepdims=True)
        count = alive.sum()
        assert count > 2000
        dropped = 1 - kept[alive].mean()
        assert abs(dropped - rate) <= 5 * (rate * (1 - rate) / count) ** 0.5


def test_without_dropout_training_changes_nothing():
    x = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    model = LeNet(conv_dropout=(0.0, 0.0), dense_dropout=0.0)
    variables = model.init(jax.random.key(0), x)
    rngs = {"dropout": jax.random.key(2)}
    trained = model.apply(variables, x, train=True, rngs=rngs)
    np.testing.assert_array_equal(trained, model.apply(variables, x))
    np.testing.assert_array_equal(trained, LeNet().apply(variables, x))


class Released(nn.Module):
    """LeNet with the released network's dropout only, as it was before it had rates."""

    @nn.compact
    def __call__(self, x, train=False):
        x = (x - 0.2860) / 0.3530
        x = ConvRelu(32, name="conv1")(x)
        x = ConvRelu(64, name="conv2")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Dropout(0.25, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = DenseRelu(128, name="fc1")(x.reshape(x.shape[0], -1))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10, name="logits")(x)


def test_the_default_rates_are_those_of_the_released_network():
    """Of one key the same units are dropped: so weights trained earlier still hold."""
    x = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(2)}
    variables = Released().init(keys, x)
    jax.tree.map(np.testing.assert_array_equal, LeNet().init(keys, x), variables)
    for train in (False, True):
        found, expected = (
            model.apply(variables, x, train=train, rngs=keys)
            for model in (LeNet(), Released())
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_perceptron_has_the_parameters_of_its_layers():
    """784·256+256 + 256·256+256 + 256·10+10."""
    variables = MLP().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    assert sum(a.size for a in jax.tree.leaves(variables)) == 269_322


def test_the_perceptron_is_what_its_layers_compute():
    model = MLP(num_classes=3, mean=(0.2, 0.4), std=(0.5, 0.25), hidden=(7, 6))
    x = np.random.default_rng(0).uniform(0, 1, (5, 4, 4, 2)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    # Biases begin at 0, where nobody would miss them.
    variables = jax.tree.map(lambda a: a + 0.1, variables)
    p = variables["params"]
    h = np.stack([(x[..., 0] - 0.2) / 0.5, (x[..., 1] - 0.4) / 0.25], axis=-1)
    h = h.reshape(5, 32)
    expected = {}
    for layer in ("fc1", "fc2"):
        w = p[layer]["Dense_0"]
        h = np.maximum(h @ np.asarray(w["kernel"]) + np.asarray(w["bias"]), 0)
        expected[layer] = h
    w = p["logits"]
    expected["logits"] = h @ np.asarray(w["kernel"]) + np.asarray(w["bias"])

    found = make_feature_fn(model)(variables, x)
    assert list(found) == ["fc1", "fc2", "logits"]
    for layer, value in expected.items():
        np.testing.assert_allclose(found[layer], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        model.apply(variables, x, train=True), found["logits"]
    )
