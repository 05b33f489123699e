"""NNX, Equinox and dumps of features, against the same numbers computed by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fssd_jax
from fssd_jax import InputError, map_batches
from fssd_jax.adapters import from_equinox, from_nnx, given
from fssd_jax.detectors import fssd, msp

X = np.random.default_rng(0).random((23, 5)).astype(np.float32)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(6, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.drop(jnp.tanh(self.norm(self.dense(x))))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Linear(5, 6, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in (*self.blocks, self.blocks[0]):
            x = block(x)
        return self.head(x)


def by_hand(model, x):
    """Its layers in evaluation mode, in float64."""
    of = lambda module, name: np.asarray(getattr(module, name).get_value(), np.float64)  # noqa: E731
    dense = lambda m, x: x @ of(m, "kernel") + of(m, "bias")  # noqa: E731

    def block(m, x):
        z, norm = dense(m.dense, x), m.norm
        z = (z - of(norm, "mean")) / np.sqrt(of(norm, "var") + norm.epsilon)
        return x + np.tanh(z * of(norm, "scale") + of(norm, "bias"))

    found = {"stem": dense(model.stem, x)}
    found["blocks/0#0"] = block(model.blocks[0], found["stem"])
    found["blocks/1"] = block(model.blocks[1], found["blocks/0#0"])
    found["blocks/0#1"] = block(model.blocks[0], found["blocks/1"])
    found["head"] = dense(model.head, found["blocks/0#1"])
    return found


@pytest.fixture(scope="module")
def model():
    model = Net(nnx.Rngs(0))
    model(X)  # in training mode, as it stays: statistics are those of the images
    return model


def test_layers_of_nnx(model):
    expected = by_hand(model, X.astype(np.float64))
    network = from_nnx(model, list(expected)[::-1])
    found = jax.jit(network.feature_fn)(network.variables, X)
    assert list(found) == list(expected)
    for name, f in expected.items():
        np.testing.assert_allclose(found[name], f, rtol=1e-4, atol=1e-5)
    logits = network.logit_fn(network.variables, X)
    np.testing.assert_allclose(logits, expected["head"], rtol=1e-4, atol=1e-5)
    names = network.layer_names(X)
    assert set(expected) < set(names)
    assert {"blocks/1/norm", "blocks/0/dense#1"} < set(names)
    assert model.blocks[0].drop.deterministic is False  # the model itself is left alone
    assert nnx.Linear.__call__.__qualname__ == "Linear.__call__"  # and so are classes


def test_nnx_is_scored(model):
    network = from_nnx(model, ["stem", "head"])
    of = network.feature_fn, network.variables
    noise = fssd_jax.uniform_noise(jax.random.key(0), 50, (5,))
    state = fssd.fit(*of, noise)
    f, c = by_hand(model, X.astype(np.float64)), by_hand(model, np.float64(noise))
    d = [np.linalg.norm(f[k] - c[k].mean(0), axis=1) for k in ("stem", "head")]
    found = map_batches(fssd.layer_scores, *of, state, X, batch_size=8)
    np.testing.assert_allclose(found, np.stack(d, 1), rtol=1e-4)
    other = nnx.state(Net(nnx.Rngs(1)), nnx.Not(nnx.RngState))
    moved = map_batches(fssd.layer_scores, of[0], other, state, X, batch_size=8)
    assert not np.allclose(moved, found, rtol=0.01)  # variables are not baked in
    assert map_batches(msp.score, network.logit_fn, of[1], msp.fit(), X).shape == (23,)


def test_wrong_layers_and_models_of_nnx(model):
    for layers in (["conv"], [], None):
        network = from_nnx(model, layers)
        with pytest.raises(InputError, match=r"choose layers=\[...\] from .*blocks/1"):
            network.feature_fn(network.variables, X)
    with pytest.raises(InputError, match="a list of names, got 'stem'"):
        from_nnx(model, "stem")
    with pytest.raises(InputError, match="twice"):
        from_nnx(model, ["stem", "stem"])
    with pytest.raises(InputError, match=r"got a function, no flax.nnx.Module"):
        from_nnx(by_hand)


def test_recurrent_networks_of_nnx():
    class Recurrent(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.LSTMCell(5, 6, rngs=rngs))
            self.head = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.rnn(x)[:, -1])

    model, x = Recurrent(nnx.Rngs(0)), np.stack([X, X[::-1]], axis=1)
    network = from_nnx(model, ["rnn", "head"])
    assert network.layer_names(x) == ["rnn", "head"]
    found = jax.jit(network.feature_fn)(network.variables, x)
    np.testing.assert_allclose(found["rnn"], model.rnn(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["head"], model(x), rtol=1e-5, atol=1e-6)


def test_recurrent_networks_of_equinox():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 2)

    class Recurrent(eqx.Module):
        cell: eqx.nn.GRUCell
        head: eqx.nn.Linear

        def __call__(self, x):
            step = lambda h, x: (self.cell(x, h), None)  # noqa: E731
            return self.head(jax.lax.scan(step, jnp.zeros(6), x)[0])

    model = Recurrent(
        eqx.nn.GRUCell(5, 6, key=keys[0]), eqx.nn.Linear(6, 3, key=keys[1])
    )
    x = np.stack([X, X[::-1]], axis=1)
    network = from_equinox(model, ["head"])
    assert network.layer_names(x) == ["head"]  # not what runs inside of the scan
    found = jax.jit(network.feature_fn)(network.variables, x)
    np.testing.assert_allclose(found["head"], jax.vmap(model)(x), rtol=1e-5, atol=1e-6)


def test_layers_of_equinox():
    keys = jax.random.split(jax.random.key(0), 3)

    class Model(eqx.Module):
        layers: list
        head: eqx.nn.Linear
        act: eqx.nn.Lambda

        def __call__(self, x):
            for layer in self.layers:
                x = self.act(layer(x))
            return self.head(x)

    layers = [eqx.nn.Linear(5, 4, key=keys[0]), eqx.nn.Dropout(0.5)]
    model = Model(layers, eqx.nn.Linear(4, 3, key=keys[1]), eqx.nn.Lambda(jnp.tanh))
    network = from_equinox(model, ["layers/0", "act#1", "head"])
    found = jax.jit(network.feature_fn)(network.variables, X)
    first = X @ np.asarray(layers[0].weight).T + np.asarray(layers[0].bias)
    second = np.tanh(np.tanh(first))
    last = second @ np.asarray(model.head.weight).T + np.asarray(model.head.bias)
    expected = {"layers/0": first, "act#1": second, "head": last}
    assert list(found) == list(expected)
    for name, f in expected.items():
        np.testing.assert_allclose(found[name], f, rtol=1e-4, atol=1e-6)
    assert network.layer_names(X) == [
        *("layers/0", "act#0", "layers/1", "act#1", "head")
    ]
    state = fssd.fit(network.feature_fn, network.variables, X)
    of = fssd.score, network.feature_fn, network.variables, state
    assert np.isfinite(map_batches(*of, X, batch_size=8)).all()
    with pytest.raises(InputError, match=r"no eqx\.Module"):
        from_equinox(by_hand)


def test_features_from_elsewhere_are_scored():
    rng = np.random.default_rng(1)
    dump = lambda n, s: {  # noqa: E731
        "late": rng.normal(0, s, (n, 3)).astype(np.float32),
        "early": rng.normal(0, 2 * s, (n, 2, 4)).astype(np.float64),
    }
    noise, ind, ood = dump(50, 1), dump(60, 3), dump(40, 1.2)
    feature_fn = given(["early", "late"])
    options = {"unit_range": False, "epsilons": (0.0,)}
    state = fssd.fit(feature_fn, {}, noise, ind, ood, **options)
    found = map_batches(
        fssd.layer_scores, feature_fn, {}, state, ind, unit_range=False, batch_size=16
    )
    for k, name in enumerate(("early", "late")):
        flat = ind[name].reshape(60, -1) - noise[name].reshape(50, -1).mean(0)
        np.testing.assert_allclose(found[:, k], np.linalg.norm(flat, axis=1), rtol=1e-5)
    score = lambda x: map_batches(  # noqa: E731
        fssd.score, feature_fn, {}, state, x, unit_range=False
    )
    assert fssd_jax.evaluate(score(ind), score(ood)).auroc > 0.95
    with pytest.raises(InputError, match=r"no features of layers \['logits'\]"):
        fssd.fit(given(["logits"]), {}, noise, unit_range=False)
    with pytest.raises(InputError, match=r"a dict of features of \['late'\]"):
        fssd.fit(given(["late"]), {}, noise["late"])
    with pytest.raises(InputError, match="a list of names"):
        given("late")
