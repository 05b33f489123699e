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
from flax import nnx

from analysis.bottleneck import Program
from analysis.contributions import Contributions
from analysis.dynamics import Recorder, descent, make_loss_fn, step_parts
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from fssd_jax import InputError, make_feature_fn
from fssd_jax.features import make_init_fn
from fssd_jax.losses import cross_entropy
from tests.analysis.following import Normed, start

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


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(DIM, 6, rngs=rngs)
        self.branch = nnx.Linear(6, 6, rngs=rngs)
        self.logits = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        hidden = nnx.relu(self.hidden(x))
        branch = self.branch(hidden)
        logits = self.logits(hidden + branch)
        return OrderedDict(hidden=hidden, branch=branch, logits=logits)


class Equal(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = Relu(name="hidden")(x)
        branch = nn.Dense(6, name="branch")(hidden)
        return nn.Dense(3, name="logits")(hidden + branch)


class Relu(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(6)(x))


def test_nnx_and_an_equal_linen_network_have_equal_forms():
    graphdef, state = nnx.split(Nnx(nnx.Rngs(0)))
    state = nnx.to_pure_dict(state)
    params = {"hidden": {"Dense_0": state["hidden"]}}
    params |= {k: state[k] for k in ("branch", "logits")}

    def nnx_features(variables, x):
        return nnx.merge(graphdef, variables)(x)

    def nnx_loss(variables, x, y):
        return cross_entropy(nnx_features(variables, x)["logits"], jnp.asarray(y))

    linen = make_feature_fn(Equal(), ["hidden", "branch", "logits"])
    of_linen = FrozenForm(
        linen, make_gradient_fn(Equal(), linen), {"params": params}, RATE
    )
    of_nnx = FrozenForm(
        nnx_features, make_gradient_fn(nnx_loss, nnx_features, None), state, RATE
    )
    contributed = [
        Contributions(*args, "branch", PROBE, np.ones((5, 6), np.float32), X, RATE)
        for args in (
            (linen, make_loss_fn(Equal())),
            (nnx_features, make_loss_fn(lambda v, x: nnx_features(v, x)["logits"])),
        )
    ]
    gradient = jax.jit(jax.grad(nnx_loss))
    for step in range(3):
        after = jax.tree.map(lambda p, d: p - RATE * d, state, gradient(state, X, Y))
        then = {"hidden": {"Dense_0": after["hidden"]}}
        then = {"params": then | {k: after[k] for k in ("branch", "logits")}}
        for form in (of_nnx, contributed[1]):
            form(step, state, after, X, Y)
        for form in (of_linen, contributed[0]):
            form(step, {"params": params}, then, X, Y)
        state, params = after, then["params"]
    assert of_nnx.forms == of_linen.forms
    assert list(of_nnx.forms.values()).count("bottleneck") == 2
    for layer, value in of_linen.value(PROBE).items():
        np.testing.assert_allclose(
            of_nnx.value(PROBE)[layer], value, rtol=1e-4, atol=1e-6
        )
    values = [c.value() for c in contributed]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-7)


def test_variables_without_params_are_all_parameters():
    p = jax.tree.map(lambda a: a.astype(jnp.float32), weights())
    parts = step_parts(p, jax.tree.map(lambda a: 2 * a, p))
    assert list(parts) == ["parameter step"]
    np.testing.assert_allclose(flat(parts["parameter step"]), flat(p), rtol=1e-6)
    counted = {"w": jnp.ones((DIM, 3)), "steps": jnp.zeros((), int)}
    gradient_fn = make_gradient_fn(
        lambda v, x: x @ v["w"], lambda v, x: OrderedDict(logits=x @ v["w"])
    )
    with pytest.raises(InputError, match=r"\['steps'\] is of int.*entry \"params\""):
        gradient_fn(counted, X, Y)
    # The advice.
    apart = {"params": {"w": counted["w"]}, "steps": counted["steps"]}
    gradient_fn = make_gradient_fn(
        lambda v, x: x @ v["params"]["w"],
        lambda v, x: OrderedDict(logits=x @ v["params"]["w"]),
    )
    assert gradient_fn(apart, X, Y)[0]["w"].shape == (DIM, 3)


def test_a_loss_of_each_example_is_an_error():
    feature_fn = make_feature_fn(Equal(), ["logits"])
    gradient_fn = make_gradient_fn(Equal(), feature_fn, lambda f, y: f.sum(1))
    variables = Equal().init(jax.random.key(0), X)
    with pytest.raises(InputError, match=r"one number.*\(5,\)"):
        gradient_fn(variables, X, Y)


# ---- BatchNorm in training: losses that depend on batch-mates -----------------------


@pytest.mark.parametrize("count", [16, 22])
def test_a_gradient_through_batch_statistics_is_taken_of_all_images_or_not(count):
    model = Normed()
    x = np.random.default_rng(3).uniform(size=(count, 4, 4, 1)).astype(np.float32)
    y, noise = np.arange(count) % 3, x[:4]
    variables = start(model)
    loss_fn = make_loss_fn(model, train=True, mutable=["batch_stats"])
    feature_fn = make_feature_fn(model)

    def follow(batch_size):
        recorder = Recorder(
            feature_fn, loss_fn, {"noise": noise}, [0], batch_size=batch_size
        )
        recorder(0, variables, None, x, y)
        return recorder.records[0].movements["noise"]["speed"]

    with pytest.raises(InputError, match=f"batch-mates.*batch_size={count}"):
        follow(8)
    with pytest.raises(InputError, match="batch-mates"):
        follow(count - 1)

    def mean_loss(params):
        return loss_fn({**variables, "params": params}, x, y).mean()

    g = jax.grad(mean_loss)(variables["params"])

    def features(params):
        out = feature_fn({**variables, "params": params}, noise)
        return [f.reshape(len(noise), -1) for f in out.values()]

    moved = jax.jvp(features, (variables["params"],), (g,))[1]
    expected = np.stack([np.linalg.norm(f, axis=1) for f in moved], -1)
    for batch_size in (count, 64):  # the advice, and more
        np.testing.assert_allclose(follow(batch_size), expected, rtol=1e-4)
