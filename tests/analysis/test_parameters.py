"""Eq. (3) and (4) of networks that are none of Linen's."""

from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from analysis import ntk
from analysis.contributions import Contributions
from analysis.dynamics import Recorder, make_loss_fn, step_parts
from analysis.kernel_regression import FrozenForm, make_gradient_fn
from fssd_jax import InputError, make_feature_fn
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


def test_a_loss_of_each_example_is_an_error():
    feature_fn = make_feature_fn(Equal(), ["logits"])
    gradient_fn = make_gradient_fn(Equal(), feature_fn, lambda f, y: f.sum(1))
    variables = Equal().init(jax.random.key(0), X)
    with pytest.raises(InputError, match=r"one number.*\(5,\)"):
        gradient_fn(variables, X, Y)
