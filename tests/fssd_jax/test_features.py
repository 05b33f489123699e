import inspect
import math
from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fssd_jax import InputError, layer_names, make_feature_fn, make_logit_fn
from fssd_jax.features import join, make_stochastic_logit_fn
from fssd_jax.models import LeNet
from fssd_jax.outputs import logits_of, pool


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


def test_lenet_layers_have_the_published_sizes_in_order():
    model, images = LeNet(), np.zeros((2, 28, 28, 1), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    features = jax.eval_shape(make_feature_fn(model), variables, images)
    sizes = [(name, math.prod(f.shape[1:])) for name, f in features.items()]
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


class Trained(nn.Module):
    """As Flax's own examples have it, in training mode unless told otherwise."""

    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="logits")(x)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="logits")(nn.Dense(4, name="norm")(x))


def test_wrong_calls_say_what_to_do():
    model, x = Trained(), jax.random.normal(jax.random.key(0), (4, 5))
    variables = model.init(jax.random.key(0), x, train=False)
    names = ["norm", "logits"]
    good = make_feature_fn(model, names, train=False)(variables, x)
    assert list(good) == names
    for make in (partial(make_feature_fn, layers=names), make_logit_fn):
        with pytest.raises(InputError, match=r"training mode.*train=False"):
            make(model)(variables, x)
        with pytest.raises(InputError, match=r"takes .*'train'"):
            make(model, training=False)(variables, x)
        for wrong in (variables["params"], {"params": variables["params"]}, {}):
            with pytest.raises(InputError, match="variables do not fit Trained"):
                make(model, train=False)(wrong, x)
        with pytest.raises(InputError, match="expected a dict"):
            make(model, train=False)([1], x)
        fitted = Plain().init(jax.random.key(0), x)
        with pytest.raises(InputError, match="does not take these inputs"):
            make(Plain())(fitted, x[:, :3])
    # The tests' check of types would be before ours.
    for make in map(inspect.unwrap, (make_feature_fn, make_logit_fn)):
        with pytest.raises(InputError, match=r"give an instance: Trained\(\)"):
            make(Trained)
        with pytest.raises(InputError, match=r"got a Linear.*from_nnx"):
            make(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match=r"\['norm'\]"):
        make_feature_fn(model, "norm")


def test_logits_are_found_among_several_outputs():
    class Several(nn.Module):
        kind: str

        @nn.compact
        def __call__(self, x):
            z = nn.Dense(3)(x)
            outputs = {"logits": z, "features": x}
            kinds = {"tuple": (x, z), "dict": outputs, "one": (z,)}
            kinds |= {"one key": {"logits": z}, "one layer": {"hidden": z}}
            return kinds.get(self.kind, z[:, 0])

    x = jax.random.normal(jax.random.key(0), (4, 5))
    variables = Several("dict").init(jax.random.key(1), x)
    expected = Several("dict").apply(variables, x)["logits"]
    for kind, output in (
        ("tuple", 1),
        ("tuple", -1),
        ("dict", "logits"),
        ("dict", lambda out: out["logits"]),
        ("one", None),
        ("one key", None),
    ):
        logit_fn = make_logit_fn(Several(kind), output=output)
        np.testing.assert_array_equal(logits_of(logit_fn, variables, x), expected)
    for kind in ("tuple", "dict", "one layer"):
        with pytest.raises(InputError, match="output=0"):
            logits_of(make_logit_fn(Several(kind)), variables, x)
    with pytest.raises(InputError, match=r"output='z'.*'features'"):
        logits_of(make_logit_fn(Several("dict"), output="z"), variables, x)
    one = make_logit_fn(Several("one logit"))
    with pytest.raises(InputError, match=r"two or more classes.*stack\(\[0 \* z, z\]"):
        logits_of(one, variables, x)
    # The advice: the probability of a sigmoid is that of two logits.
    two = lambda v, x: jnp.stack([0 * one(v, x), one(v, x)], -1)  # noqa: E731
    probability = jax.nn.softmax(logits_of(two, variables, x))[:, 1]
    np.testing.assert_allclose(
        probability, jax.nn.sigmoid(one(variables, x)), rtol=1e-6
    )


@pytest.mark.parametrize("fixed", [True, False, None])  # at construction, or not
def test_dropout_beside_batch_norm_leaves_its_statistics_alone(fixed):
    """One flag rules both, as is usual, and BatchNorm would mix the images."""

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            norm = nn.BatchNorm(use_running_average=fixed, name="norm")
            x = norm(x, *([] if fixed is not None else [not train]))
            return nn.Dropout(0.5, deterministic=not train)(x)

    x = jax.random.uniform(jax.random.key(0), (3, 400), minval=1)
    start = {"mean": jnp.full(400, 0.5), "var": jnp.full(400, 4.0)}
    params = {"norm": {"scale": jnp.full(400, 2.0), "bias": jnp.ones(400)}}
    variables = {"params": params, "batch_stats": {"norm": start}}
    logit_fn = make_stochastic_logit_fn(Both(), train=True)
    found = np.asarray(logit_fn(variables, x, jax.random.key(1)))
    normed = 2 * (np.asarray(x) - 0.5) / np.sqrt(4 + 1e-5) + 1
    kept = found != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(found[kept], 2 * normed[kept], rtol=1e-5)


def test_other_methods_of_a_batch_norm_are_called_as_they_are_written():
    class Powered(nn.BatchNorm):
        def power(self, x, exponent):
            return x**exponent

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            norm = Powered(name="norm")
            return norm.power(norm(x, not train), 3)

    model, x = Net(), jnp.array([[0.5, 2.0]])
    variables = model.init(jax.random.key(0), x)  # mean 0, variance 1
    found = make_stochastic_logit_fn(model, train=True)(variables, x, jax.random.key(1))
    np.testing.assert_allclose(found, x**3, rtol=1e-4)


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
