"""Which layers all of the loss passes through, and Eq. (4) of those and of the others.

Against explicit Jacobians in float64. Every network takes `given`, layer → an array to
go on with in place of the layer's own output, so that what the loss owes to a layer,
and what it owes to the parameters besides, are derivatives of a plain function.
"""

from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.bottleneck import Program
from analysis.dynamics import make_loss_fn
from analysis.gradients import descent
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from fssd_jax import make_feature_fn
from fssd_jax.features import make_init_fn
from fssd_jax.losses import cross_entropy

DIM, RATE = 4, 0.4
rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (5, DIM)).astype(np.float32)
PROBE = rng.uniform(-1, 1, (5, DIM)).astype(np.float32)
Y = np.arange(5, dtype=np.int32) % 3


class Layers(OrderedDict):
    """Keeps each layer's output, or what is given in its place."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def keep(self, name, f):
        self[name] = self.given.get(name, f)
        return self[name]


def dense(p, x):
    return x @ p["w"] + p["b"][None]


def stem(p, x, kept):
    return kept.keep("stem", jnp.tanh(dense(p["stem"], x)))


def gated(p, x, kept):
    """A branch behind a gate that begins at zero: no gradient tells of it there."""
    h = stem(p, x, kept)
    shortcut = kept.keep("shortcut", dense(p["other"], h))
    return dense(p["head"], shortcut + p["gate"] * dense(p["branch"], jnp.tanh(h)))


def skip(p, x, kept):
    """Its head begins at zero: no gradient comes down at the first step."""
    h = stem(p, x, kept)
    b = kept.keep("branch", dense(p["branch"], jnp.tanh(h)))
    return p["gate"] * dense(p["head"], kept.keep("sum", h + b))


def attention(p, x, kept):
    tokens = jnp.tanh(x[:, :, None] * p["stem"]["w"][None])
    tokens = kept.keep("tokens", tokens)
    q = kept.keep("query", dense_of_tokens(p["branch"], tokens))
    k = dense_of_tokens(p["other"], tokens)
    weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k))
    mixed = kept.keep("mixed", jnp.einsum("bqk,bkd->bqd", weights, tokens))
    return dense(p["head"], mixed.mean(1))


def dense_of_tokens(p, x):
    return jnp.einsum("btd,de->bte", x, p["w"]) + p["b"][None, None]


def twice(p, x, kept):
    first = kept.keep("first", jnp.tanh(dense(p["branch"], x)))
    return dense(p["head"], kept.keep("second", jnp.tanh(dense(p["branch"], first))))


def tied(p, x, kept):
    """The head's weights are those of the first layer, turned round."""
    h = stem(p, x, kept)
    return kept.keep("logits", (h @ p["stem"]["w"].T)[:, :3])


def penalised(p, x, kept):
    """A head of its own beside the main road, and gradients stopped on another."""
    h = stem(p, x, kept)
    b = kept.keep("branch", jnp.tanh(dense(p["branch"], h)))
    b = jnp.where(h > 0, b, 2 * b) * jax.lax.stop_gradient(h)
    return dense(p["head"], b)


NETWORKS = {
    skip: {"stem", "sum", "logits"},
    gated: {"stem", "logits"},
    attention: {"tokens", "mixed", "logits"},
    twice: {"second", "logits"},
    tied: {"logits"},
    penalised: {"stem", "branch", "logits"},
}


def weights(gate=0.0):
    with jax.enable_x64(True):
        draw = np.random.default_rng(1)
        shapes = {"stem": DIM, "branch": DIM, "other": DIM, "head": 3}
        p: dict = {
            name: {"w": draw.normal(0, 0.6, (DIM, n)), "b": draw.normal(0, 0.1, n)}
            for name, n in shapes.items()
        }
        p["gate"] = np.array(gate)
        return jax.tree.map(jnp.asarray, p)


def features_of(network, p, x, given=None):
    kept = Layers(given or {})
    kept.keep("logits", network(p, x, kept))
    return OrderedDict(kept)


def loss_of(network, p, given=None):
    return cross_entropy(features_of(network, p, X, given)["logits"], jnp.asarray(Y))


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


@partial(jax.jit, static_argnums=0)
def derivatives(network, p, x):
    """layer → ∂F/∂θ, explicit [n · dim, parameters]; layer → ∂L/∂F [n · dim]."""
    theta, unravel = jax.flatten_util.ravel_pytree(p)

    def features(theta):
        return {
            k: f.ravel() for k, f in features_of(network, unravel(theta), x).items()
        }

    slopes = {}
    for layer, f in features_of(network, p, X).items():
        of = lambda f, layer=layer: loss_of(network, p, {layer: f})  # noqa: E731
        slopes[layer] = jax.grad(of)(f).ravel()
    return jax.jacrev(features)(theta), slopes


