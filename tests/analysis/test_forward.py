"""Networks whose derivative has a rule for reverse mode alone, as attention kernels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis import ntk
from analysis.contributions import Contributions
from analysis.dynamics import Recorder, make_loss_fn, velocity
from analysis.forward import jvp
from analysis.gradients import descent
from analysis.kernel_dynamics import KernelRecorder
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.linearised import LinearisedRun
from fssd_jax import InputError, make_feature_fn, recipes
from tests.analysis.following import PROBE, X, Y, run, start
from tests.conftest import Smooth

RATE = 0.3


def ruled(value, factor):
    """A function whose derivative is said to be g · factor(x), g the cotangent."""
    function = jax.custom_vjp(value)
    function.defvjp(lambda x: (value(x), x), lambda x, g: (g * factor(x),))
    return function


tanh = ruled(jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2)


class Ruled(nn.Module):
    """`Smooth` with another tanh."""

    feature_layers = ("first", "second", "logits")
    tanh = staticmethod(tanh)

    @nn.compact
    def __call__(self, x, train=False):
        x = Layer(7, self.tanh, name="first")(x.reshape(x.shape[0], -1))
        x = Layer(5, self.tanh, name="second")(x)
        return nn.Dense(3, name="logits")(x)


class Layer(nn.Module):
    width: int
    tanh: object

    @nn.compact
    def __call__(self, x):
        return self.tanh(nn.Dense(self.width)(x))


def followed(model):
    """What all that follow a run tell of it, by name."""
    feature_fn, loss_fn = make_feature_fn(model), make_loss_fn(model)
    v = np.ones((len(PROBE), 5), np.float32)
    path = PathForm(feature_fn, PROBE, nodes=2)
    frozen = FrozenForm(feature_fn, make_gradient_fn(model, feature_fn), None, RATE)
    linear = LinearisedRun(model, optax.sgd(RATE))
    images = Contributions(feature_fn, loss_fn, "second", PROBE, v, X, lambda _: RATE)
    speeds = Recorder(feature_fn, loss_fn, {"noise": PROBE}, [1])
    kernels = KernelRecorder(feature_fn, PROBE, [2], jax.random.key(0), keep=["second"])
    followers = path, frozen, linear, images, speeds, kernels

    def each(*args):
        for follower in followers:
            follower(*args)

    run(model, recipes.sgd(RATE), each, initial=start(Smooth()))
    found = {f"path {k}": f for k, f in path.value().items()}
    found |= {f"frozen {k}": f for k, f in frozen.value(PROBE).items()}
    found |= {f"linear {k}": e for k, e in linear.error(PROBE).items()}
    found |= speeds.records[0].movements["noise"]
    found["contributions"] = images.value()
    found["kernel"] = kernels.records[0].kernels["second"]
    return found, frozen.forms


def test_they_are_followed_like_equal_ones():
    (found, forms), (expected, of_equal) = followed(Ruled()), followed(Smooth())
    assert forms == of_equal
    assert set(forms.values()) == {"bottleneck"}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(
            found[name], values, rtol=1e-3, atol=1e-5, err_msg=name
        )


def test_the_derivative_is_that_of_the_rule():
    """As in training: the velocity is −Σ_m Θ ∂_mL with the Jacobian of the rule."""

    class Scaled(Ruled):
        tanh = staticmethod(ruled(jnp.tanh, lambda x: 0.3 + 0 * x))

    feature_fn, variables, y = make_feature_fn(Scaled()), start(Smooth()), Y[:4]
    x = X[:4]
    slope = descent(make_loss_fn(Scaled()), variables, x, y)
    found = velocity(feature_fn, variables, slope, PROBE)["logits"]
    logits = feature_fn(variables, x)["logits"]
    by_logit = (jax.nn.softmax(logits) - jax.nn.one_hot(y, 3)) / 4
    kernel = ntk.tangent_kernel(
        feature_fn, variables, "logits", PROBE, x, axes="full", direct=True
    )
    # neural-tangents looks for structure, and finds none behind such a rule.
    with pytest.raises(InputError, match="direct=True, or sketched_kernel"):
        ntk.tangent_kernel(feature_fn, variables, "logits", PROBE, x)
    expected = -np.einsum("imde,me->id", kernel, by_logit)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_counters_stay_and_values_are_returned():
    at = {"w": jnp.arange(3.0), "count": jnp.arange(3)}
    tangent = {"w": np.ones(3, np.float64), "count": np.arange(3)}
    for function in (lambda v: v["w"] ** 2 * v["count"], lambda v: tanh(v["w"])):
        value, pushed = jvp(function, at, tangent)
        step = {**at, "w": at["w"] + 1e-3}
        np.testing.assert_array_equal(value, function(at))
        slope = (function(step) - value) / 1e-3
        np.testing.assert_allclose(pushed, slope, atol=3e-3)


def test_a_rule_that_clips_has_no_kernel():
    clipped = jax.custom_vjp(jnp.tanh)
    clipped.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (jnp.clip(g, -1, 1),))
    with pytest.raises(InputError, match="clips or rounds is not linear"):
        jvp(clipped, jnp.ones(3), jnp.ones(3))
