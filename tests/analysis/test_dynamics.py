from itertools import pairwise

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis import gradients
from analysis.dynamics import (
    Recorder,
    log_steps,
    make_loss_fn,
    step_parts,
    velocity,
)
from analysis.gradients import descent
from analysis.kernel_regression import make_gradient_fn
from fssd_jax import InputError, make_feature_fn, recipes
from fssd_jax.data.pipeline import Batch
from tests.analysis.following import (
    DECAY,
    PROBE,
    RATE,
    Normed,
    X,
    Y,
    by_jacobians,
    flat,
    momentum,
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


@pytest.mark.parametrize("batch_size", [5, 22, 64])
def test_descent_is_minus_the_gradient_of_the_mean_loss(batch_size):
    model, variables = Smooth(), start(Smooth())

    def mean_loss(params):
        log_p = jax.nn.log_softmax(model.apply({"params": params}, X))
        return -log_p[jnp.arange(len(Y)), Y].mean()

    expected = jax.grad(mean_loss)(variables["params"])
    found = descent(make_loss_fn(model), variables, X, Y, batch_size)
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, -e, rtol=1e-4, atol=1e-6),
        found["params"],
        expected,
    )


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


# ---- the recorder -------------------------------------------------------------------


def test_log_steps():
    assert log_steps(1000, 4) == [0, 1, 32, 1000]
    assert log_steps(5, 100) == [0, 1, 2, 3, 4, 5]
    assert log_steps(1, 1) == [0, 1]


@pytest.mark.parametrize("model", [Smooth(), Normed()])
def test_records_are_what_their_names_say(model):
    """With momentum, from full gradients, in batches that do not divide the probes."""
    feature_fn, seen = make_feature_fn(model), []
    recorder = Recorder(
        feature_fn,
        make_loss_fn(model),
        {"in-distribution": X, "noise": PROBE},
        [0, 2, 4],
        data=(X, Y),
        keep=["logits"],
        batch_size=4,
    )
    trained = run(model, momentum, lambda *a: (seen.append(a), recorder(*a)))
    recorder(4, trained.variables)
    assert [record.step for record in recorder.records] == [0, 2, 4]

    def length(features):
        return np.stack([np.linalg.norm(f, axis=1) for f in features.values()], 1)

    for record, state, after in zip(
        recorder.records,
        (seen[0][1], seen[2][1], trained.variables),
        (seen[0][2], seen[2][2], None),
        strict=True,
    ):
        now = flat(feature_fn, state, X)
        center = {k: f.mean(0) for k, f in flat(feature_fn, state, PROBE).items()}
        expected = {
            "distance": {k: f - center[k][None] for k, f in now.items()},
            "displacement": jax.tree.map(
                jnp.subtract, now, flat(feature_fn, seen[0][1], X)
            ),
            "speed": velocity(
                feature_fn, state, descent(make_loss_fn(model), state, X, Y), X
            ),
        }
        if after is not None:
            moved = flat(feature_fn, after, X)
            expected["moved"] = jax.tree.map(jnp.subtract, moved, now)
        found = record.movements["in-distribution"]
        assert ("moved" in found) == ("parameter step" in found) == (after is not None)
        for name, features in expected.items():
            np.testing.assert_allclose(
                found[name], length(features), rtol=2e-4, atol=2e-6, err_msg=name
            )
        np.testing.assert_allclose(
            record.features["in-distribution"]["logits"], now["logits"], rtol=1e-5
        )


def test_following_a_run_does_not_change_it():
    model, seen = Smooth(), []
    followed = run(model, momentum, lambda *a: seen.append(a))
    alone = run(model, momentum, None)
    jax.tree.map(np.testing.assert_array_equal, followed.variables, alone.variables)
    assert [step for step, *_ in seen] == [0, 1, 2, 3]
    for (_, _, after, *_), (_, before, *_) in pairwise(seen):
        jax.tree.map(np.testing.assert_array_equal, after, before)
    jax.tree.map(np.testing.assert_array_equal, seen[-1][2], followed.variables)
    jax.tree.map(np.testing.assert_array_equal, seen[0][1], start(model))
    # Two epochs in two batches: every image was seen twice.
    together = np.concatenate([x for *_, x, _ in seen]).reshape(len(X) * 2, -1)
    np.testing.assert_allclose(together.sum(0), 2 * X.reshape(len(X), -1).sum(0), 1e-5)


def test_the_end_needs_no_batch():
    """As the docstring says: all but the speed, which takes images, is recorded."""
    model = Smooth()
    feature_fn, loss_fn, first = (
        make_feature_fn(model),
        make_loss_fn(model),
        start(model),
    )
    last = jax.tree.map(lambda a: 1.5 * a, first)
    recorder = Recorder(feature_fn, loss_fn, {"noise": PROBE, "OoD": X}, [0, 1])
    recorder(0, first, last, X, Y)
    recorder(1, last)
    recorder(1, last, None, X, Y)
    _, alone, with_batch = (record.movements["OoD"] for record in recorder.records)
    assert list(alone) == ["distance", "displacement"]
    assert list(with_batch) == ["distance", "displacement", "speed"]
    for name, movement in alone.items():
        np.testing.assert_array_equal(movement, with_batch[name])
    now, then = flat(feature_fn, last, X), flat(feature_fn, first, X)
    for k, (a, b) in enumerate(zip(now.values(), then.values(), strict=True)):
        moved = np.linalg.norm(a - b, axis=1)
        np.testing.assert_allclose(alone["displacement"][:, k], moved, rtol=1e-5)


def test_errors_say_what_to_do():
    model = Smooth()
    feature_fn, loss_fn, variables = (
        make_feature_fn(model), make_loss_fn(model), start(model),
    )  # fmt: skip
    with pytest.raises(InputError, match="uniform_noise"):
        Recorder(feature_fn, loss_fn, {"OoD": PROBE}, [0])
    recorder = Recorder(feature_fn, loss_fn, {"noise": PROBE}, [0, 3])
    with pytest.raises(InputError, match="call it at every step"):
        recorder(3, variables, variables, X, Y)
    with pytest.raises(InputError, match="data="):
        recorder(0, variables, variables)
    recorder = Recorder(feature_fn, loss_fn, {"noise": PROBE}, [0], keep=["fc1"])
    with pytest.raises(InputError, match=r"'fc1'.*'first', 'second', 'logits'"):
        recorder(0, variables, variables, X, Y)
    with pytest.raises(InputError, match="total"):
        log_steps(0, 3)


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


@pytest.mark.parametrize(("owed", "depends"), [(50, False), (200, True)])
def test_what_a_loss_owes_to_its_batch_is_measured_by_its_size(owed, depends):
    """A loss of 100 may owe 10⁻² to rounding: 100 times what a loss of 1 may."""
    batch = Batch(np.float32([0, 0, 0, 1]), np.ones(4, bool), np.zeros(4, np.int32))
    loss_fn = lambda variables, x, y: 100 + owed * gradients.MATES * x.max() + 0 * x  # noqa: E731
    assert gradients._depends_on_mates(loss_fn, {}, batch) is depends
