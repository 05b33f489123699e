"""Which submodules' outputs are features: lifted transforms, time-major layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, layer_names, make_feature_fn


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
