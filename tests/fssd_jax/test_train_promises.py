"""What training promises: whose arrays, what comes in which order, what is compiled."""

import sys
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from optax import contrib

from fssd_jax import InputError, losses, recipes
from fssd_jax.train import train
from tests.conftest import Smooth
from tests.fssd_jax.test_train import assert_same, data

X, Y = data()


def adam(epochs, steps):
    return optax.adam(0.01)


def run(folder=None, x=X, y=Y, **changes):
    settings = {"num_classes": 3, "seed": 1, "epochs": 2, "batch_size": 32}
    settings |= {"recipe": adam, "progress": False, "model": Smooth()}
    settings |= changes
    return train(settings.pop("model"), x, y, folder=folder, **settings)


# ---- arrays that are the caller's ---------------------------------------------------


@pytest.mark.parametrize(
    "optimiser",
    [contrib.prodigy(), contrib.dog(), contrib.mechanize(optax.sgd(0.1))],
    ids=["prodigy", "dog", "mechanize"],
)
def test_optimisers_that_keep_the_first_parameters(optimiser):
    """Their state is an alias of the caller's weights; a step donates its input."""
    initial = Smooth().init(jax.random.key(3), X[:1])
    before = jax.tree.map(np.array, initial)
    steps = []
    found = run(
        recipe=lambda epochs, steps: optimiser,
        initial=initial,
        epochs=1,
        on_step=lambda *step: steps.append(step),
    )
    assert_same(initial, before)
    assert_same(found.initial, before)
    # The same steps by a plain loop, which donates nothing.
    params, state = before["params"], optimiser.init(before["params"])
    gradient = jax.jit(
        jax.grad(lambda p, x, y: losses.cross_entropy(Smooth().apply(p, x), y))
    )
    for *_, x, y in steps:
        slope = gradient({"params": params}, x, y)["params"]
        updates, state = optimiser.update(slope, state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        found.variables["params"],
        params,
    )


# ---- what comes in which order ------------------------------------------------------


def test_order_outliers_and_dropout_keys_are_new_in_every_epoch():
    """Seen in the step itself: images are numbered by their pixels."""
    seen: list[tuple[np.ndarray, bytes]] = []

    def spy(key, x):
        remember = lambda x, key: seen.append((x, bytes(key)))  # noqa: E731
        jax.debug.callback(remember, x[:, 0, 0, 0], jax.random.key_data(key))
        return x

    def numbered(count, start):
        numbers = (start + np.arange(count)) / np.float32(1000)
        return np.tile(numbers[:, None, None, None], (1, 4, 4, 1))

    n, batch, epochs = 96, 32, 3
    run(
        x=numbered(n, 0),
        y=Y[:n],
        outliers=numbered(n, 500),
        augment=spy,
        epochs=epochs,
        batch_size=batch,
    )
    jax.effects_barrier()
    assert len(seen) == epochs * n // batch
    # Three orders of the images, three of the outliers: each a new permutation.
    orders = []
    for rows, first in ((slice(batch), 0), (slice(batch, None), 500)):
        numbers = np.array([1000 * x[rows] for x, _ in seen]).round().astype(int)
        for order in numbers.reshape(epochs, n):
            np.testing.assert_array_equal(np.sort(order), first + np.arange(n))
            orders.append(tuple(order - first))
    assert tuple(range(n)) not in orders
    assert len(set(orders)) == 2 * epochs
    assert len({key for _, key in seen}) == len(seen)


def test_labels_go_with_their_images():
    numbers = np.arange(96) / np.float32(1000)
    steps = []
    run(
        x=np.tile(numbers[:, None, None, None], (1, 4, 4, 1)),
        y=Y[:96],
        on_step=lambda *step: steps.append(step[-2:]),
    )
    for x, y in steps:
        at = (1000 * x[:, 0, 0, 0]).round().astype(int)
        np.testing.assert_array_equal(y, Y[at])


# ---- what is compiled ---------------------------------------------------------------

RATE = 0.1


def global_rate(epochs, steps):
    return optax.sgd(RATE)


class Scaled(Smooth):
    """Reads what is no field of it."""

    factor = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        return self.factor * Smooth.__call__(self, x)


def test_equal_trainings_share_a_compiled_step_and_others_do_not(monkeypatch):
    made = []
    lower = jax.stages.Traced.lower
    monkeypatch.setattr(
        jax.stages.Traced, "lower", lambda t, *a: made.append(t) or lower(t, *a)
    )

    def compiled(**changes):
        before = len(made)
        run(**{"model": Scaled(), "recipe": lambda *_: optax.sgd(0.1)} | changes)
        return len(made) - before

    jax.clear_caches()
    assert compiled() > 0
    assert compiled() == 0  # of another model object and another recipe
    assert compiled(seed=5, x=X[::-1].copy()) == 0
    for other in (
        {"recipe": lambda *_: optax.sgd(0.2)},
        {"recipe": recipes.finetune},
        {"loss": losses.squared},
        {"augment": lambda key, x: 1 - x},
        {"batch_size": 16},
    ):
        assert compiled(**other) > 0
        assert compiled(**other) == 0


def test_nothing_that_a_function_reads_is_stale(monkeypatch, tmp_path):
    """A constant of a module, an attribute of a class: traced anew, not found again."""
    here = sys.modules[__name__]
    settings = {"model": Scaled(), "recipe": global_rate, "epochs": 1}
    first = run(**settings, folder=tmp_path)
    monkeypatch.setattr(here, "RATE", 0.3)
    faster = run(**settings)
    monkeypatch.setattr(Scaled, "factor", 5.0)
    scaled = run(**settings)

    def moved(trained):
        ends = (t["params"]["logits"]["bias"] for t in trained[:2])
        return np.linalg.norm(np.subtract(*ends))

    assert moved(faster) > 2 * moved(first)
    assert abs(moved(scaled) / moved(faster) - 1) > 0.1
    with pytest.raises(InputError, match="the compiled step"):
        run(**settings, folder=tmp_path)
