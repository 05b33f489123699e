"""The linearised network, against closed forms in float64."""

from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fssd_jax
from analysis.displacement import decompose, displacement
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.linearised import LinearisedRun, largest_rate, linearise
from fssd_jax import InputError, make_feature_fn, recipes
from fssd_jax.checks import DivergedError
from fssd_jax.losses import cross_entropy, squared
from fssd_jax.train import train
from tests.analysis.following import (
    PROBE,
    Normed,
    X,
    Y,
    by_hand,
    flat,
    momentum,
    relative_error,
    run,
    start,
)
from tests.conftest import Smooth

FEW, LABELS = X[:8], Y[:8]


class Nameless(nn.Module):
    """It does not say which its feature layers are."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


def moved(variables, by=0.3):
    """Other parameters, the rest as it is."""
    rng = np.random.default_rng(5)
    of = jax.tree.map(lambda a: a + by * rng.normal(size=a.shape), variables["params"])
    return {**variables, "params": of}


def trained(network, recipe, on_step=None, **settings):
    """As `following.run` trains a network."""
    settings = {"initial": network.variables, "epochs": 2, "batch_size": 11} | settings
    settings |= {"seed": 0, "num_classes": 3, "progress": False, "recipe": recipe}
    return train(network.model, X, Y, on_step=on_step, **settings).variables


def jacobian(feature_fn, variables, layer, x):
    """[n, dim, parameter]"""
    of = lambda p: flat(feature_fn, {**variables, "params": p}, x)[layer]  # noqa: E731
    parts = jax.tree.leaves(jax.jit(jax.jacrev(of))(variables["params"]))
    return np.concatenate([p.reshape(*p.shape[:2], -1) for p in parts], -1)


def test_gradient_descent_is_the_closed_form():
    """Squared loss: logits by Θ's eigenvalues; a hidden layer by −J(x) Σ_t η J(X)ᵀ∂L.

    Here f_t of the training images, too, comes from the closed form alone.
    """
    rate, steps, n = 0.5, 12, len(FEW)
    with jax.enable_x64(True):
        model, variables = Smooth(), start(Smooth(), jnp.float64)
        feature_fn = make_feature_fn(model)
        network = linearise(model, variables)
        last = train(
            *(network.model, FEW, LABELS),
            num_classes=3, seed=0, epochs=steps, batch_size=n, progress=False,
            recipe=recipes.sgd(rate), initial=network.variables, loss=squared,
        ).variables  # fmt: skip
        at_x, at_train = (
            jacobian(feature_fn, variables, "logits", x).reshape(3 * len(x), -1)
            for x in (PROBE, FEW)
        )
        values, vectors = np.linalg.eigh(at_train @ at_train.T)
        targets = (np.eye(3)[LABELS] - 1 / 3).ravel()
        gap = targets - np.ravel(feature_fn(variables, FEW)["logits"])
        left = [(1 - rate * values / n) ** t for t in range(steps + 1)]
        inside = lambda of: vectors @ (of * (vectors.T @ gap))  # noqa: E731
        change = at_x @ at_train.T @ inside((1 - left[-1]) / values)
        found = jax.jit(network.feature_fn)(last, PROBE)
        start_ = jax.jit(partial(flat, feature_fn))(variables, PROBE)
        np.testing.assert_allclose(
            found["logits"], start_["logits"] + change.reshape(-1, 3), rtol=1e-8
        )
        assert np.abs(change).max() > 0.1
        # ∂L/∂f = (f_t − Y)/n, and f_t − Y = −(I − ηΘ/n)^t (Y − f_0).
        slopes = sum(-inside(of) / n for of in left[:-1])
        pulled = rate * at_train.T @ slopes
        hidden = jacobian(feature_fn, variables, "first", PROBE) @ -pulled
        np.testing.assert_allclose(
            found["first"] - start_["first"], hidden, rtol=1e-8, atol=1e-12
        )
        logits = jax.jit(network.logit_fn)(last, PROBE)
        np.testing.assert_allclose(logits, found["logits"], rtol=1e-12)


@pytest.mark.parametrize("model", [Smooth(), Normed()])
def test_where_it_is_linearised_it_is_the_network(model):
    """In value and gradient; elsewhere it is F + J Δθ, by finite differences."""
    with jax.enable_x64(True):
        variables = start(model, jnp.float64)
        feature_fn, network = make_feature_fn(model), linearise(model, variables)
        features, linear = jax.jit(feature_fn), jax.jit(network.feature_fn)
        own, at_start = features(variables, PROBE), linear(network.variables, PROBE)
        assert list(own) == list(at_start)
        close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
        jax.tree.map(close, own, at_start)

        def slope(f, variables):
            def loss(params):
                return cross_entropy(
                    f({**variables, "params": params}, X), jnp.asarray(Y)
                )

            return jax.jit(jax.grad(loss))(variables["params"])

        jax.tree.map(
            close,
            slope(network.logit_fn, network.variables),
            slope(model.apply, variables),
        )
        other, small = moved(variables)["params"], 1e-5
        at = lambda s: {  # noqa: E731
            **variables,
            "params": jax.tree.map(
                lambda a, b: a + s * (b - a), variables["params"], other
            ),
        }
        found = linear({**network.variables, "params": other}, PROBE)
        ends = [features(at(s), PROBE) for s in (small, -small)]
        for layer, f in found.items():
            expected = own[layer] + (ends[0][layer] - ends[1][layer]) / (2 * small)
            np.testing.assert_allclose(f, expected, rtol=1e-6, atol=1e-7)


def test_of_what_is_linear_it_is_the_same():
    """A plain function, all of whose variables are parameters."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        variables = {"w": jnp.asarray(rng.normal(size=(16, 3))), "b": jnp.zeros(3)}

        def logit_fn(variables, x):
            return x.reshape(len(x), -1) @ variables["w"] + variables["b"][None]

        def feature_fn(variables, x):
            return OrderedDict(logits=logit_fn(variables, x))

        network = linearise(logit_fn, variables, feature_fn)
        other = {"w": jnp.asarray(rng.normal(size=(16, 3))), "b": jnp.ones(3)}
        found = {**network.variables, "params": other}
        for f in (network.feature_fn(found, X)["logits"], network.logit_fn(found, X)):
            np.testing.assert_allclose(f, logit_fn(other, X), rtol=1e-12)


