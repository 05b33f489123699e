"""The tiny preset, on the embedded digits; its numbers against the definitions."""

import json

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from experiments import kernel_forms, kernel_regression
from experiments.kernel_forms import compare, relative_error


def main(tmp_path, *args):
    fixed = ["--preset", "tiny", "--benchmark", "digits", "--out", str(tmp_path)]
    return kernel_regression.main([*fixed, *args])


@pytest.mark.parametrize(
    ("network", "widths"), [("perceptron", ["16", "32"]), ("convnet", ["2"])]
)
def test_tiny(tmp_path, network, widths, monkeypatch):
    args = ["--network", network, "--widths", *widths]
    assert main(tmp_path, *args) == 0
    (path,) = (tmp_path / "kernel_regression").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    scores = np.load(path / "scores.npz")
    assert list(facts["widths"]) == widths
    for width, of_width in facts["widths"].items():
        for k, (layer, of) in enumerate(of_width["layers"].items()):
            fssd, frozen = (scores[f"{width}/{n}"][:, k] for n in ("fssd", "frozen"))
            inside = np.repeat([1, 0], len(fssd) // 2)
            assert of["auroc_fssd"] == pytest.approx(roc_auc_score(inside, fssd))
            assert of["pearson_frozen"] == pytest.approx(pearsonr(fssd, frozen)[0])
            assert of["spearman_frozen"] == pytest.approx(spearmanr(fssd, frozen)[0])
            shares = [of[f"{t}_share"] for t in ("moved", "cross", "offset")]
            assert sum(shares) == pytest.approx(1, abs=1e-4)
            # Along the step the kernel is integrated better than from its start.
            assert of["relative_error_quadrature"] < of["relative_error_path"] < 0.2
            assert of["relative_error_path"] < of["relative_error_frozen"]
            # The first layer's is that of the gates of relu, which may all stay.
            assert of["kernel_drift"] > 0 or layer == "fc1"
            assert "auroc_infinite" not in of, layer
    for name in ("forms", "width", "detectors"):
        assert (path / f"{name}.png").stat().st_size > 1000
    # Run again, nothing is trained again.
    monkeypatch.setattr(kernel_forms, "follow", None)
    assert main(tmp_path, *args) == 0


def test_infinite_width_is_told_of_the_logits(tmp_path):
    pytest.importorskip("analysis.neural_tangents_compat")
    assert main(tmp_path, "--loss", "squared", "--widths", "8", "--nodes", "0") == 0
    (path,) = (tmp_path / "kernel_regression").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    layers = facts["widths"]["8"]["layers"]
    assert 0 <= layers["logits"]["auroc_infinite"] <= 1
    assert "auroc_infinite" not in layers["fc1"]
    assert "relative_error_quadrature" not in layers["fc1"]


def test_several_seeds_are_one_table(tmp_path, capsys):
    args = ["--widths", "4", "--nodes", "0", "--seeds", "0", "1", "--steps", "2"]
    assert main(tmp_path, *args) == 0
    assert len(list((tmp_path / "kernel_regression").iterdir())) == 2
    assert "seed 0, 1" in capsys.readouterr().out


def test_comparisons():
    rng = np.random.default_rng(0)
    fssd = rng.uniform(size=40)
    found = compare({"fssd": fssd, "displacement": fssd**3, "path": 2 * fssd})
    assert found["pearson_path"] == pytest.approx(1)
    assert found["spearman_path_displacement"] == pytest.approx(1)
    assert found["pearson_path_displacement"] < 0.999
    assert relative_error(np.array([[3.0, 4.0]]), np.array([[3.0, 0.0]])) == 4 / 3


@pytest.mark.parametrize("args", [["--widths", "0"], ["--steps", "0"], ["--rate", "0"]])
def test_mistakes_are_one_line(tmp_path, capsys, args):
    assert main(tmp_path, *args) == 1
    assert args[0] in capsys.readouterr().err
