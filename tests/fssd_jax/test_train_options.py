"""Training that begins elsewhere, keeps snapshots, or looks at outliers too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss

from fssd_jax import InputError, make_feature_fn, make_logit_fn, recipes
from fssd_jax import train as training
from fssd_jax.train import TrainState, accuracy, train_step
from tests.conftest import Smooth
from tests.fssd_jax.test_train import adam, assert_same, data, fit, folders


def boards(n):
    """Chessboards of any contrast: images unlike those of `data`."""
    board = np.indices((4, 4)).sum(0)[None, :, :, None] % 2
    contrast = np.random.default_rng(5).uniform(0.3, 1, (n, 1, 1, 1))
    return (board * contrast).astype(np.float32)


@pytest.fixture(scope="module")
def other():
    """Variables that seed 1 does not begin with."""
    return Smooth().init(jax.random.key(99), data()[0])


# ---- outliers -----------------------------------------------------------------------


def test_outliers_make_the_prediction_on_them_uniform():
    fast = {"epochs": 20, "recipe": adam}
    # Fewer than the images, so that they are gone through more than once an epoch.
    runs = [fit(**fast), fit(**fast, outliers=boards(30))]
    logit_fn = make_logit_fn(Smooth())

    def divergence(variables):
        p = softmax(np.asarray(logit_fn(variables, boards(200)), float), axis=1)
        return entropy(np.full_like(p, 1 / 3), p, axis=1).mean()

    without, with_outliers = (divergence(run.variables) for run in runs)
    assert with_outliers < 0.1 < without
    assert accuracy(logit_fn, runs[1].variables, *data()) > 0.95
    assert_same(runs[1], fit(**fast, outliers=boards(30)))


def test_outliers_do_not_change_which_images_come(other):
    """At rate zero the mean loss is that of the same batch, plus the outliers'."""
    still = {
        "initial": other, "epochs": 2, "batch_size": 60,
        "recipe": recipes.sgd(0.0),
    }  # fmt: skip
    alone, beside = fit(**still), fit(**still, outliers=boards(1))
    p = softmax(np.asarray(Smooth().apply(other, boards(1)), float), axis=1)
    added = np.full(2, -0.5 * np.log(p).mean())
    found = beside.history[:, 0] - alone.history[:, 0]
    np.testing.assert_allclose(found, added, rtol=1e-4)
    np.testing.assert_array_equal(beside.history[:, 1], alone.history[:, 1])


def test_a_step_with_outliers_follows_both_gradients(other):
    """CE + ½ to_uniform in closed form; the two sets are not equally large."""
    x, y = data(8)
    outside = boards(5)
    optimiser = optax.sgd(1.0)
    state = TrainState(jax.tree.map(jnp.copy, other), optimiser.init(other["params"]))
    step = jax.jit(partial(train_step, Smooth().apply, optimiser.update))
    found, totals = step(state, jnp.zeros(2), x, y, jax.random.key(0), outside)

    feature_fn = make_feature_fn(Smooth(), layers=["second", "logits"])
    both = feature_fn(other, np.concatenate([x, outside]))
    hidden, logits = (np.asarray(f, float) for f in both.values())
    p = softmax(logits, axis=1)
    wanted = np.concatenate([np.eye(3)[y], np.full((5, 3), 1 / 3)])
    weight = np.repeat([1 / 8, 0.5 / 5], [8, 5])[:, None]
    slope = weight * (p - wanted)
    before, after = other["params"]["logits"], found.variables["params"]["logits"]
    for name, gradient in (("bias", slope.sum(0)), ("kernel", hidden.T @ slope)):
        step = np.asarray(after[name]) - np.asarray(before[name])
        np.testing.assert_allclose(step, -gradient, rtol=1e-4, atol=1e-6)
    loss = -(weight * wanted * np.log(p)).sum()
    right = np.mean(logits[:8].argmax(1) == y)  # the outliers have no class
    np.testing.assert_allclose(totals, [loss, right], rtol=1e-5)


def test_bad_outliers():
    for bad, message in (
        (boards(3)[:0], "outliers: .*empty"),
        (boards(3) * np.nan, "NaN"),
    ):
        with pytest.raises(InputError, match=message):
            fit(outliers=bad)


# ---- initial ------------------------------------------------------------------------