def test_one_step_is_the_path_form_with_the_kernel_of_its_start():
    with jax.enable_x64(True):
        model, rate = Smooth(), 0.5
        before = start(model, jnp.float64)
        gradient, _ = make_gradient_fn(model, make_feature_fn(model))(before, X, Y)
        after = jax.tree.map(lambda p, g: p - rate * g, before["params"], gradient)
        path = PathForm(make_feature_fn(model), PROBE)
        path(0, before, {"params": after})
        beside = LinearisedRun(model, optax.sgd(rate))
        beside(0, before, {"params": after}, X, Y)
        network = beside.network
        at_start = {**network.variables, "params": before["params"]}
        found = by_hand(network.feature_fn, at_start, network.variables)
        assert relative_error(found, path.value()) < 1e-12


def test_a_run_beside_sees_the_batches_of_the_run():
    """From step 3 on, with momentum; and what follows runs follows it, too."""
    model, at = Smooth(), {}
    beside = LinearisedRun(model, momentum(0, 0), start=3)
    whole = LinearisedRun(model, momentum(0, 0))

    def on_step(step, before, *rest):
        at[step] = before, *rest[1:]
        beside(step, before, *rest)
        whole(step, before, *rest)

    last = run(model, momentum, on_step, epochs=3).variables
    # Of the same seed, `train` gives it the same batches.
    network = linearise(model, start(model))
    paired = trained(network, momentum, epochs=3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        whole.network.variables,
        paired,
    )
    off = np.subtract(
        flat(whole.network.feature_fn, paired, PROBE)["logits"],
        flat(make_feature_fn(model), last, PROBE)["logits"],
    )
    of_all = by_hand(make_feature_fn(model), start(model), last)["logits"]
    gap = np.linalg.norm(off) / np.linalg.norm(of_all)
    assert gap > 0.01
    np.testing.assert_allclose(whole.error(PROBE, 4)["logits"], gap, rtol=0.01)
    network = linearise(model, at[3][0])
    variables, state = network.variables, momentum(0, 0).init(at[3][0]["params"])

    @jax.jit
    @jax.grad
    def gradient_of(params, variables, x, y):
        return cross_entropy(network.logit_fn({**variables, "params": params}, x), y)

    for step in range(3, 6):
        gradient = gradient_of(variables["params"], variables, *at[step][1:])
        updates, state = momentum(0, 0).update(gradient, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        variables = {**variables, "params": params}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        beside.network.variables,
        variables,
    )


