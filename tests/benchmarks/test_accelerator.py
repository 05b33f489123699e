"""The whole script at tiny sizes, on whatever device there is, without PyTorch."""

import json
import re
from collections import OrderedDict
from functools import partial

import jax
import numpy as np
import pytest

import fssd_jax
from benchmarks import (
    accelerator,
    accelerator_tables,
    beside_torch,
    growth,
    on_device,
)
from fssd_jax import fssd
from fssd_jax.checks import InputError
from fssd_jax.models import LeNet

# In a compiled program's text, what waits for the host or tells it something.
HOST = re.compile(r'custom_call_target="[^"]*callback| (outfeed|infeed|send|recv)\(')


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv(accelerator.SHARE, "0.5")
    monkeypatch.setattr(beside_torch, "find_spec", lambda name: None)

    def run(*args):
        status = accelerator.main(["--tiny", *args, "--out", str(tmp_path)])
        found = (tmp_path / "benchmarks" / "accelerator.json").read_text()
        told = (tmp_path / "benchmarks" / "accelerator.md").read_text()
        return status, json.loads(found), told

    return run


def test_tiny(run):
    status, found, told = run("--networks", "LeNet")
    assert status == 0
    assert list(found["networks"]["LeNet"]) == list(accelerator.TASKS)
    for task, of in found["networks"]["LeNet"].items():
        assert of["best"] == 8, task
        assert len(of["host"]["seconds"]["ours"]) == 1, task
        assert "failed" not in {**of, **of["batches"]}, task
    assert "transfers" in found["networks"]["LeNet"]["sweep"]
    for task, of in found["networks"]["LeNet"].items():
        counted = of["batches"]["8"]["flops"] / 8
        assert of["needed"] <= counted < 1.05 * of["needed"], task
    assert "not run" in told  # PyTorch
    assert "LeNet: sweep over 21 ε" in told


@pytest.mark.accelerator
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no guard of it on a CPU")
def test_a_sweep_waits_for_nothing():
    """What is sent to the host is sent at its end."""
    assert on_device.transfers("LeNet", 8)["device to host"] == "none"


def tells_the_host(x):
    jax.debug.callback(lambda total: None, x.sum())
    return x


@pytest.mark.parametrize(
    ("last", "clean"),
    [(lambda f: f, True), (tells_the_host, False), (np.asarray, None)],
)
def test_a_sweep_is_one_program_that_asks_the_host_nothing(last, clean):
    """On a CPU, too, where a guard of transfers lets everything pass.

    None: it cannot even be traced.
    """

    network = fssd_jax.make_feature_fn(LeNet())

    def feature_fn(variables, x):
        features = network(variables, x)
        return OrderedDict((name, last(f)) for name, f in features.items())

    arguments = growth.arguments(LeNet(), growth.of_shape(2, 12, 12, 1))
    swept = jax.jit(partial(fssd.sweep, feature_fn))
    if clean is None:
        with pytest.raises((jax.errors.TracerArrayConversionError, InputError)):
            swept.lower(*arguments)
        return
    text = swept.lower(*arguments).compile().as_text()
    assert "convolution" in text
    assert (HOST.search(text) is None) == clean


def test_when_the_time_is_over_nothing_is_begun(run):
    """Not the ceilings either; what was left out is told."""
    status, found, told = run("--networks", "LeNet", "--minutes", "1e-9")
    assert status == 0
    assert found["networks"] == {}
    left_out = [f"LeNet, {task}" for task in accelerator.TASKS]
    assert found["not run"] == ["ceilings", *left_out]
    assert "minutes were over before" in told
    assert "LeNet, plain" in told


def test_what_fails_is_told_and_the_rest_is_done(run, monkeypatch):
    def timed(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED: no memory")

    monkeypatch.setattr(accelerator, "_timed", timed)
    status, _, told = run("--networks", "LeNet", "--tasks", "plain")
    assert status == 0  # larger batches may not fit
    assert "out of memory" in told
    monkeypatch.setattr(accelerator, "_timed", lambda *args: 1 / 0)
    status, _, told = run("--networks", "LeNet", "--tasks", "plain")
    assert status == 1
    assert "ZeroDivisionError" in told


def test_differences():
    """Scores [image, layer]: in the second one is off, and two change ranks."""
    exact = np.array([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    found = exact + np.array([[0, 0], [0, 1.5], [0, 0], [0, 0]])
    of = on_device.differences(found, exact)
    assert of["difference"] == 0.75
    assert of["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # Σd² = 2, n = 4


@pytest.mark.parametrize("found", [None, [], {}, {"flops": -1.0}, {"flops": 0.0}])
def test_a_backend_that_does_not_tell(found):
    class Program:
        def cost_analysis(self):
            return found

    assert on_device.cost(Program(), "flops") is None


def test_a_program_is_bound_by_the_ceiling_that_is_nearer():
    """Ten operations a byte where the ridge lies at five, then at twenty."""
    batches = {"2": {"seconds": [2.0], "flops": 50.0, "bytes": 10.0}}
    of = {"best": 2, "batches": batches, "needed": 50}  # an image
    cells = accelerator_tables._bound(of, {"float32": 100.0, "bytes": 20.0})
    assert cells[2:] == ["10.0", "operations", "50%", "0.500"]
    cells = accelerator_tables._bound(of, {"float32": 200.0, "bytes": 10.0})
    assert cells[2:] == ["10.0", "bytes", "50%", "0.500"]


def test_a_wrong_name(tmp_path):
    with pytest.raises(InputError, match="choose from"):
        accelerator.run(accelerator.Config(tasks=("training ",), out=tmp_path))
