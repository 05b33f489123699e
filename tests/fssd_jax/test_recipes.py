"""Rates, decay and clipping, against PyTorch's optimisers and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fssd_jax import recipes
from tests.fssd_jax import references


@pytest.mark.parametrize("schedule", references.SCHEDULES)
def test_steps_are_those_of_torch_sgd(schedule, reference):
    expected = reference("sgd")[schedule]
    recipe, epochs = schedule.split()
    with jax.enable_x64(True):
        optimiser = getattr(recipes, recipe)(int(epochs), 2)
        ours = jnp.asarray([1.0, -2.0])
        state = optimiser.init(ours)
        update = jax.jit(optimiser.update)
        assert len(expected) == 2 * int(epochs)
        for step, theirs in enumerate(expected):
            gradient = jnp.asarray(references.gradient(step))
            updates, state = update(gradient, state, ours)
            ours = optax.apply_updates(ours, updates)
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_a_short_training_has_all_drops():
    """In two epochs of 100 steps the rate falls after 86 and 143."""
    optimiser = recipes.cifar(2, 100)
    rates, params = [], jnp.zeros(1)
    state = optimiser.init(params)
    update = jax.jit(optimiser.update)
    for _ in range(200):
        # Of a constant gradient the momentum settles at ten times the rate.
        updates, state = update(jnp.ones(1), state, params)
        rates.append(-float(updates[0]))
    settled = [rates[i] for i in (84, 141, 199)]
    np.testing.assert_allclose(settled, [1.0, 0.1, 0.01], rtol=0.01)
    assert rates[85] > 0.9 > 0.2 > rates[86]


def test_the_lstms_clips():
    """A gradient of any length beyond 1 moves as that of length 1 does."""
    optimiser = recipes.lstm(3, 5)

    def after(second):
        # Adam's first step is the sign of the gradient alone, whatever its length.
        params = jnp.zeros(2)
        state = optimiser.init(params)
        for gradient in ([0.6, 0.8], second):
            updates, state = optimiser.update(jnp.asarray(gradient), state, params)
            params = params + updates
        return params

    np.testing.assert_allclose(after([30.0, -40.0]), after([0.6, -0.8]), rtol=1e-5)
    assert not np.allclose(after([0.3, -0.4]), after([0.6, -0.8]), rtol=1e-2)


def test_the_lstms_rate_falls_along_a_cosine():
    """Of a gradient that stays, each step of Adam is its rate long."""
    optimiser, gradient = recipes.lstm(3, 5), jnp.asarray([0.5])
    state, found = optimiser.init(gradient), []
    for _ in range(15):
        updates, state = optimiser.update(gradient, state, gradient)
        found.append(-float(updates[0]))
    expected = 2e-3 * (1 + np.cos(np.pi * np.arange(15) / 15))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
