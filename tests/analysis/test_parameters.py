"""Eq. (3) and (4) of networks that are none of Linen's."""

from collections import OrderedDict
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze

from analysis import ntk
from analysis.contributions import Contributions
from analysis.dynamics import Recorder, make_loss_fn, step_parts
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.linearised import LinearisedRun
from analysis.parameters import parameters, with_parameters
from fssd_jax import InputError, make_feature_fn, make_logit_fn
from fssd_jax.adapters import from_nnx
from fssd_jax.losses import cross_entropy

DIM, RATE = 4, 0.4
rng = np.random.default_rng(0)
X, PROBE = rng.uniform(-1, 1, (2, 5, DIM)).astype(np.float32)
Y = np.arange(5, dtype=np.int32) % 3


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
    speeds = []
    for feature_fn, loss_fn, variables in (
        (linen, make_loss_fn(Equal()), {"params": params}),
        (nnx_features, make_loss_fn(lambda v, x: nnx_features(v, x)["logits"]), state),
    ):
        after = jax.tree.map(lambda p: 1.01 * p, variables)
        args = feature_fn, loss_fn, {"noise": PROBE}, [0]
        with pytest.raises(InputError, match="unit_range=False"):
            Recorder(*args)(0, variables, after, X, Y)
        recorder = Recorder(*args, unit_range=False)  # the advice
        recorder(0, variables, after, X, Y)
        kernel = ntk.tangent_kernel(feature_fn, variables, "branch", PROBE, direct=True)
        speeds.append([*recorder.records[0].movements["noise"].values(), kernel])
    for found, expected in zip(*speeds, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    values = [c.value() for c in contributed]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-7)


def test_variables_without_params_are_all_parameters():
    p = {"w": jnp.ones((DIM, 3)), "b": jnp.arange(3.0)}
    parts = step_parts(p, jax.tree.map(lambda a: 2 * a, p))
    assert list(parts) == ["parameter step"]
    jax.tree.map(np.testing.assert_array_equal, parts["parameter step"], p)
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


KINDS = {
    "dict": lambda p: {"params": p},
    "FrozenDict": lambda p: freeze({"params": p}),
    "FrozenDict of all": freeze,
    "State": lambda p: nnx.State({"params": p}),
    "list": lambda p: list(p.values()),
    "NamedTuple": lambda p: Weights(**p),
    "counter": lambda p: {"params": p, "count": {"n": jnp.int32(0)}},
}


