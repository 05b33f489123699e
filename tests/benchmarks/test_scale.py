"""What XLA counts is what the layers' formulas say; and the bounds are by hand."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from benchmarks import scale
from benchmarks.networks import CASES
from fssd_jax import models

LENET = 2 * (26**2 * 9 * 32 + 24**2 * 9 * 32 * 64 + 9216 * 128 + 128 * 10)


def test_lenet_does_what_its_layers_say():
    of, _ = scale.cost(CASES["LeNet"], "scoring", False)
    np.testing.assert_allclose(of.each_operation, LENET, rtol=0.03)
    assert of.operations < 0.01 * LENET


def test_a_training_step_has_the_gradients_of_weights_and_inputs():
    of, params = scale.cost(CASES["LeNet"], "training", False)
    of_first = 2 * 26**2 * 9 * 32  # whose input needs no gradient
    np.testing.assert_allclose(of.each_operation, 3 * LENET - of_first, rtol=0.03)
    weights = sum(np.prod(a.shape) for a in jax.tree.leaves(params))
    assert 5 * weights < of.operations < 20 * weights  # of Adadelta


@pytest.mark.slow  # compiled six times
def test_sequences_cost_what_their_length_says():
    hidden, length = 32, 100
    case = CASES["BiLSTM, genomes"]._replace(
        build=partial(models.BiLSTM, hidden=hidden, positions=(1, 2, 3)),
        shape=(length, 4),
        narrow={},
    )
    found, _ = scale.cost(case, "scoring", False)
    inputs = 4 + 2 * hidden  # of both layers
    products = 2 * 2 * length * (inputs + 2 * hidden) * 4 * hidden
    assert products < found.each_operation < 1.15 * products  # and the gates


def test_the_gradients_go_around_a_ring():
    of = scale.Cost(1e12, 1e10, 0, 0)
    device = scale.Device("x", 1e15, 1, 1e11, 1e10, 8)
    task = scale.TASKS["D ImageNet, ResNet-34"]._replace(batch=64)
    bounds = partial(scale.times, task, of, 8e7, device, 0.5)
    assert bounds(1) == {"operations": pytest.approx((1e12 + 64e10) / 5e14), "links": 0}
    assert bounds(8)["links"] == pytest.approx(2 * 8e7 * 7 / 8 / 1e11)
    assert bounds(16)["links"] == pytest.approx(2 * 8e7 * 15 / 16 / 1e10)
    assert bounds(16)["operations"] == pytest.approx((1e12 + 4e10) / 5e14)


def test_main(tmp_path, monkeypatch, capsys):
    name = "A FMNIST, LeNet"
    monkeypatch.setattr(scale, "TASKS", {name: scale.TASKS[name]})
    shapes = {"w": jax.ShapeDtypeStruct((1000, 2000), np.float32)}
    of = scale.Cost(3e6, 7e7, 2e6, 5e5)
    monkeypatch.setattr(scale, "cost", lambda *_: (of, shapes))
    assert scale.main(["--tiny", "--out", str(tmp_path), "--share", "0.5"]) == 0
    found = json.loads((tmp_path / "benchmarks" / "scale.json").read_text())
    task = found["tasks"][name]
    one = task["training"]["1"]
    hours = 14 * 937 * (3e6 + 64 * 7e7) / (0.5 * 989.4e12) / 3600
    assert (one["bound"], one["hours"]) == ("operations", pytest.approx(hours))
    assert one["images_per_second"] == pytest.approx(14 * 937 * 64 / hours / 3600)
    assert task["training"]["8"]["bytes_a_device"] == 2e6 + 8 * 5e5
    assert task["scoring"]["test"] == 20_000 * 7e7
    assert "GFLOP" in (tmp_path / "benchmarks" / "scale.md").read_text()
    assert "2.0 M" in capsys.readouterr().out