def test_training_begins_at_the_given_weights(other, tmp_path):
    before = jax.tree.map(np.array, other)
    x, y = data()
    still = {
        "initial": other, "epochs": 1, "batch_size": 100,
        "recipe": recipes.sgd(0.0),
    }  # fmt: skip
    found = fit(tmp_path, **still)
    assert_same(found.variables, before)
    assert_same(found.initial, before)
    p = softmax(np.asarray(Smooth().apply(other, x), float), axis=1)
    expected = [log_loss(y, p), np.mean(p.argmax(1) == y)]
    np.testing.assert_allclose(found.history[0], expected, rtol=1e-5)
    assert_same(fit(tmp_path, **still), found)
    # The step donates its input, which must not be the caller's.
    fit(initial=other, epochs=1)
    assert_same(other, before)


# ---- snapshots ----------------------------------------------------------------------


def test_snapshots_are_the_weights_of_shorter_runs():
    found = fit(recipe=adam, snapshots=(2, 6))
    assert set(found.snapshots) == {2, 6}
    for epochs, variables in found.snapshots.items():
        assert_same(variables, fit(recipe=adam, epochs=epochs).variables)
    assert_same(found.snapshots[6], found.variables)


def test_a_killed_run_keeps_its_snapshots(tmp_path):
    """1 and 2 lie before the last checkpoint; 3 lies after it and is made again."""
    options = {"recipe": adam, "snapshots": (1, 2, 3, 5), "save_every": 2}
    steps_taken = []

    def killed_in_the_fourth_epoch(*_):
        steps_taken.append(1)
        if len(steps_taken) == 6 * 3 + 4:
            raise KeyboardInterrupt

    options["on_step"] = killed_in_the_fourth_epoch
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, **options)
    left = ["epoch-00002", "initial", *(f"snapshot-0000{e}" for e in (1, 2, 3))]
    assert folders(tmp_path) == left
    resumed = fit(tmp_path, **options)
    assert len(steps_taken) == 6 * 3 + 4 + 6 * 4
    assert_same(resumed, fit(**options))
    # Finished, it is read back.
    assert_same(fit(tmp_path, **options), resumed)
    assert len(steps_taken) == 6 * 3 + 4 + 6 * 4 + 6 * 6


@pytest.mark.parametrize("snapshots", [(0,), (7,), (-1, 3)])
def test_snapshots_of_no_epoch_are_an_error(snapshots):
    with pytest.raises(InputError, match="snapshots: 1 to 6, got"):
        fit(snapshots=snapshots)


# ---- fine-tuning --------------------------------------------------------------------


def test_finetuning_is_nesterov_with_weight_decay_along_a_cosine():
    """As PyTorch defines SGD: d = g + λp, v ← μv + d, p ← p − rate (d + μv)."""
    rng = np.random.default_rng(0)
    epochs, steps = 2, 3
    p, v = rng.normal(size=(2, 5)) * [[1], [0]]
    optimiser = recipes.finetune(epochs, steps)
    found = jnp.asarray(p, jnp.float32)
    state = optimiser.init(found)
    for i in range(epochs * steps + 1):
        g = rng.normal(size=5)
        updates, state = optimiser.update(jnp.asarray(g, jnp.float32), state, found)
        d = g + 5e-4 * p
        v = 0.9 * v + d
        expected = -0.001 * (1 + np.cos(np.pi * i / 6)) / 2 * (d + 0.9 * v)
        np.testing.assert_allclose(updates, expected, rtol=1e-4, atol=1e-10)
        found, p = found + updates, p + expected
    np.testing.assert_allclose(updates, 0, atol=1e-10)  # the rate is 0 at the end


def test_augmented_images_are_what_is_trained_on():
    """As training on images that were changed beforehand; not beside `on_step`."""
    x, y = data()

    def run(x, **more):
        settings = {"num_classes": 3, "seed": 1, "epochs": 2, "batch_size": 16}
        return training.train(Smooth(), x, y, progress=False, **settings | more)

    found = run(x, augment=lambda key, x: 0.5 * x)
    assert_same(found.variables, run(0.5 * x).variables)
    with pytest.raises(InputError, match="augment x beforehand"):
        run(x, augment=lambda key, x: x, on_step=print)
