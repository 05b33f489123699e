"""On the embedded digits, for seconds."""

import json

import numpy as np
import pytest

from experiments import tangent_kernel


def test_it_runs_and_the_movement_adds_up(tmp_path):
    sizes = {"width": 16, "train": 150, "kernel": 20, "steps": 3, "moments": 3}
    sizes |= {"directions": 10, "examples": 2, "rate": 0.1}
    args = ["--benchmark", "digits", "--out", str(tmp_path), "--network", "perceptron"]
    for name, value in sizes.items():
        args += [f"--{name}", str(value)]
    assert tangent_kernel.main(args) == 0
    (path,) = (tmp_path / "tangent_kernel").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    assert facts["contributions"]["largest_relative_error"] < 1e-5
    assert np.all(np.array(facts["contributions"]["needed_for_half"]) >= 1)
    assert list(facts["layers"]) == ["fc1", "fc2", "logits"]
    for of in facts["layers"].values():
        assert of["drift"][0] == 0
        assert of["steps"] == [0, 1, 3]
        assert all(0 <= a <= 1 for a in of["alignment"])
        for when in ("before", "after"):
            assert np.abs(of[when]["shown"][1]).max() <= 1 + 1e-4
            assert of[when]["rbf"]["r2"] <= 1
    for name in ("drift", "rbf", "contributions"):
        assert (path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("args", [["--width", "0"], ["--kernel", "1"]])
def test_mistakes_are_one_line(tmp_path, capsys, args):
    assert tangent_kernel.main(["--out", str(tmp_path), *args]) == 1
    assert args[0] in capsys.readouterr().err