class Weights(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize("kind", KINDS)
def test_variables_are_any_tree(kind):
    """Whatever holds the arrays, speeds, forms and kernels are those of a dict."""

    def features(variables, x):
        a, b = (leaf for leaf in jax.tree.leaves(variables) if jnp.ndim(leaf) == 2)
        hidden = jnp.tanh(x @ a)
        return OrderedDict(hidden=hidden, logits=hidden @ b)

    def logits(variables, x):
        return features(variables, x)["logits"]

    a, b = (rng.normal(size=s).astype(np.float32) for s in ((DIM, 6), (6, 3)))
    found = []
    for make in (KINDS["dict"], KINDS[kind]):
        before = make({"a": jnp.asarray(a), "b": jnp.asarray(b)})
        gradient_fn = make_gradient_fn(logits, features)
        slope = gradient_fn(before, X, Y)[0]
        old = parameters(before)
        new = jax.tree.map(lambda v, g: v - 0.1 * g, old, slope)
        after = with_parameters(before, new)
        assert jax.tree.structure(after) == jax.tree.structure(before)
        of = features, make_loss_fn(logits), {"noise": PROBE}, [0]
        recorder = Recorder(*of, unit_range=False)
        path = PathForm(features, PROBE, nodes=3)
        frozen = FrozenForm(features, gradient_fn, None, 0.1)
        recorder(0, before, after, X, Y)
        path(0, before, after)
        frozen(0, before, after, X, Y)
        speeds = recorder.records[0].movements["noise"]
        names = ("speed", "displacement", "moved", "parameter step")
        found.append(
            [
                *(speeds[name] for name in names),
                *path.value().values(),
                *frozen.value(PROBE).values(),
                ntk.tangent_kernel(features, before, "hidden", PROBE, direct=True),
            ]
        )
        assert max(path.error().values()) < 1e-4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_of_nnx_what_is_trained_is_its_params():
    """Not BatchNorm's statistics, and not an attribute `params` alone."""

    class Named(nnx.Module):
        def __init__(self, rngs):
            self.params = nnx.Linear(DIM, 6, rngs=rngs)
            self.norm = nnx.BatchNorm(6, rngs=rngs)
            self.logits = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.logits(nnx.tanh(self.norm(self.params(x))))

    model = Named(nnx.Rngs(0))
    network = from_nnx(model, ["logits"])
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    flat, unflat = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.jacrev(lambda p: nnx.merge(graph, unflat(p), rest)(PROBE))(flat)
    expected = np.einsum("icp,jcp->ij", *2 * [np.float64(jacobian)]) / 3
    found = ntk.tangent_kernel(
        network.feature_fn, network.variables, "logits", PROBE, direct=True
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    size = sum(leaf.size for leaf in jax.tree.leaves(parameters(network.variables)))
    assert size == flat.size == DIM * 6 + 6 + 12 + 6 * 3 + 3


def test_a_loss_of_each_example_is_an_error():
    feature_fn = make_feature_fn(Equal(), ["logits"])
    gradient_fn = make_gradient_fn(Equal(), feature_fn, lambda f, y: f.sum(1))
    variables = Equal().init(jax.random.key(0), X)
    with pytest.raises(InputError, match=r"one number.*\(5,\)"):
        gradient_fn(variables, X, Y)


def test_sums_over_many_steps_are_none_in_16_bits():
    """From −1/2 to 1/2 in exact steps: a sum of them in bfloat16 ends at 1/2."""
    x, rate = np.ones((3, 1), np.float32), 1 / 512

    def features(variables, x):
        return OrderedDict(logits=x.astype(jnp.bfloat16) @ variables["params"]["w"])

    def rising(logits, y):
        del y
        return -logits.mean()

    def at(step):
        return {"params": {"w": jnp.full((1, 1), -0.5 + step * rate, jnp.bfloat16)}}

    logit_fn = lambda v, x: features(v, x)["logits"]  # noqa: E731
    gradient_fn = make_gradient_fn(logit_fn, features, rising)
    path = PathForm(features, x, nodes=1)
    frozen = FrozenForm(features, gradient_fn, None, rate)
    for step in range(512):
        path(step, at(step), at(step + 1))
        frozen(step, at(step), at(step + 1), x, np.zeros(3, np.int32))
    assert frozen.forms == {"logits": "bottleneck"}
    for found in (path.value(), frozen.value(x)):
        np.testing.assert_allclose(np.float32(found["logits"]), 1, rtol=1e-2)


class Several(nn.Module):
    """Wants to be told whether it is trained, and returns more than logits."""

    @nn.compact
    def __call__(self, x, train):
        hidden = nn.Dropout(0.5, deterministic=not train)(Relu(name="hidden")(x))
        return nn.Dense(3, name="logits")(hidden), hidden


def test_a_model_of_several_outputs_is_given_as_a_function():
    """As the advice says, with each of its arguments."""
    model, feature_fn = Several(), make_feature_fn(Several(), ["hidden"], train=False)
    variables, y = model.init(jax.random.key(0), X, False), jnp.asarray(Y)
    for given, advice in (
        (model, r"missing 1 required.*make_logit_fn\(model, train=False\)"),
        (make_logit_fn(model, train=True), "training mode.*train=False"),
        (make_logit_fn(model, train=False), r"make_logit_fn\(model, output=0\)"),
    ):
        linear = LinearisedRun(given, optax.sgd(RATE), feature_fn=feature_fn)
        for follow in (linear, FrozenForm(
            feature_fn, make_gradient_fn(given, feature_fn), None, RATE
        )):  # fmt: skip
            with pytest.raises(InputError, match=advice):
                follow(0, variables, variables, X, y)
    with pytest.raises(InputError, match=r"make_logit_fn\(model, output=0\)"):
        make_loss_fn(model, train=False)(variables, X, y)  # of which, is not known
    logit_fn = make_logit_fn(model, output=0, train=False)
    gradient = make_gradient_fn(logit_fn, feature_fn)(variables, X, y)[0]
    expected = jax.grad(lambda v: cross_entropy(model.apply(v, X, False)[0], y))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        *(gradient, expected(variables)["params"]),
    )
    new = jax.tree.map(lambda p, g: p - RATE * g, variables["params"], gradient)
    after = {"params": new}
    linear = LinearisedRun(logit_fn, optax.sgd(RATE), feature_fn=feature_fn)
    linear(0, variables, after, X, y)
    # In its first step it goes where the network goes.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        *(linear.network.variables["params"], after["params"]),
    )