def test_what_takes_a_network_takes_it():
    """A run of it: both forms are exact, but for rounding; F*, and FSSD's terms."""
    network = linearise(Smooth(), start(Smooth()))
    feature_fn, initial = network.feature_fn, network.variables
    path = PathForm(feature_fn, PROBE)
    gradient_fn = make_gradient_fn(network.logit_fn, feature_fn)
    frozen = FrozenForm(feature_fn, gradient_fn, initial, 0.5)
    last = trained(
        network, recipes.sgd(0.5), lambda *step: (path(*step), frozen(*step))
    )
    expected = displacement(feature_fn, initial, last, PROBE)
    assert relative_error(path.value(), expected) < 1e-5
    assert relative_error(frozen.value(PROBE), expected) < 1e-4
    assert frozen.forms["logits"] == "bottleneck"
    noise = fssd_jax.uniform_noise(jax.random.key(0), 30, (4, 4, 1))
    singularity = fssd_jax.estimate_singularity(feature_fn, last, noise)
    terms = decompose(feature_fn, initial, last, singularity, PROBE)
    scores = fssd_jax.fssd.fssd(feature_fn, last, singularity, PROBE)
    np.testing.assert_allclose(sum(terms), scores**2, rtol=1e-3)


def test_errors_of_linearised_networks():
    network = linearise(Smooth(), start(Smooth()))
    with pytest.raises(InputError, match=r"initial=linearise\(model, variables\)"):
        trained(network, recipes.sgd(0.1), initial=None)
    with pytest.raises(InputError, match=r"no flax.linen.Module.*feature_fn, too"):
        linearise(network.logit_fn, network.variables)
    nameless = LinearisedRun(Nameless(), optax.sgd(0.1))
    variables = Nameless().init(jax.random.key(0), X)
    with pytest.raises(InputError, match="feature_layers"):  # not after the whole run
        nameless(0, variables, variables, X, Y)
    beside = LinearisedRun(Smooth(), optax.sgd(0.1), start=2)
    with pytest.raises(InputError, match=r"from step 2 on.*on_step"):
        _ = beside.network
    with pytest.raises(InputError, match=r"step 3, .* start=3"):
        beside(3, start(Smooth()), start(Smooth()), X, Y)
    wild = LinearisedRun(Smooth(), optax.sgd(np.inf))
    wild(0, start(Smooth()), start(Smooth()), X, Y)
    with pytest.raises(DivergedError, match="linearised"):
        _ = wild.network


def test_above_the_largest_rate_linear_dynamics_diverge():
    """Its eigenvalue is that of the dense Θ(X, X)/n, and decides which way it goes."""
    model, variables = Smooth(), start(Smooth())
    feature_fn = make_feature_fn(model)
    j = jacobian(feature_fn, variables, "logits", FEW)
    j = j.reshape(-1, j.shape[-1]).astype(np.float64)
    expected = 2 / np.linalg.eigvalsh(j @ j.T / len(FEW))[-1]
    found = largest_rate(model, variables, FEW, steps=300)
    assert found == pytest.approx(expected, rel=1e-4)

    def left(rate, steps=400):
        """Of the loss, after full batches of the linearised network."""
        network = linearise(model, variables)
        recipe = lambda *_: optax.sgd(rate)  # noqa: E731
        few = {"epochs": steps, "batch_size": len(FEW), "loss": squared}
        few |= {"initial": network.variables, "seed": 0, "num_classes": 3}
        history = train(
            network.model, FEW, LABELS, recipe=recipe, progress=False, **few
        ).history
        return history[-1, 0] / history[0, 0]

    assert left(0.97 * expected) < 1
    assert left(1.03 * expected) > 100
