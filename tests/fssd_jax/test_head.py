"""The last linear layer: found among any network's variables, or refused."""

from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, head, quantile
from fssd_jax.features import make_init_fn
from fssd_jax.models import LeNet, cifar_resnet
from fssd_jax.models.resnet import CosineHead
from tests.fssd_jax.rivals import feature_fn, images, logit_fn, weights

IMAGES = np.random.default_rng(0).uniform(size=(7, 28, 28, 3)).astype(np.float32)
MODELS = {
    "resnet": (cifar_resnet((1,), width=4, num_classes=5), IMAGES, "stage1"),
    "lenet": (LeNet(5), IMAGES[..., :1], "fc1"),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_found_in_models(name):
    model, x, layer = MODELS[name]
    variables = make_init_fn(model)(jax.random.key(0), x[:1])
    rng = np.random.default_rng(2)  # a bias is 0 as it is drawn
    variables = jax.tree.map(
        lambda a: a + rng.uniform(0, 0.1, a.shape).astype(a.dtype), variables
    )
    of, logits = fssd_jax.make_feature_fn(model), fssd_jax.make_logit_fn(model)
    found = head.find(of, logits, variables, x)
    assert list(found.kernel) == [layer]
    own = variables["params"]["logits"]
    np.testing.assert_array_equal(found.kernel[layer], own["kernel"])
    np.testing.assert_array_equal(found.bias, own["bias"])

    @jax.jit
    def both(variables, x):
        h = head.hidden_of(of, variables, found, x)
        return head.logits(found, h), logits(variables, x)

    np.testing.assert_allclose(*both(variables, x), 1e-4, 1e-4)


def test_pytorchs_matrices_are_turned_and_no_bias_is_zeros():
    v, x = weights(), images(0, 20)
    turned = {**v, "kernel": v["kernel"].T, "bias": None}

    def back(variables):
        zeros = jnp.zeros_like(v["bias"])
        return {**variables, "kernel": variables["kernel"].T, "bias": zeros}

    features = lambda v, x: feature_fn(back(v), x)  # noqa: E731
    logits = lambda v, x: logit_fn(back(v), x)  # noqa: E731
    found = head.find(features, logits, turned, x)
    np.testing.assert_array_equal(found.kernel["maps"], v["kernel"])
    assert not found.bias.any()


def test_a_bias_that_is_off_by_a_little_is_refused():
    """Another vector of as many numbers, a hundredth of a logit's terms away."""
    v, x = weights(), images(0, 20)
    moved = {**v, "bias": v["bias"] + 0.3}
    logits = lambda variables, x: logit_fn(v, x)  # noqa: E731
    with pytest.raises(InputError, match="the nearest is off by"):
        head.find(feature_fn, logits, moved, x)
    head.find(feature_fn, logits, {**moved, "other": v["bias"]}, x)


def test_cosines_are_no_linear_layer():
    class Cosines(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(6, name="embedding")(x.reshape(len(x), -1))
            return CosineHead(3, name="logits")(x)

    model, x = Cosines(), images(0, 8)
    variables = make_init_fn(model)(jax.random.key(0), x[:1])
    of = fssd_jax.make_feature_fn(model, ["embedding"])
    with pytest.raises(InputError, match="no linear last layer"):
        head.find(of, fssd_jax.make_logit_fn(model), variables, x)


def test_other_layers_and_sizes_are_refused():
    v, x = weights(), images(0, 20)
    found = head.find(feature_fn, logit_fn, v, x)
    first = lambda v, x: OrderedDict(first=feature_fn(v, x)["first"])  # noqa: E731
    with pytest.raises(InputError, match=r"takes 'maps', the features are of \['fi"):
        head.hidden_of(first, v, found, x)
    short = lambda v, x: OrderedDict(maps=feature_fn(v, x)["first"])  # noqa: E731
    with pytest.raises(InputError, match="takes 12 numbers: images of another size"):
        head.hidden_of(short, v, found, x)
    with pytest.raises(InputError, match=r"unknown layer 'logits'.*head\.with_logits"):
        head.layer_and_logits(first, v, "first", x)
    both = head.with_logits(first, logit_fn)
    _, logits = head.layer_and_logits(both, v, "first", x)
    np.testing.assert_array_equal(logits, logit_fn(v, x))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("kind", ["normal", "relu", "wide", "zeros"])
def test_a_quantile_by_counts_is_numpys(kind, share):
    rng = np.random.default_rng(0)
    values = rng.normal(size=40_000).astype(np.float32)
    values = {
        "normal": values,
        "relu": np.maximum(values, 0),
        "wide": np.exp(9 * values),
        "zeros": 0 * values,
    }[kind]
    counts = quantile.nothing()
    for part in np.array_split(values, 7):
        quantile.add(counts, part.reshape(-1, 2) if len(part) % 2 == 0 else part)
    expected = np.quantile(values, share)
    # Beside a bin's width, the gap to the next values.
    near = np.quantile(values, np.clip([share - 2e-4, share + 2e-4], 0, 1))
    atol = 1e-30 + np.ptp(near)
    np.testing.assert_allclose(quantile.at(counts, share), expected, 2**-11, atol)
