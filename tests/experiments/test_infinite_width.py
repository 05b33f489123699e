"""On the embedded digits, for seconds."""

import json

import numpy as np
import pytest

pytest.importorskip("analysis.neural_tangents_compat")

from experiments import infinite_width


def test_it_runs(tmp_path):
    args = ["--benchmark", "digits", "--train", "30", "--points", "20", "--out"]
    times = ["--times", "1", "inf", "--seeds", "0", "1"]
    assert infinite_width.main([*args, str(tmp_path), *times]) == 0
    (path,) = (tmp_path / "infinite_width").iterdir()
    found = json.loads((path / "metrics.json").read_text())["auroc"]
    assert len(found) == 2 * (3 * 2 + 1) + 5
    assert all(0 <= a <= 1 for of in found.values() for a in of)
    assert np.ptp(found["nearest training image"]) > 0  # other images, other numbers
    table = (path / "metrics.md").read_text()
    assert "ηt = inf" in table
    assert "control: nearest training image" in table


def test_mistakes_are_one_line(tmp_path, capsys):
    args = ["--out", str(tmp_path), "--benchmark", "digits"]
    assert infinite_width.main([*args, "--points", "1"]) == 1
    assert "--points" in capsys.readouterr().err
    assert infinite_width.main([*args, "--times", "-1"]) == 1
    assert "times" in capsys.readouterr().err
