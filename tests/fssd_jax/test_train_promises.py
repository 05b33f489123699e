"""What training promises: whose folder it is, whose arrays, what comes in which order,
and what is compiled."""

import shutil
import subprocess
import sys
import threading
import time
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from optax import contrib

from fssd_jax import InputError, checkpoint, losses, recipes
from fssd_jax.train import train
from tests.conftest import Smooth
from tests.fssd_jax.test_train import assert_same, data, folders

X, Y = data()


def adam(epochs, steps):
    return optax.adam(0.01)


def slower(epochs, steps):
    return optax.adam(0.001)


def in_state(epochs, steps):
    """The rate is an array in the optimiser's state, not part of the program."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.001)


def in_state_faster(epochs, steps):
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.01)


def run(folder=None, x=X, y=Y, **changes):
    settings = {"num_classes": 3, "seed": 1, "epochs": 2, "batch_size": 32}
    settings |= {"recipe": adam, "progress": False, "model": Smooth()}
    settings |= changes
    return train(settings.pop("model"), x, y, folder=folder, **settings)


# ---- a folder belongs to one run ----------------------------------------------------

OUTLIERS = np.random.default_rng(1).uniform(size=(20, 4, 4, 1)).astype(np.float32)


class Wider(Smooth):
    """Of the same parameters, but another function."""

    @nn.compact
    def __call__(self, x, train=False):
        return 2 * Smooth.__call__(self, x)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)


CHANGES = {
    "seed": {"seed": 2},
    "batch_size": {"batch_size": 16},
    "epochs": {"epochs": 3},
    "images": {"x": X[::-1].copy()},
    "labels": {"y": np.roll(Y, 1)},
    "outliers": {"outliers": OUTLIERS},
    "the initial weights": {"initial": Smooth().init(jax.random.key(7), X[:1])},
    "the compiled step": {"recipe": slower},
    "snapshots": {"snapshots": (1,)},
    "the compiled step ": {"loss": losses.squared},
    "the compiled step  ": {"augment": lambda key, x: x[:, ::-1]},
    "the compiled step   ": {"model": Wider()},
    "the compiled step    ": {"loss": lambda z, y: losses.cross_entropy(z[::-1], y)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_runs_weights_are_refused(finished, what):
    folder, _ = finished
    with pytest.raises(InputError, match=rf"another run.*{what.strip()}.*delete"):
        run(folder, **CHANGES[what])


def test_a_rate_in_the_optimisers_state_decides_too(tmp_path):
    run(tmp_path, recipe=in_state)
    with pytest.raises(InputError, match="the initial optimiser state"):
        run(tmp_path, recipe=in_state_faster)


def test_folders_of_yours_are_left_alone(tmp_path):
    (tmp_path / "epoch-of-mine").mkdir()
    (tmp_path / "epoch-00001.orbax-checkpoint-tmp-7").mkdir()  # of a killed run
    run(tmp_path)
    assert folders(tmp_path) == ["epoch-00002", "epoch-of-mine", "initial"]


def test_the_same_run_is_taken_and_nothing_is_trained(finished):
    folder, found = finished
    assert_same(run(folder, save_every=2, progress=True), found)
    seen = []
    assert_same(run(folder, on_step=lambda *step: seen.append(step)), found)
    assert seen == []


def test_what_another_run_left_behind_is_not_taken(finished, tmp_path):
    """`initial/` alone would give a wrong F_0, and every displacement with it."""
    folder, _ = finished
    for name in ("initial", "epoch-00002"):
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(folder / name, tmp_path / name)
        with pytest.raises(InputError, match="record, which is missing"):
            run(tmp_path, seed=2)
    shutil.copy(folder / "run.json", tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="record, which is damaged"):
        run(tmp_path)


def test_constants_of_the_step_are_looked_at():
    """They do not print with the program."""
    told = []
    for shift in (0.0, 1.0, 0.0):
        constant = np.full((300, 300), shift, np.float32)
        traced = jax.jit(lambda x, c=constant: x + c).trace(constant)
        told.append(checkpoint._described(traced.jaxpr))
    assert told[0] == told[2] != told[1]


def test_a_second_process_waits_for_the_first(tmp_path):
    """Together they would remove each other's checkpoints."""
    entered = threading.Event()

    def second():
        run(tmp_path)
        entered.set()

    with checkpoint.alone(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.5)
        assert folders(tmp_path) == []
    thread.join()
    assert folders(tmp_path) == ["epoch-00002", "initial"]


KILLED = """
import sys, time
from pathlib import Path
from fssd_jax import checkpoint
with checkpoint.alone(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        child.kill()
    start = time.monotonic()
    with checkpoint.alone(tmp_path):
        assert time.monotonic() - start < 5


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*choose another folder"):
        run(tmp_path / "file" / "below")


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


def test_another_order_of_the_images_decides(finished):
    """As by another implementation of JAX's random numbers."""
    folder, _ = finished
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        with pytest.raises(InputError, match=r"first order of the images|initial"):
            run(folder)


def test_a_folder_may_be_text(finished):
    folder, found = finished
    assert_same(run(str(folder)), found)
