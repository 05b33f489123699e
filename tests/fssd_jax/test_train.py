import os
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from fssd_jax import InputError, checkpoint, make_logit_fn, recipes
from fssd_jax.checks import DivergedError
from fssd_jax.train import TrainState, accuracy, train, train_step
from tests.conftest import Smooth


def data(n=100):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n).astype(np.int32)
    x = rng.uniform(0, 0.5, (n, 4, 4, 1)) + 0.2 * y[:, None, None, None]
    return x.clip(0, 1).astype(np.float32), y


def adam(epochs, steps):
    return optax.adam(0.02)  # whatever the number of epochs


def fit(folder=None, **kwargs):
    options = {
        "num_classes": 3, "seed": 1, "epochs": 6, "batch_size": 16, "progress": False,
    }  # fmt: skip
    return train(Smooth(), *data(), folder=folder, **options | kwargs)


def folders(path):
    return sorted(p.name for p in path.iterdir() if p.is_dir())


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns_and_is_deterministic():
    fast = {"epochs": 20, "recipe": adam}
    one, two = fit(**fast), fit(**fast)
    assert_same(one, two)
    assert accuracy(make_logit_fn(Smooth()), one.variables, *data()) > 0.95
    assert one.history[-1, 0] < one.history[0, 0]
    assert np.any(
        one.variables["params"]["logits"]["bias"]
        != fit(**fast, seed=2).variables["params"]["logits"]["bias"]
    )


def test_a_step_is_adadelta_on_the_gradient_of_cross_entropy():
    """Adadelta written out (Zeiler 2012), on a finite-difference gradient."""
    x, y = data(8)
    model = Smooth()
    variables = model.init(jax.random.key(0), x)
    optimiser = recipes.lenet(14, 1)
    state = TrainState(variables, optimiser.init(variables["params"]))

    def loss(bias):
        p = variables["params"]
        logits_layer = {**p["logits"], "bias": jnp.asarray(bias, jnp.float32)}
        z = model.apply({"params": {**p, "logits": logits_layer}}, x)
        z = np.asarray(z, np.float64)
        return -np.mean(z[np.arange(8), y] - np.log(np.exp(z).sum(1)))

    bias = np.array(variables["params"]["logits"]["bias"], np.float64)
    gradient = np.array(
        [(loss(bias + b) - loss(bias - b)) / 2e-3 for b in 1e-3 * np.eye(3)]
    )
    rho, eps = 0.9, 1e-6
    mean_square = (1 - rho) * gradient**2
    expected = bias - np.sqrt(eps) / np.sqrt(mean_square + eps) * gradient

    before = loss(bias)
    step = jax.jit(partial(train_step, model.apply, optimiser.update))
    state, totals = step(state, jnp.zeros(2), x, y, jax.random.key(0))
    found = state.variables["params"]["logits"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(totals[0], before, rtol=1e-5)


def test_the_rate_falls_by_the_released_schedule():
    """×0.7 after each of 14 epochs; Adadelta's update is proportional to the rate."""
    optimiser = recipes.lenet(14, 3)
    parameter = jnp.ones(1)

    def update_at(step):
        state = optimiser.init(parameter)
        state = jax.tree.map(
            lambda a: jnp.full_like(a, step) if a.dtype == jnp.int32 else a, state
        )
        return optimiser.update(parameter, state, parameter)[0][0]

    ratios = [update_at(step) / update_at(0) for step in (2, 3, 5, 6, 41)]
    np.testing.assert_allclose(ratios, [1, 0.7, 0.7, 0.49, 0.7**13], rtol=1e-5)


def test_the_initial_parameters_are_kept(tmp_path):
    trained = fit(tmp_path)
    kept = checkpoint.restore(tmp_path / "initial", trained.initial)
    assert_same(kept, trained.initial)
    assert_same(fit(epochs=1).initial, trained.initial)
    first, last = (t["params"]["first"] for t in (trained.initial, trained.variables))
    assert np.any(first["Dense_0"]["kernel"] != last["Dense_0"]["kernel"])


def test_a_finished_run_is_not_trained_again(tmp_path):
    trained = fit(tmp_path)
    assert folders(tmp_path) == ["epoch-00006", "initial"]
    before = os.stat(tmp_path / "epoch-00006").st_mtime_ns
    again = fit(tmp_path)
    assert_same(again, trained)
    assert os.stat(tmp_path / "epoch-00006").st_mtime_ns == before


CHILD = """
import sys
from pathlib import Path
from tests.fssd_jax.test_train import fit
fit(Path(sys.argv[1]), epochs=20)
"""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    folder = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder])
    deadline = time.monotonic() + 120
    while checkpoint.last_epoch(folder) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 3 <= checkpoint.last_epoch(folder) < 20  # killed in its midst
    # The same command again.
    subprocess.run([sys.executable, "-c", CHILD, folder], check=True)
    whole = fit(epochs=20)
    params = whole.variables["params"]
    state = TrainState(whole.variables, recipes.lenet(20, 6).init(params))
    like = state, whole.history
    found = checkpoint.restore(checkpoint.epoch_path(folder, 20), like)
    assert_same((found[0].variables, found[1]), (whole.variables, whole.history))
    assert folders(folder) == ["epoch-00020", "initial"]


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path):
    def poisoned_at(bad_step):
        return lambda epochs, steps: optax.sgd(
            lambda step: jnp.where(step == bad_step, jnp.nan, 0.1)
        )

    # 6 steps an epoch. The step after the poisoned one sees it in its loss.
    with pytest.raises(DivergedError, match="loss was not finite by step 6 of epoch 2"):
        fit(tmp_path / "within", recipe=poisoned_at(8))
    # After an epoch's last step only the weights tell.
    with pytest.raises(DivergedError, match=r"weights were not finite .* epoch 2"):
        fit(tmp_path / "last", recipe=poisoned_at(11))
    for name in ("within", "last"):
        assert checkpoint.last_epoch(tmp_path / name) == 1
        saved = ocp.StandardCheckpointer().restore(tmp_path / name / "epoch-00001")
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(saved))


def test_bad_data():
    x, y = data()
    for bad_x, bad_y, message in (
        (x, y + 1, "out of range"),
        (x, y * 0, "one class only"),
        (x, y[:5], "one label per image"),
        (x[:0], y[:0], "empty"),
        (x * np.nan, y, "NaN"),
        ((x > x.mean()).astype(np.uint8), y, "bytes are 0 and 1"),
    ):
        with pytest.raises(InputError, match=message):
            train(Smooth(), bad_x, bad_y, num_classes=3, seed=0, epochs=1)


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    fit(tmp_path)
    for path in (tmp_path / "epoch-00006").rglob("*"):
        if path.is_file():
            path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="epoch-00006: it is damaged"):
        fit(tmp_path)


def test_a_checkpoint_of_another_shape_is_an_error(tmp_path):
    checkpoint.save(tmp_path / "a", {"w": jnp.ones((3, 2))})
    for other in ({"w": jnp.ones((2, 2))}, {"v": jnp.ones((3, 2))}):
        with pytest.raises(InputError, match="of another network"):
            checkpoint.restore(tmp_path / "a", other)
