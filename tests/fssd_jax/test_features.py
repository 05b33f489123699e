from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, layer_names, make_feature_fn, make_logit_fn
from fssd_jax.features import join, make_stochastic_logit_fn, pool
from fssd_jax.models import LeNet


class Nested(nn.Module):
    """Names that do not sort in call order, nesting, and one module called twice."""

    @nn.compact
    def __call__(self, x, scale=1.0):
        x = nn.Dense(4, name="zeta")(x * scale)
        x = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(4)], name="alpha")(x)
        shared = nn.Dense(4, name="shared")
        return shared(shared(x))


@pytest.fixture(scope="module")
def nested():
    model, x = Nested(), jnp.arange(10.0).reshape(2, 5) / 10
    return model, model.init(jax.random.key(0), x), x


def test_lenet_layers_have_the_published_sizes_in_order(lenet):
    feature_fn, variables, _, images = lenet
    features = jax.jit(feature_fn)(variables, images[:2] / np.float32(255))
    sizes = [(name, f[0].size) for name, f in features.items()]
    assert sizes == [("conv1", 21632), ("conv2", 36864), ("fc1", 128), ("logits", 10)]
    assert isinstance(features, OrderedDict)


def test_features_are_what_the_layers_compute(nested):
    model, variables, x = nested
    p = variables["params"]

    def dense(layer, v):
        return v @ p[layer]["kernel"] + p[layer]["bias"][None]

    zeta = dense("zeta", x)
    # `Sequential` names its layers in the parent.
    alpha = dense("Dense_1", nn.relu(dense("Dense_0", zeta)))
    expected = [zeta, alpha, dense("shared", alpha)]
    found = make_feature_fn(model, layers=["zeta", "alpha", "shared#0"])(variables, x)
    for value, name in zip(expected, ("zeta", "alpha", "shared#0"), strict=True):
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_layer_names_are_in_call_order(nested):
    model, variables, x = nested
    names = layer_names(model, variables, x)
    assert names == ["zeta", "Dense_0", "Dense_1", "alpha", "shared#0", "shared#1"]
    found = make_feature_fn(model, layers=names[::-1])(variables, x)
    assert list(found) == names


def test_call_arguments_reach_the_model(nested):
    model, variables, x = nested
    doubled = make_feature_fn(model, layers=["zeta"], scale=2.0)(variables, x)
    plain = make_feature_fn(model, layers=["zeta"])(variables, 2 * x)
    np.testing.assert_array_equal(doubled["zeta"], plain["zeta"])


def test_logits_are_the_models_output(nested):
    model, variables, x = nested
    np.testing.assert_array_equal(
        make_logit_fn(model)(variables, x), model.apply(variables, x)
    )


@pytest.mark.parametrize("layers", [["conv3"], ["shared"], None, []])
def test_a_wrong_name_lists_the_right_ones(nested, layers):
    model, variables, x = nested
    with pytest.raises(InputError, match=r"zeta.*alpha.*shared#0"):
        make_feature_fn(model, layers=layers)(variables, x)


def test_a_repeated_name_is_an_error(nested):
    with pytest.raises(InputError, match="twice"):
        make_feature_fn(nested[0], layers=["zeta", "zeta"])


def test_a_layer_that_returns_two_arrays_is_an_error():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x, x

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Pair(name="pair")(x)[0]

    with pytest.raises(InputError, match=r"pair.*not one array"):
        make_feature_fn(Model(), layers=["pair"])({}, jnp.ones((2, 3)))


def test_a_scanned_layer_says_what_it_needs():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(3, name="inner")(x), None

    def model(**axes):
        scan = nn.scan(
            Body, {"params": 0, **axes}, split_rngs={"params": True}, length=2
        )

        class Model(nn.Module):
            @nn.compact
            def __call__(self, x):
                return scan(name="stack")(x, None)[0]

        return Model()

    x = jnp.ones((2, 3))
    variables = model().init(jax.random.key(0), x)
    names = layer_names(model(), variables, x)
    inner = next(n for n in names if n.startswith("stack/inner"))
    with pytest.raises(InputError, match="variable_axes"):
        make_feature_fn(model(), layers=[inner])(variables, x)


def test_batch_statistics_are_used_and_not_changed():
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=True, name="norm")(x)

    model, x = Normed(), jnp.ones((2, 3))
    variables = model.init(jax.random.key(0), x)
    variables["batch_stats"]["norm"]["mean"] = jnp.full(3, 0.25)
    found = make_feature_fn(model, layers=["norm"])(variables, x)
    np.testing.assert_allclose(found["norm"], 0.75, rtol=1e-4)


def test_pool():
    f = jnp.arange(24.0).reshape(1, 2, 3, 4)
    assert pool(OrderedDict(a=f), "flatten")["a"].shape == (1, 24)
    mean = pool(OrderedDict(a=f, b=f[:, 0, 0]), "mean")
    np.testing.assert_allclose(mean["a"][0], np.arange(24).reshape(6, 4).mean(0))
    np.testing.assert_allclose(mean["b"], f[:, 0, 0])


def test_wrong_rank_or_channels():
    variables = LeNet().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    for shape in ((2, 28, 28), (2, 28, 28, 3)):
        with pytest.raises(InputError, match=r"expected images .*1\], got shape"):
            make_feature_fn(LeNet())(variables, jnp.zeros(shape))


def test_joined_networks_keep_their_layers(nested):
    model, variables, x = nested
    other = model.init(jax.random.key(1), x)
    feature_fns = {
        "second": make_feature_fn(model, layers=["zeta", "alpha"]),
        "first": make_feature_fn(model, layers=["shared#1"]),
    }
    joined = join(feature_fns)
    found = jax.jit(joined)({"first": variables, "second": other}, x)
    assert list(found) == ["second/zeta", "second/alpha", "first/shared#1"]
    logits = model.apply(variables, x)  # what its last layer returns
    np.testing.assert_allclose(found["first/shared#1"], logits, rtol=1e-6)
    alone = feature_fns["second"](other, x)
    for layer, f in alone.items():
        np.testing.assert_allclose(found[f"second/{layer}"], f, rtol=1e-6)


def test_the_key_decides_what_is_dropped():
    class Thinned(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dropout(0.75, deterministic=not train)(x)

    x = jnp.ones((100, 40))
    logit_fn = jax.jit(make_stochastic_logit_fn(Thinned(), train=True))
    found = logit_fn({}, x, jax.random.key(0))
    # What is kept is made 1 / (1 − rate) times larger.
    np.testing.assert_array_equal(np.unique(found), [0, 4])
    assert abs((found == 0).mean() - 0.75) < 5 * (0.75 * 0.25 / x.size) ** 0.5
    np.testing.assert_array_equal(found, logit_fn({}, x, jax.random.key(0)))
    other = logit_fn({}, x, jax.random.key(1))
    # Two independent draws differ where one of them alone keeps.
    assert abs((found != other).mean() - 0.375) < 0.05
    off = make_stochastic_logit_fn(Thinned(), train=False)
    np.testing.assert_array_equal(off({}, x, jax.random.key(0)), x)
