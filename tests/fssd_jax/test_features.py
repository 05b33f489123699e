import inspect
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


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.tanh(nn.Dense(x.shape[-1], name="inner")(x))
        return nn.Dense(x.shape[-1], name="outer")(x), None


class Scanned(nn.Module):
    """As a transformer of many blocks is written, so that one is compiled."""

    length: int
    width: int
    axes: tuple

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="stem")(x)
        scan = nn.scan(
            Block,
            {"params": 0, **dict(self.axes)},
            split_rngs={"params": True},
            length=self.length,
        )
        return nn.Dense(3, name="logits")(scan(name="stack")(x, None)[0])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("length", "batch", "width"), [(3, 5, 4), (4, 4, 6)])
def test_scanned_layers_are_layers_of_their_own(axis, length, batch, width):
    """Also where the batch is as large as the number of layers."""
    model = Scanned(length, width, (("intermediates", axis),))
    x = jax.random.normal(jax.random.key(1), (batch, 7))
    variables = model.init(jax.random.key(0), x)
    p = variables["params"]
    dense = lambda of, v: v @ of["kernel"] + of["bias"][None]  # noqa: E731
    h = dense(p["stem"], x)
    expected = {"stem": h}
    for i in range(length):
        of = jax.tree.map(lambda a, i=i: a[i], p["stack"])
        inner = dense(of["inner"], h)
        h = dense(of["outer"], h + jnp.tanh(inner))
        expected |= {f"stack/inner/{i}": inner, f"stack/outer/{i}": h, f"stack/{i}": h}
    expected["logits"] = dense(p["logits"], h)
    assert layer_names(model, variables, x) == list(expected)
    found = make_feature_fn(model, list(expected)[::-1])(variables, x)
    assert list(found) == list(expected)
    for name, f in expected.items():
        np.testing.assert_allclose(found[name], f, rtol=2e-5, atol=1e-6)
    with pytest.raises(
        InputError, match=r"stack/inner/0.*row for each image of the ba"
    ):
        make_feature_fn(model, ["stack/inner"])(variables, x)


@pytest.mark.parametrize(("outer", "inner"), [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)])
def test_a_scan_in_a_scan_has_the_outer_first(outer, inner):
    """Wherever the axes are, and though there are as many of one as of the other."""
    lift = {"split_rngs": {"params": True}, "length": 2}
    axes = lambda axis: {"params": 0, "intermediates": axis}  # noqa: E731

    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.tanh(nn.Dense(5, name="dense")(x)), None

    class Both(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.scan(Body, axes(inner), **lift)(name="in")(x, None)[0], None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.scan(Both, axes(outer), **lift)(name="out")(x, None)[0]

    model, x = Model(), jax.random.normal(jax.random.key(0), (3, 5))
    variables = model.init(jax.random.key(1), x)
    p, h, expected = variables["params"]["out"]["in"]["dense"], x, {}
    for i, j in np.ndindex(2, 2):
        z = h @ p["kernel"][i, j] + p["bias"][i, j][None]
        expected[f"out/in/dense/{i}/{j}"] = z
        h = jnp.tanh(z)
    found = make_feature_fn(model, list(expected))(variables, x)
    assert list(found) == list(expected)
    for name, f in expected.items():
        np.testing.assert_allclose(found[name], f, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "axes", "told"),
    [
        (4, (), "keeps its output"),
        # Nothing tells which of two axes of three is that of the layers.
        (3, (("intermediates", 1),), "cannot be told"),
    ],
)
def test_a_scanned_layer_says_what_it_needs(width, axes, told):
    model, x = Scanned(3, width, axes), jnp.ones((2, 3))
    variables = model.init(jax.random.key(0), x)
    assert layer_names(model, variables, x) == ["stem", "logits"]
    advice = rf'{told}.*variable_axes={{"intermediates": 0}}'
    with pytest.raises(InputError, match=advice):
        make_feature_fn(model, ["stack/inner"])(variables, x)
    followed = Scanned(3, width, (("intermediates", 0),))
    assert make_feature_fn(followed, ["stack/inner/2"])(variables, x)


