"""`Recorder`: its records are what their names say, and following changes nothing."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.dynamics import Recorder, log_steps, make_loss_fn, velocity
from analysis.gradients import descent
from analysis.kernel_dynamics import KernelRecorder
from fssd_jax import InputError, make_feature_fn
from tests.analysis.following import PROBE, Normed, X, Y, flat, momentum, run, start
from tests.conftest import Smooth


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


def test_a_recorder_is_of_one_run():
    """Of the next it would tell displacements from the start of the first."""
    model = Smooth()
    first, feature_fn = start(model), make_feature_fn(model)
    last = jax.tree.map(lambda a: 2 * a, first)
    recorders = (
        Recorder(feature_fn, make_loss_fn(model), {"noise": PROBE}, [0, 2]),
        KernelRecorder(feature_fn, PROBE[:3], [0, 2], jax.random.key(0)),
    )
    for recorder in recorders:
        recorder(jnp.int32(0), first, last, X, Y)  # as optax and Flax count
        recorder(2, last)
        for step in (0, 1):
            with pytest.raises(InputError, match=f"step {step} after step 2: .*of its"):
                recorder(step, first, last, X, Y)
        assert [record.step for record in recorder.records] == [0, 2]


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
