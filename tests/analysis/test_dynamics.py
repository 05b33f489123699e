"""Eq. (3), and the parts of a step."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis.dynamics import Recorder, make_loss_fn, step_parts, velocity
from analysis.gradients import descent
from analysis.kernel_regression import make_gradient_fn
from fssd_jax import make_feature_fn, recipes
from tests.analysis.following import (
    DECAY,
    PROBE,
    RATE,
    Normed,
    X,
    Y,
    by_jacobians,
    flat,
    run,
    start,
)
from tests.conftest import Smooth


def along(variables, direction, scale):
    return jax.tree.map(lambda v, d: v + scale * d, variables, direction)


# ---- Eq. (3) ------------------------------------------------------------------------


def test_velocity_is_a_finite_difference():
    with jax.enable_x64(True):
        model = Smooth()
        feature_fn, variables = make_feature_fn(model), start(model, jnp.float64)
        direction = descent(make_loss_fn(model), variables, X, Y, 8)
        found = velocity(feature_fn, variables, direction, PROBE)
        h = 1e-5
        ends = [
            flat(feature_fn, along(variables, direction, s), PROBE) for s in (h, -h)
        ]
        for layer, value in found.items():
            expected = (ends[0][layer] - ends[1][layer]) / (2 * h)
            np.testing.assert_allclose(value, expected, rtol=1e-7, atol=1e-10)


def by_neural_tangents(feature_fn, variables, layer):
    nt = pytest.importorskip("analysis.neural_tangents_compat").nt

    def apply(params, x):
        return flat(feature_fn, {"params": params}, x)[layer]

    kernel = nt.empirical_ntk_fn(
        apply,
        trace_axes=(),
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    return kernel(jnp.asarray(PROBE), jnp.asarray(X), variables["params"])


@pytest.mark.parametrize("route", [by_jacobians, by_neural_tangents])
@pytest.mark.parametrize("layer", Smooth.feature_layers)
def test_speed_is_the_sum_over_the_tangent_kernel(route, layer):
    """−Σ_m Θ(x, x_m) ∂_mL with the kernel itself, by two ways to get it."""
    model = Smooth()
    feature_fn, variables = make_feature_fn(model), start(model)
    by_feature = make_gradient_fn(model, feature_fn)(variables, X, Y)[1][layer]
    kernel = route(feature_fn, variables, layer)
    expected = -jnp.einsum("nmij,mj->ni", kernel, by_feature)
    direction = descent(make_loss_fn(model), variables, X, Y)
    found = velocity(feature_fn, variables, direction, PROBE)[layer]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# ---- the parts of a step ------------------------------------------------------------


def decay_of_sgd(step, params):
    return jax.tree.map(lambda p: -RATE * DECAY * p, params)


def test_parts_of_a_step_are_told_apart_and_add_up():
    """Against the same step without decay, and features under old statistics."""
    model, seen = Normed(), []
    feature_fn = make_feature_fn(model)

    def sgd(decay):
        return lambda epochs, steps: optax.chain(
            optax.add_decayed_weights(decay), optax.sgd(RATE)
        )

    recorder = Recorder(
        feature_fn, make_loss_fn(model), {"x": PROBE, "noise": X}, [0, 1, 2, 3],
        decay=decay_of_sgd,
    )  # fmt: skip
    run(model, sgd(DECAY), lambda *a: (seen.append(a), recorder(*a)))
    without = []
    run(model, sgd(0.0), lambda *a: without.append(a))
    before, with_decay, free = seen[0][1], seen[0][2], without[0][2]

    def moved(change):
        """To first order, by differences."""
        h = 1e-2
        ends = [flat(feature_fn, along(before, change, s), PROBE) for s in (h, -h)]
        return np.stack(
            [
                np.linalg.norm(ends[0][k] - ends[1][k], axis=1) / (2 * h)
                for k in ends[0]
            ],
            axis=1,
        )

    def change(a, b, collection):
        zero = jax.tree.map(jnp.zeros_like, before)
        return zero | {
            collection: jax.tree.map(jnp.subtract, a[collection], b[collection])
        }

    found = recorder.records[0].movements["x"]
    close = {"rtol": 2e-2, "atol": 1e-5}
    np.testing.assert_allclose(
        found["weight decay"], moved(change(with_decay, free, "params")), **close
    )
    np.testing.assert_allclose(
        found["parameter step"], moved(change(free, before, "params")), **close
    )
    np.testing.assert_allclose(
        found["statistics"], moved(change(with_decay, before, "batch_stats")), **close
    )
    parts = step_parts(before, with_decay, decay_of_sgd(0, before["params"]))
    assert list(parts) == ["weight decay", "parameter step", "statistics"]
    together = {**parts["statistics"]}
    together["params"] = jax.tree.map(
        jnp.add, parts["weight decay"]["params"], parts["parameter step"]["params"]
    )
    jax.tree.map(
        lambda a, b, t: np.testing.assert_allclose(a + t, b, rtol=1e-5, atol=1e-6),
        before,
        with_decay,
        together,
    )


def test_what_is_beyond_first_order_falls_with_the_square_of_the_step():
    model = Smooth()
    rests = []
    for rate in (0.4, 0.2):
        recorder = Recorder(
            make_feature_fn(model), make_loss_fn(model), {"noise": PROBE}, [0]
        )
        run(model, recipes.sgd(rate), recorder)
        movements = recorder.records[0].movements["noise"]
        np.testing.assert_allclose(
            movements["parameter step"], rate * movements["speed"], rtol=1e-3
        )
        rests.append(movements["beyond first order"].mean(axis=0))
    np.testing.assert_allclose(rests[0] / rests[1], 4, rtol=0.2)


def test_step_speed_is_along_the_step_of_adam():
    """Against an explicit Jacobian, after some steps, with momenta of their own."""
    with jax.enable_x64(True):
        model, optimiser = Smooth(), optax.adamw(0.01, weight_decay=DECAY)
        feature_fn, loss_fn = make_feature_fn(model), make_loss_fn(model)
        recorder = Recorder(feature_fn, loss_fn, {"noise": PROBE}, [2])

        @jax.jit
        def update(params, state):
            mean_loss = lambda p: loss_fn({"params": p}, X, Y).mean()  # noqa: E731
            gradient = jax.grad(mean_loss)(params)
            change, state = optimiser.update(gradient, state, params)
            return gradient, change, optax.apply_updates(params, change), state

        params = start(model, jnp.float64)["params"]
        state = jax.jit(optimiser.init)(params)
        for step in range(3):
            before = params
            gradient, change, params, state = update(params, state)
            recorder(step, {"params": before}, {"params": params}, X, Y)

        vector, unflatten = jax.flatten_util.ravel_pytree(before)
        change, gradient = (
            np.asarray(jax.flatten_util.ravel_pytree(of)[0])
            for of in (change, gradient)
        )
        of = lambda v: flat(feature_fn, {"params": unflatten(v)}, PROBE)  # noqa: E731
        jacobians = jax.jit(jax.jacrev(of))(vector)
    found = recorder.records[0].movements["noise"]
    for k, jacobian in enumerate(map(np.asarray, jacobians.values())):
        expected = np.linalg.norm(jacobian @ change, axis=1)
        expected *= np.linalg.norm(gradient) / np.linalg.norm(change)
        np.testing.assert_allclose(found["step speed"][:, k], expected, rtol=1e-8)
        speed = np.linalg.norm(jacobian @ gradient, axis=1)
        np.testing.assert_allclose(found["speed"][:, k], speed, rtol=1e-8)
        assert not np.allclose(expected, speed, rtol=0.05)


@pytest.mark.parametrize("rate", [0.0, 1e-2, 1.0])
def test_step_speed_of_sgd_is_the_speed_whatever_the_rate(rate):
    """Not of statistics, which move too; and 0 where nothing but these moved."""
    model = Normed()
    feature_fn, loss_fn, before = (
        make_feature_fn(model), make_loss_fn(model), start(model),
    )  # fmt: skip
    direction = descent(loss_fn, before, X, Y)["params"]
    decay = jax.tree.map(lambda d: rate * d / 3, direction)  # a part, told apart
    after = {
        "params": along(before["params"], direction, rate),
        "batch_stats": jax.tree.map(lambda s: 1.1 * s, before["batch_stats"]),
    }
    recorder = Recorder(
        feature_fn, loss_fn, {"noise": PROBE}, [0], decay=lambda *_: decay
    )
    recorder(0, before, after, X, Y)
    found = recorder.records[0].movements["noise"]
    expected = found["speed"] if rate else 0 * found["speed"]
    np.testing.assert_allclose(found["step speed"], expected, rtol=1e-3)
    assert (found["statistics"] > 0).all()
