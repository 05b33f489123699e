"""A folder belongs to one training: what is refused, taken up, waited for."""

import re
import shutil
import subprocess
import sys
import threading
import time

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from fssd_jax import InputError, checkpoint, losses
from tests.conftest import Smooth
from tests.fssd_jax.test_train import assert_same, folders
from tests.fssd_jax.test_train_promises import X, Y, run


def slower(epochs, steps):
    return optax.adam(0.001)


def in_state(epochs, steps):
    """The rate is an array in the optimiser's state, not part of the program."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.001)


def in_state_faster(epochs, steps):
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.01)


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


def test_what_is_advised_for_a_damaged_folder_mends_it_at_once(tmp_path):
    found = run(tmp_path / "run", snapshots=(1,))
    for name in ("snapshot-00001", "epoch-00002", "initial"):
        for file in (tmp_path / "run" / name).rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
        with pytest.raises(InputError, match=r"; delete .*, and train again") as error:
            run(tmp_path / "run", snapshots=(1,))
        (told,) = re.findall("; delete (.*), and train again", str(error.value))
        shutil.rmtree(told)
        assert_same(run(tmp_path / "run", snapshots=(1,)), found)


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


def test_another_order_of_the_images_decides(finished):
    """As by another implementation of JAX's random numbers."""
    folder, _ = finished
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        with pytest.raises(InputError, match=r"first order of the images|initial"):
            run(folder)


def test_a_folder_may_be_text(finished):
    folder, found = finished
    assert_same(run(str(folder)), found)