def test_a_layer_may_be_a_tuple_of_one_and_no_list_of_layers():
    network = Equal()
    variables = network.init(jax.random.key(0), X)
    plain = make_feature_fn(network, ["hidden"])
    after = jax.tree.map(lambda p: 0.9 * p, variables)

    def in_tuple(variables, x):
        return OrderedDict((k, (f,)) for k, f in plain(variables, x).items())

    def alone(variables, x):
        return (plain(variables, x)["hidden"],)

    values = []
    for feature_fn in (plain, in_tuple):
        path = PathForm(feature_fn, PROBE, nodes=2)
        path(0, variables, after)
        kernel = ntk.tangent_kernel(feature_fn, variables, "hidden", PROBE, direct=True)
        gradient_fn = make_gradient_fn(network, feature_fn)
        by_layer = gradient_fn(variables, X, jnp.asarray(Y))[1]["hidden"]
        values.append([path.value()["hidden"], kernel, by_layer])
    for found, expected in zip(*values, strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="mapping of layer name to features"):
        PathForm(alone, PROBE)(0, variables, after)
    with pytest.raises(InputError, match="mapping of layer name to features"):
        ntk.tangent_kernel(alone, variables, "hidden", PROBE, direct=True)


def test_keys_masks_and_counters_beside_the_parameters_go_on():
    """As of NNX's dropout: they have no derivative, and make no step another one."""
    model, plain = Equal(), make_feature_fn(Equal(), ["hidden"])
    linen = model.init(jax.random.key(0), X)

    def only(variables):
        return {"params": variables["params"]}

    def feature_fn(variables, x):
        return plain(only(variables), x)

    def logit_fn(variables, x):
        return model.apply(only(variables), x)

    def others(step):
        key = jax.random.key(step)
        return {"rest": {"key": key, "mask": jnp.array([True, step > 0]), "n": step}}

    y, found = jnp.asarray(Y), []
    for rest in ({}, others(0)):
        features = feature_fn if rest else plain
        gradient_fn = make_gradient_fn(logit_fn if rest else model, features)
        before = {**linen, **rest}
        gradient, _ = gradient_fn(before, X, y)
        new = jax.tree.map(lambda p, g: p - RATE * g, linen["params"], gradient)
        after = {"params": new, **(others(1) if rest else {})}
        path = PathForm(features, PROBE, nodes=2)
        frozen = FrozenForm(features, gradient_fn, None, RATE)
        loss_fn = make_loss_fn(logit_fn if rest else model)
        v = np.ones((len(PROBE), 6), np.float32)
        moved = Contributions(features, loss_fn, "hidden", PROBE, v, X, RATE)
        recorder = Recorder(features, loss_fn, {"noise": PROBE}, [0], unit_range=False)
        for follower in (path, frozen, moved, recorder):
            follower(0, before, after, X, y)
        of_set = recorder.records[0].movements["noise"]
        names = "distance", "speed", "moved", "step speed", "parameter step"
        values = [of_set[name] for name in names]
        values += [path.value()["hidden"], frozen.value(PROBE)["hidden"], moved.value()]
        found.append(values)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match=r"of the parameters are trained.*int32"):
        parameters({"params": {"w": jnp.ones(2), "n": jnp.arange(2)}})
