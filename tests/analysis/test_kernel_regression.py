"""Frozen form: Eq. (4) with the kernel at the start; what both forms refuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from fssd_jax import InputError, make_feature_fn, recipes
from fssd_jax.losses import cross_entropy
from fssd_jax.models import LeNet
from tests.analysis.following import (
    PROBE,
    Normed,
    X,
    Y,
    by_hand,
    by_jacobians,
    momentum,
    relative_error,
    run,
    start,
)
from tests.conftest import Smooth

RATE = 0.3


def sgd(epochs, steps):
    return optax.sgd(RATE)


def adam(epochs, steps):
    return optax.adam(0.05)


@pytest.mark.parametrize("layer", Smooth.feature_layers)
def test_frozen_form_is_the_sum_over_the_kernel_at_the_start(layer):
    """−Σ_m Θ_0(x, x_m) ν_m, with the kernel and every ν_m formed."""
    model = Smooth()
    feature_fn, seen = make_feature_fn(model), []
    gradient_fn = make_gradient_fn(model, feature_fn)
    form = FrozenForm(feature_fn, gradient_fn, start(model), RATE)
    recorder = lambda *a: (seen.append(a), form(*a))  # noqa: E731
    last = run(model, sgd, recorder, batch_size=22).variables
    nu = np.zeros((len(X), feature_fn(start(model), X)[layer].shape[1]))
    for _, before, _, x, y in seen:
        order = [int(np.flatnonzero((X == one).all((1, 2, 3)))[0]) for one in x]
        nu[order] += RATE * np.asarray(gradient_fn(before, x, y)[1][layer])
    kernel = by_jacobians(feature_fn, start(model), layer)
    expected = {layer: -np.einsum("nmij,mj->ni", kernel, nu)}
    assert relative_error(form.value(PROBE, batch_size=4), expected) < 1e-4
    moved = by_hand(feature_fn, start(model), last)
    gap = relative_error(expected, {layer: moved[layer]})
    assert gap > 0.001
    np.testing.assert_allclose(form.error(PROBE, batch_size=4)[layer], gap, rtol=0.02)


def test_layer_gradients_are_those_of_the_network_above():
    """By the chain rule, written by hand."""
    model, variables = Smooth(), start(Smooth())
    p = variables["params"]

    def dense(name, f):
        inner = p[name].get("Dense_0", p[name])
        return f @ inner["kernel"] + inner["bias"][None]

    def above(second):
        log_p = jax.nn.log_softmax(dense("logits", second))
        return -log_p[jnp.arange(len(Y)), Y].mean()

    feature_fn = make_feature_fn(model)
    features = feature_fn(variables, X)
    found = make_gradient_fn(model, feature_fn)(variables, X, Y)[1]
    by_second = jax.grad(above)(features["second"])
    by_first = jax.grad(lambda f: above(jnp.tanh(dense("second", f))))
    p_hat = jax.nn.softmax(features["logits"]) - jax.nn.one_hot(Y, 3)
    close = {"rtol": 1e-4, "atol": 1e-7}
    np.testing.assert_allclose(found["logits"], p_hat / len(Y), **close)
    np.testing.assert_allclose(found["second"], by_second, **close)
    np.testing.assert_allclose(found["first"], by_first(features["first"]), **close)


def test_a_submodule_called_twice_has_two_gradients():
    class Twice(nn.Module):
        def setup(self):
            self.turn, self.logits = nn.Dense(5), nn.Dense(3)

        def __call__(self, x):
            return self.logits(self.turn(nn.tanh(self.turn(x.reshape(len(x), -1)))))

    model, x = Twice(), X.reshape(len(X), -1)[:, :5]
    variables = model.init(jax.random.key(0), x)
    feature_fn = make_feature_fn(model, ["turn#0", "turn#1", "logits"])
    found = make_gradient_fn(model, feature_fn)(variables, x, Y)[1]
    p = variables["params"]

    def dense(name, f):
        return f @ p[name]["kernel"] + p[name]["bias"][None]

    second = jax.grad(lambda f: cross_entropy(dense("logits", f), jnp.asarray(Y)))
    first = jax.grad(
        lambda f: cross_entropy(
            dense("logits", dense("turn", jnp.tanh(f))), jnp.asarray(Y)
        )
    )
    features = feature_fn(variables, x)
    for layer, gradient in (("turn#0", first), ("turn#1", second)):
        np.testing.assert_allclose(
            found[layer], gradient(features[layer]), rtol=1e-4, atol=1e-7
        )


def test_both_forms_are_exact_when_features_are_linear_in_the_parameters():
    class Linear(nn.Module):
        feature_layers = ("logits",)

        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3, name="logits")(x.reshape(x.shape[0], -1))

    model = Linear()
    feature_fn = make_feature_fn(model)
    frozen = FrozenForm(
        feature_fn, make_gradient_fn(model, feature_fn), start(model), RATE
    )
    path = PathForm(feature_fn, PROBE)
    trained = run(model, sgd, lambda *a: (frozen(*a), path(*a)), epochs=5)
    expected = by_hand(feature_fn, start(model), trained.variables)
    assert relative_error(path.value(), expected) < 1e-4
    assert relative_error(frozen.value(PROBE), expected) < 1e-4


def decayed(epochs, steps):
    return optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE))


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (Smooth(), momentum),
        (Smooth(), adam),
        (Smooth(), decayed),
        (Smooth(), recipes.sgd(2 * RATE)),
        (Normed(), sgd),
    ],
)
def test_frozen_form_refuses_all_but_plain_sgd(model, recipe):
    feature_fn = make_feature_fn(model)
    gradient_fn = make_gradient_fn(model, feature_fn)
    form = FrozenForm(feature_fn, gradient_fn, start(model), RATE)
    with pytest.raises(InputError, match="plain SGD"):
        run(model, recipe, form)


def test_frozen_form_refuses_dropout():
    model = LeNet(num_classes=3, mean=(0.5,), std=(0.3,))
    x = np.random.default_rng(0).uniform(size=(6, 28, 28, 1)).astype(np.float32)
    initial = model.init(jax.random.key(0), x)
    feature_fn = make_feature_fn(model)
    form = FrozenForm(feature_fn, make_gradient_fn(model, feature_fn), initial, RATE)
    after = jax.tree.map(jnp.copy, initial)
    y = np.arange(6, dtype=np.int32) % 3

    def loss(params):
        logits = model.apply(
            {"params": params}, x, train=True, rngs={"dropout": jax.random.key(1)}
        )
        return cross_entropy(logits, jnp.asarray(y))

    after["params"] = jax.tree.map(
        lambda p, g: p - RATE * g, initial["params"], jax.grad(loss)(initial["params"])
    )
    with pytest.raises(InputError, match="dropout"):
        form(0, initial, after, x, y)


def test_frozen_form_with_a_schedule_that_begins_at_zero():
    """At rate 0 nothing moves, and nothing is wrong with that."""
    model = Smooth()
    feature_fn = make_feature_fn(model)
    gradient_fn = make_gradient_fn(model, feature_fn)
    rates = np.array([0.0, 0.1, 0.2, 0.3], np.float32)
    form = FrozenForm(feature_fn, gradient_fn, start(model), lambda step: rates[step])

    def warm_up(epochs, steps):
        return optax.sgd(lambda count: jnp.asarray(rates)[count])

    run(model, warm_up, form)
    assert np.all(np.isfinite(form.value(PROBE)["logits"]))
    wrong = FrozenForm(feature_fn, gradient_fn, start(model), lambda step: 0.1)
    with pytest.raises(InputError, match="plain SGD"):
        run(model, warm_up, wrong)


def test_a_run_is_followed_from_its_beginning():
    feature_fn, variables = make_feature_fn(Smooth()), start(Smooth())
    gradient_fn = make_gradient_fn(Smooth(), feature_fn)
    for form in (
        PathForm(feature_fn, PROBE),
        FrozenForm(feature_fn, gradient_fn, variables, RATE),
    ):
        with pytest.raises(InputError, match="resumed"):
            form(4, variables, variables, X, Y)


def test_forms_that_followed_nothing_say_so():
    feature_fn = make_feature_fn(Smooth())
    gradient_fn = make_gradient_fn(Smooth(), feature_fn)
    with pytest.raises(InputError, match="on_step"):
        PathForm(feature_fn, PROBE).value()
    with pytest.raises(InputError, match="on_step"):
        FrozenForm(feature_fn, gradient_fn, start(Smooth()), RATE).value(PROBE)


def test_other_weights_than_the_run_began_with_are_an_error():
    model = Smooth()
    feature_fn = make_feature_fn(model)
    gradient_fn = make_gradient_fn(model, feature_fn)
    other = jax.tree.map(jnp.copy, start(model))
    other["params"]["logits"]["bias"] += 1e-6
    form = FrozenForm(feature_fn, gradient_fn, other, RATE)
    with pytest.raises(InputError, match=r"1 of 6 arrays are others.*logits.*bias"):
        run(model, sgd, form)
    more = start(model) | {"batch_stats": {"mean": jnp.zeros(3)}}
    form = FrozenForm(feature_fn, gradient_fn, more, RATE)
    with pytest.raises(InputError, match=r"7 of them, those of the run are 6.*mean"):
        run(model, sgd, form)
