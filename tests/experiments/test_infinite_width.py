"""On the embedded digits, for seconds."""

import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from sklearn.metrics import roc_auc_score

pytest.importorskip("analysis.neural_tangents_compat")

from analysis.infinite_width import centred_one_hot, kernels
from analysis.ntk_networks import Perceptron
from experiments import infinite_width
from experiments.kernel_study.setting import draw
from fssd_jax.data.benchmarks import load_benchmark
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


def test_it_runs(tmp_path, capsys):
    args = ["--benchmark", "digits", "--train", "30", "--points", "20", "--out"]
    times = ["--times", "1", "inf", "--seeds", "0", "1"]
    assert infinite_width.main([*args, str(tmp_path), *times]) == 0
    (path,) = (tmp_path / "infinite_width").iterdir()
    found = json.loads((path / "metrics.json").read_text())["auroc"]
    flat = flatten_dict(found, sep="/")
    assert len(flat) == 2 * (3 * 2 + 1) + 5
    assert set(found["perceptron"]["movement"]) == {"1", "inf"}
    inside = np.repeat([1, 0], 20)
    with np.load(path / "scores.npz") as scores:
        assert set(scores) == set(flat)
        for name, aurocs in flat.items():
            expected = [roc_auc_score(inside, of_seed) for of_seed in scores[name]]
            assert aurocs == pytest.approx(expected), name
        for twin in ("perceptron", "strided"):
            # E‖Δ‖² has the labels' part and another.
            assert np.all(scores[f"{twin}/movement/1"] > scores[f"{twin}/labels/1"])
            np.testing.assert_allclose(
                scores[f"{twin}/relative/inf"] * 5 * scores[f"{twin}/initial"],
                scores[f"{twin}/movement/inf"],
                rtol=1e-6,
            )
        # At the end, the labels' part is kernel regression without a ridge.
        benchmark = load_benchmark("digits")
        data = draw(benchmark, 1, train=30, points=20, noise=1)
        network = Perceptron(1, 5, benchmark.mean, benchmark.std)
        targets = centred_one_hot(data.y, 5)
        weights = np.linalg.solve(kernels(network, data.x).ntk, targets)
        moved = kernels(network, data.points, data.x).ntk @ weights
        np.testing.assert_allclose(
            scores["perceptron/labels/inf"][1], np.square(moved).sum(axis=1), rtol=1e-5
        )
    told = recorded(path)
    for seed in (0, 1):
        relative = found["strided"]["relative"]["inf"][seed]
        at = {"network": "strided", "method": "relative", "condition": "ηt = inf"}
        assert told(seed=seed, **at) == [(relative, None, None)]
        near = found["nearest"][seed]
        at = {"method": "control: nearest in pixels", "network": None}
        assert told(seed=seed, **at) == [(near, None, None)]
    assert len(told()) == 2 * len(flat)
    assert np.ptp(found["nearest"]) > 0  # other images, other numbers
    table = (path / "metrics.md").read_text()
    assert "ηt = inf" in table
    assert (path / "times.png").stat().st_size > 1000
    assert "control: nearest training image" in table
    assert_it_fits(capsys.readouterr().out, ["score", "ηt = 1", "strided, E‖Δ‖²"])


def test_many_times_are_still_a_table(capsys):
    """Of files all, of the screen as many as it holds."""
    times = tuple(10.0**k for k in range(9))
    of_time = {f"{time:g}": [0.5, 0.6] for time in times}
    twin = dict.fromkeys(infinite_width.MEASURES, of_time) | {"initial": [0.1, 0.2]}
    auroc = {"perceptron": twin, "strided": twin, "nearest": [1.0, 0.9]}
    auroc |= {"brightness": [0.4, 0.3], "rbf_regression": {"0.25": [0.2, 0.1]}}
    facts = {"benchmark": "digits", "train": 30, "points": 20, "seeds": [0, 1]}
    sheet = infinite_width.to_sheet(facts | {"auroc": auroc}, times)
    assert len(sheet.headings) == 10
    infinite_width.results.sheets.show([sheet])
    cells = [f"ηt = {time:g}" for time in times[: infinite_width.TIMES_SHOWN]]
    assert_it_fits(capsys.readouterr().out, [*cells, "55.0 ± 7.1", "15.0 ± 7.1"])


def test_mistakes_are_one_line(tmp_path, capsys):
    args = ["--out", str(tmp_path), "--benchmark", "digits"]
    assert infinite_width.main([*args, "--points", "1"]) == 1
    assert "--points" in capsys.readouterr().err
    assert infinite_width.main([*args, "--times", "-1"]) == 1
    assert "--times" in capsys.readouterr().err