@partial(jax.jit, static_argnums=0)
def stepped(network, p):
    gradient = jax.grad(lambda p: loss_of(network, p))(p)
    return jax.tree.map(lambda p, d: p - RATE * d, p, gradient)


def bottlenecks_of(frozen):
    return {layer for layer, form in frozen.forms.items() if form == "bottleneck"}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_the_frozen_form_against_explicit_jacobians(network):
    """From where gates are closed: Eq. (4), or J_0(x)(θ_T − θ_0)."""
    with jax.enable_x64(True):
        feature_fn = partial(features_of, network)
        gradient_fn = make_gradient_fn(
            lambda p, x: feature_fn(p, x)["logits"], feature_fn
        )
        states = [weights()]
        form = FrozenForm(feature_fn, gradient_fn, states[0], RATE)
        for step in range(3):
            states.append(stepped(network, states[-1]))
            form(step, *states[-2:], X, Y)
        assert bottlenecks_of(form) == NETWORKS[network]
        at_x, _ = derivatives(network, states[0], X)
        at_probe, _ = derivatives(network, states[0], PROBE)
        slopes = [derivatives(network, p, X)[1] for p in states[:-1]]
        for layer, value in form.value(PROBE).items():
            u = flat(states[0]) - flat(states[-1])
            if layer in NETWORKS[network]:
                u = at_x[layer].T @ sum(RATE * of[layer] for of in slopes)
            expected = -at_probe[layer] @ u
            np.testing.assert_allclose(value.ravel(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_bottlenecks_are_where_the_chained_gradient_is_the_true_one(network):
    """With gates open, at weights drawn at random; elsewhere the two are far apart."""
    with jax.enable_x64(True):
        p = weights(gate=0.7)
        true = (flat(p) - flat(stepped(network, p))) / RATE
        jacobians, slopes = derivatives(network, p, X)
        for layer, jacobian in jacobians.items():
            own = np.abs(jacobian).max(axis=0) > 0
            gap = (jacobian.T @ slopes[layer] - true)[own]
            gap = np.linalg.norm(gap) / np.linalg.norm(true[own])
            assert gap < 1e-10 if layer in NETWORKS[network] else gap > 0.02, layer


def test_a_program_computes_what_the_function_does():
    """Calls inside calls, derivatives with rules of their own, and loops."""

    @jax.jit
    def inner(a, b):
        return jax.nn.relu(a) * jax.checkpoint(jnp.sin)(b), a + 1

    def function(a, b):
        first, second = inner(a["x"], b)
        scanned, _ = jax.lax.scan(lambda c, t: (c + t * first, None), b, second)
        return {"y": scanned, "z": jnp.asarray([1.0, 2.0]), "a": a["x"]}, second

    a, b = {"x": jnp.asarray([1.0, -2.0])}, jnp.asarray([0.5, 0.3])
    program = Program(function, a, b)
    jax.tree.map(np.testing.assert_array_equal, program({}, a, b), function(a, b))
    slope = jax.grad(lambda a: program({}, a, b)[0]["y"].sum())(a)
    expected = jax.grad(lambda a: function(a, b)[0]["y"].sum())(a)
    np.testing.assert_allclose(slope["x"], expected["x"], rtol=1e-6)
    (second,) = jax.tree.leaves(program.outputs[1])
    shifted = program({second: jnp.ones(2)}, a, b)
    np.testing.assert_allclose(shifted[1], a["x"] + 2)
    first = jax.nn.relu(a["x"]) * jnp.sin(b)
    np.testing.assert_allclose(
        shifted[0]["y"], b + first * (a["x"] + 2).sum(), rtol=1e-6
    )


# ---- Linen and NNX ------------------------------------------------------------------


class Block(nn.Module):
    """Attention and a perceptron, each beside a skip connection; one is recomputed."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4, name="tokens")(x.reshape(len(x), -1, 2))
        attended = nn.MultiHeadDotProductAttention(2, name="attn")(nn.LayerNorm()(h))
        h = h + nn.remat(nn.Dense)(4, name="out")(attended)
        h = nn.BatchNorm(True, name="norm")(h)
        return nn.Dense(3, name="head")(h.mean(1))


def test_a_transformer_of_linen():
    """Every layer, beside a skip connection or not, is the path form after one step."""
    with jax.enable_x64(True):
        model, rate = Block(), 1e-2
        variables = make_init_fn(model)(jax.random.key(0), X)
        variables = jax.tree.map(lambda a: a.astype(float) + 0.05, variables)
        loss_fn = make_loss_fn(model)
        layers = ["tokens", "attn/query", "out", "norm", "head"]
        feature_fn = make_feature_fn(model, layers)
        direction = descent(loss_fn, variables, X, Y, len(X))["params"]
        after = variables | {
            "params": jax.tree.map(
                lambda p, d: p + rate * d, variables["params"], direction
            )
        }
        gradient_fn = make_gradient_fn(model, feature_fn)
        frozen = FrozenForm(feature_fn, gradient_fn, variables, rate)
        frozen(0, variables, after, X, Y)
        assert bottlenecks_of(frozen) == {"tokens", "norm", "head"}
        path = PathForm(feature_fn, PROBE)
        path(0, variables, after)
        for layer, expected in path.value().items():
            found = frozen.value(PROBE)[layer]
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


def test_another_gradient_function_is_judged_by_the_first_step():
    """One that holds every layer for a bottleneck."""
    with jax.enable_x64(True):
        feature_fn, before = partial(features_of, skip), weights(gate=0.7)

        def gradient_fn(p, x, y):
            gradient = jax.grad(lambda p: loss_of(skip, p))(p)
            slopes = derivatives(skip, p, x)[1]
            features = feature_fn(p, x)
            return gradient, OrderedDict(
                (k, slopes[k].reshape(f.shape)) for k, f in features.items()
            )

        form = FrozenForm(feature_fn, gradient_fn, before, RATE)
        form(0, before, stepped(skip, before), X, Y)
        assert bottlenecks_of(form) == NETWORKS[skip]


def test_layers_that_the_loss_does_not_reach():
    """A probe beside a stopped trunk, and a backbone that is not trained."""
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 7), "b": (7, 3), "c": (7, 2)}
    p = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    x = rng.normal(size=(6, 4)).astype(np.float32)

    def features(p, x, stop=lambda h: h):
        h = jnp.tanh(x @ p["a"])
        probe = jax.lax.stop_gradient(h) @ p["c"]
        return OrderedDict(h=h, probe=probe, logits=stop(h) @ p["b"])

    reached = {"h": "bottleneck", "logits": "bottleneck"}
    for stop, passes in ((lambda h: h, reached), (jax.lax.stop_gradient, {})):
        of_run = partial(features, stop=stop)
        gradient_fn = make_gradient_fn(lambda p, x, f=of_run: f(p, x)["logits"], of_run)
        states = [p]
        form = FrozenForm(of_run, gradient_fn, p, RATE)
        for step in range(2):
            gradient, _ = gradient_fn(states[-1], x, np.arange(6) % 3)
            down = jax.tree.map(lambda v, g: v - RATE * g, states[-1], gradient)
            states.append(down)
            form(step, *states[-2:], x, np.arange(6) % 3)
        told = dict.fromkeys(("h", "probe", "logits"), "parameter gradient") | passes
        if not passes:  # a readout of constants is linear
            told["logits"] = form.forms["logits"]
        assert dict(form.forms) == told
        value = form.value(x)
        np.testing.assert_array_equal(value["probe"], 0)
        if not passes:
            np.testing.assert_array_equal(value["h"], 0)
            end = of_run(states[-1], x)["logits"] - of_run(p, x)["logits"]
            np.testing.assert_allclose(value["logits"], end, rtol=1e-3, atol=1e-5)


def test_operations_that_differ_in_their_derivatives_alone():
    """As where a gradient is scaled or turned round: the values are the same."""

    @partial(jax.custom_vjp, nondiff_argnums=(1,))
    def scaled(x, scale):
        return x

    scaled.defvjp(lambda x, scale: (x, None), lambda scale, _, g: (scale * g,))

    def features(p, x):
        h = jax.nn.relu(x @ p["a"])
        logits = scaled(h, 1.0) @ p["b"] + scaled(h, -3.0) @ p["c"]
        return OrderedDict(h=h, logits=logits)

    rng = np.random.default_rng(0)
    shapes = {"a": (4, 7), "b": (7, 3), "c": (7, 3)}
    p = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    x, y = rng.normal(size=(6, 4)).astype(np.float32), jnp.arange(6) % 3
    gradient_fn = make_gradient_fn(lambda p, x: features(p, x)["logits"], features)
    found, by_feature = gradient_fn(p, x, y)
    loss = lambda p: cross_entropy(features(p, x)["logits"], y).mean()  # noqa: E731
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-6),
        *(found, jax.grad(loss)(p)),
    )
    assert list(by_feature) == ["h", "logits"]
    assert gradient_fn.bottlenecks(p, x, y) == ["h", "logits"]