def test_members_of_a_vmap_are_layers_and_its_batch_is_the_batch():
    class Both(nn.Module):
        @nn.compact
        def __call__(self, x):
            lift = {"variable_axes": {"params": 0, "intermediates": 0}}
            of_members = nn.vmap(
                nn.Dense, in_axes=None, axis_size=2, split_rngs={"params": True}, **lift
            )
            members = of_members(3, name="members")(x).mean(0)
            of_rows = nn.vmap(
                nn.Dense,
                variable_axes={"params": None, "intermediates": 0},
                split_rngs={"params": False},
            )
            return of_rows(2, name="rows")(members)

    model, x = Both(), jax.random.normal(jax.random.key(0), (5, 4))
    variables = model.init(jax.random.key(1), x)
    names = ["members/0", "members/1", "rows"]
    assert layer_names(model, variables, x) == names
    found = make_feature_fn(model, names)(variables, x)
    p = variables["params"]["members"]
    for i in range(2):
        expected = x @ p["kernel"][i] + p["bias"][i][None]
        np.testing.assert_allclose(found[f"members/{i}"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["rows"], model.apply(variables, x), rtol=1e-6)


@pytest.mark.parametrize("batch", [4, 6])  # of six steps
def test_a_time_major_layer_comes_batch_first(batch):
    class Recurrent(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = jnp.swapaxes(x, 0, 1)
            states = nn.RNN(nn.SimpleCell(3), time_major=True, name="states")(x)
            return nn.Dense(2, name="logits")(states[-1])

    model, x = Recurrent(), jax.random.normal(jax.random.key(0), (batch, 6, 4))
    variables = model.init(jax.random.key(1), x)
    names = layer_names(model, variables, x)
    assert names[-2:] == ["states", "logits"]
    states = make_feature_fn(model, ["states"])(variables, x)["states"]
    assert states.shape == (batch, 6, 3)
    p = variables["params"]["logits"]
    np.testing.assert_allclose(
        states[:, -1] @ p["kernel"] + p["bias"][None],
        model.apply(variables, x),
        rtol=1e-5,
    )


def test_what_is_no_feature_of_an_image_is_not_listed_and_says_why():
    class Table(nn.Module):
        @nn.compact
        def __call__(self):
            return self.param("table", nn.initializers.ones, (1, 4))

    class Folded(nn.Module):
        def __call__(self, x):
            return x.reshape(-1, 2)

    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return (nn.Dense(4, name="dense")(x),)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            (x,) = One(name="one")(x + Table(name="position")())
            return Folded(name="folded")(x).reshape(x.shape)

    model, x = Model(), jnp.ones((1, 4))
    variables = model.init(jax.random.key(0), x)
    assert layer_names(model, variables, x) == ["one/dense", "one"]
    found = make_feature_fn(model, ["one"])(variables, x)
    assert found["one"].shape == (1, 4)  # a tuple of one is unpacked
    for name in ("position", "folded"):
        with pytest.raises(InputError, match="does not have a row for each"):
            make_feature_fn(model, [name])(variables, x)


def test_what_runs_inside_a_transform_of_jax_is_no_feature():
    class Model(nn.Module):
        def setup(self):
            self.cell, self.head = nn.Dense(4), nn.Dense(3)

        def __call__(self, x):
            x = self.cell(x)
            x, _ = jax.lax.scan(lambda h, _: (self.cell(h), None), x, None, length=2)
            return self.head(jax.vmap(self.cell)(x))

    model, x = Model(), jnp.ones((5, 4))
    dense = nn.Dense(3).init(jax.random.key(0), x)["params"]
    square = {"kernel": jnp.eye(4), "bias": jnp.ones(4)}
    variables = {"params": {"cell": square, "head": dense}}
    assert layer_names(model, variables, x) == ["cell#0", "head"]
    found = jax.jit(make_feature_fn(model, ["cell#0", "head"]))(variables, x)
    np.testing.assert_allclose(found["cell#0"], 2 * x)
    by_hand = 5 * np.asarray(x) @ np.asarray(dense["kernel"])
    np.testing.assert_allclose(found["head"], by_hand, rtol=1e-5)
    with pytest.raises(InputError, match=r"inside a transform of JAX.*nn\.scan"):
        make_feature_fn(model, ["cell#1"])(variables, x)


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
