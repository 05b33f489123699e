"""Gradients of a mean loss by batches, also where a loss depends on batch-mates."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import gradients
from analysis.contributions import contributions
from analysis.dynamics import Recorder, make_loss_fn
from analysis.gradients import descent
from fssd_jax import InputError, make_feature_fn
from fssd_jax.data.pipeline import Batch
from tests.analysis.following import Normed, X, Y, start
from tests.conftest import Smooth


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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_sum_over_many_batches_is_none_in_16_bits(dtype):
    """It would end where one batch is less than a last digit of it."""
    x = np.random.default_rng(0).uniform(0.5, 1, (3000, 2)).astype(np.float32)

    def loss_fn(variables, x, y):
        del y
        return x @ variables["params"]["w"].astype(jnp.float32)

    variables = {"params": {"w": jnp.ones(2, dtype)}}
    found = descent(loss_fn, variables, x, np.zeros(3000, int), 2)["params"]["w"]
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float64(found), -x.mean(0), rtol=0.005)


@pytest.mark.parametrize("width", [1, 3])
def test_targets_may_have_axes(width):
    """Of a regression: beside images no labels have them."""
    t = np.random.default_rng(0).normal(size=(len(X), width)).astype(np.float32)
    model, variables = Smooth(), start(Smooth())

    def loss_fn(variables, x, t):
        return ((model.apply(variables, x)[:, :width] - t) ** 2).sum(-1)

    found = descent(loss_fn, variables, X, t, 5)
    expected = jax.grad(lambda v: loss_fn(v, X, t).mean())(variables)
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, -e, rtol=1e-4, atol=1e-5),
        *(found["params"], expected["params"]),
    )
    recorder = Recorder(make_feature_fn(model), loss_fn, {"noise": X[:5]}, [0])
    recorder(0, variables, variables, X, t)
    assert len(recorder.records) == 1


PER_IMAGE = make_loss_fn(Smooth())
OTHER_LOSSES = {
    "()": lambda *of: PER_IMAGE(*of).mean(),
    "(22, 1)": lambda *of: PER_IMAGE(*of)[:, None],  # which a mask [22] would make 22²
    "(11,)": lambda *of: PER_IMAGE(*of)[::2],
}


@pytest.mark.parametrize("shape", OTHER_LOSSES)
def test_losses_that_are_not_one_of_each_example_are_told(shape):
    variables, loss_fn = start(Smooth()), OTHER_LOSSES[shape]
    message = re.escape(f"a batch of 22 gave losses of shape {shape}, expected (22,)")
    feature_fn = make_feature_fn(Smooth())
    with pytest.raises(InputError, match=message):
        descent(loss_fn, variables, X[:22], Y[:22], 22)
    with pytest.raises(InputError, match="without a mean or a sum"):  # padded
        descent(loss_fn, variables, X[:5], Y[:5])
    with pytest.raises(InputError, match=message):
        contributions(
            *(feature_fn, loss_fn, variables, "logits"),
            *(X[:1], np.ones((1, 3), np.float32), X[:22], Y[:22], 0.1),
        )


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
