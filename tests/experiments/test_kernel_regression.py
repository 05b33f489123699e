"""The tiny preset, on the embedded digits; its numbers against the definitions."""

import json

import numpy as np
import pytest
from experiments.kernel_forms import compare, relative_error
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from experiments import kernel_forms, kernel_regression
from fssd_jax.data import load
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.pipeline import as_float


def main(tmp_path, *args):
    fixed = ["--preset", "tiny", "--benchmark", "digits", "--out", str(tmp_path)]
    fixed += [] if "--rate" in args else ["--rate", "0.1"]
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
            half = len(fssd) // 2
            expected = pearsonr(fssd[half:], frozen[half:])[0]
            assert of["pearson_frozen_ood"] == pytest.approx(expected)
            moved, offset = (
                scores[f"{width}/{n}"][:half, k] ** 2
                for n in ("displacement", "offset")
            )
            cross = scores[f"{width}/cross"][:half, k]
            # FSSD by its own function, not by the sum of its terms.
            square = fssd[:half] ** 2
            np.testing.assert_allclose(moved + cross + offset, square, rtol=1e-3)
            share = moved.sum() / square.sum()
            assert of["moved_share_ind"] == pytest.approx(share, rel=1e-3)
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


@pytest.mark.parametrize("network", ["perceptron", "strided"])
def test_infinite_width_is_told_of_the_logits(tmp_path, network):
    pytest.importorskip("analysis.neural_tangents_compat")
    args = ["--network", network, "--loss", "squared", "--widths", "8"]
    assert main(tmp_path, *args, "--nodes", "0") == 0
    (path,) = (tmp_path / "kernel_regression").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    layers = facts["widths"]["8"]["layers"]
    with np.load(path / "scores.npz") as sizes:
        moved, expected = (sizes[f"8/{n}"][:, -1] for n in ("displacement", "infinite"))
    # The times are the same, though a network so narrow is not the limit.
    assert 0.5 < np.sqrt(np.mean(expected**2) / np.mean(moved**2)) < 2
    error = np.sqrt(np.mean((expected - moved) ** 2) / np.mean(moved**2))
    assert layers["logits"]["relative_error_infinite"] == pytest.approx(error)
    assert "<table>" in (path / "report.html").read_text()
    assert "auroc_infinite" not in layers["fc1"]
    assert "relative_error_quadrature" not in layers["fc1"]


def test_several_seeds_are_one_table(tmp_path, capsys):
    args = ["--widths", "4", "--nodes", "0", "--seeds", "0", "1", "--steps", "2"]
    assert main(tmp_path, *args) == 0
    files = list((tmp_path / "kernel_regression").iterdir())
    assert sum(path.is_dir() for path in files) == 2
    assert sorted(p.suffix for p in files if p.is_file()) == [
        *(".csv", ".json", ".md", ".tex"),
    ]
    assert "seed 0, 1" in capsys.readouterr().out
    # Another rate: nothing is used again.
    parts = set((tmp_path / "scores").iterdir())
    args = ["--widths", "4", "--nodes", "0", "--steps", "2", "--rate", "0.5"]
    assert main(tmp_path, *args) == 0
    assert len(set((tmp_path / "scores").iterdir()) - parts) == 1


def test_both_sets_are_of_one_size():
    """However few images a set has: the digits' test set has 360."""
    preset = kernel_forms.Preset({}, 20, 500, *(1, 10, 5, 2, 2))
    data = kernel_forms.draw(load_benchmark("digits"), preset, 0)
    assert len(data.points) == 720
    test = {image.tobytes() for image in as_float(load("digits", "test").x)}
    inside = [image.tobytes() in test for image in data.points]
    assert all(inside[:360])


def test_comparisons():
    rng = np.random.default_rng(0)
    fssd = rng.uniform(size=40)
    found = compare({"fssd": fssd, "displacement": fssd**3, "path": 2 * fssd})
    assert found["pearson_path"] == pytest.approx(1)
    assert found["spearman_path_displacement"] == pytest.approx(1)
    assert found["pearson_path_displacement"] < 0.999
    gap = np.r_[np.zeros(20), np.ones(20)]  # Simpson: within the sets the sign turns
    slopes = compare({"fssd": 2 * gap + fssd, "path": 2 * gap - fssd,
                      "displacement": fssd, "still": np.ones(40)})  # fmt: skip
    assert slopes["pearson_path"] > 0.5
    assert slopes["pearson_path_ind"] == pytest.approx(-1)
    assert slopes["pearson_still"] is None
    assert relative_error(np.array([[3.0, 4.0]]), np.array([[3.0, 0.0]])) == 4 / 3


@pytest.mark.parametrize(
    "args",
    [
        ["--widths", "0"],
        ["--steps", "0"],
        ["--rate", "0"],
        ["--nodes", "-1"],
        ["--seeds"],
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, args):
    assert main(tmp_path, *args) == 1
    assert args[0] in capsys.readouterr().err
