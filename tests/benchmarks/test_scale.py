"""What XLA counts is what the layers' formulas say; and the bounds are by hand."""

import json
from functools import partial

import numpy as np
import pytest

from benchmarks import counted, scale
from benchmarks.networks import CASES
from fssd_jax import models

LENET = 2 * (26**2 * 9 * 32 + 24**2 * 9 * 32 * 64 + 9216 * 128 + 128 * 10)


def test_lenet_does_what_its_layers_say():
    of, _ = counted.cost(CASES["LeNet"], "scoring", False)
    np.testing.assert_allclose(of.each["operations"], LENET, rtol=0.03)
    assert of.fixed["operations"] < 0.01 * LENET


def test_a_training_step_has_the_gradients_of_weights_and_inputs():
    of, weights = counted.cost(CASES["LeNet"], "training", False)
    of_first = 2 * 26**2 * 9 * 32  # whose input needs no gradient
    np.testing.assert_allclose(of.each["operations"], 3 * LENET - of_first, rtol=0.03)
    assert 5 * weights < of.fixed["operations"] < 20 * weights  # of Adadelta


@pytest.mark.slow  # compiled six times
def test_sequences_cost_what_their_length_says():
    hidden, length = 32, 100
    case = CASES["BiLSTM, genomes"]._replace(
        build=partial(models.BiLSTM, hidden=hidden, positions=(1, 2, 3)),
        shape=(length, 4),
        narrow={},
    )
    found, _ = counted.cost(case, "scoring", False)
    inputs = 4 + 2 * hidden  # of both layers
    products = 2 * 2 * length * (inputs + 2 * hidden) * 4 * hidden
    assert products < found.each["operations"] < 1.15 * products  # and the gates


HLO = """
%fused (p: f32[2]) -> f32[2] {
  ROOT %a = f32[2] add(%p, %p)
}

%body (t: (s32[], f32[2])) -> (s32[], f32[2]) {
  %f = f32[2] fusion(%t), kind=kLoop, calls=%fused
  %d = f32[2] dot(%f, %f)
  ROOT %t.1 = (s32[], f32[2]) tuple(%d, %f)
}

%inner (q: f32[2]) -> f32[2] {
  ROOT %c = f32[2] convolution(%q, %q)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %w = (s32[], f32[2]) while(%x), condition=%no, body=%body, \
backend_config={"known_trip_count":{"n":"250"}}
  %e = f32[2] call(%x), to_apply=%inner
  %b = f32[2] bitcast(%e)
  ROOT %s = f32[2] reduce(%b, %b), to_apply=%fused
}
"""


def test_kernels_of_a_loop_count_each_time():
    assert counted.kernels_of(HLO) == 250 * 2 + 1 + 1


def test_a_step_is_bound_by_what_takes_longest():
    fixed = {"operations": 1e12, "traffic": 2e9, "held": 0}
    of = counted.Cost(fixed, {"operations": 1e10, "traffic": 1e8, "held": 0}, 50)
    device = scale.Device("x", 1e15, 1e12, 1e11, 1e10, 8)
    task = scale.TASKS["D ImageNet, ResNet-34"]._replace(batch=64)
    bounds = partial(scale.times, task, of, 8e7, device, 0.5)
    assert bounds(1) == {
        "operations": pytest.approx((1e12 + 64e10) / 5e14),
        "memory": pytest.approx((2e9 + 64e8) / 2 / 5e11),
        "kernels": pytest.approx(50 * scale.KERNEL),
        "links": 0,
    }
    # Around a ring, once to sum and once to spread.
    assert bounds(8)["links"] == pytest.approx(2 * 8e7 * 7 / 8 / 1e11)
    assert bounds(16)["links"] == pytest.approx(2 * 8e7 * 15 / 16 / 1e10)
    assert bounds(16)["operations"] == pytest.approx((1e12 + 4e10) / 5e14)


def test_main(tmp_path, monkeypatch, capsys):
    name = "A FMNIST, LeNet"
    monkeypatch.setattr(scale, "TASKS", {name: scale.TASKS[name]})
    each = {"operations": 7e9, "traffic": 0, "held": 5e5}
    of = counted.Cost({"operations": 3e6, "traffic": 0, "held": 2e6}, each, 0)
    monkeypatch.setattr(scale, "cost", lambda *_: (of, 2_000_000))
    assert scale.main(["--tiny", "--out", str(tmp_path), "--share", "0.5"]) == 0
    found = json.loads((tmp_path / "benchmarks" / "scale.json").read_text())
    task = found["tasks"][name]
    one = task["training"]["1"]
    steps = 14 * 937
    hours = steps * (3e6 + 64 * 7e9) / (0.5 * 989.4e12) / 3600
    assert (one["bound"], one["hours"]) == ("operations", pytest.approx(hours))
    assert one["images_per_second"] == pytest.approx(steps * 64 / hours / 3600)
    assert task["training"]["8"]["bytes_a_device"] == 2e6 + 8 * 5e5
    assert task["scoring"]["test"] == 20_000 * 7e9
    assert "GFLOP" in (tmp_path / "benchmarks" / "scale.md").read_text()
    assert "2.0 M" in capsys.readouterr().out
