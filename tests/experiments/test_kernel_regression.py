"""The tiny preset, on the embedded digits; its numbers against the definitions."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from analysis import kernel_statistics
from analysis.displacement import relative_error
from experiments import kernel_regression
from experiments.harness import records
from experiments.kernel_study import forms, kept
from experiments.kernel_study.forms import compare
from experiments.kernel_study.setting import PRESETS, draw
from fssd_jax.data import load
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.inputs import as_input
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


@pytest.fixture
def undrawn(monkeypatch):
    """To draw takes as long as to measure."""
    monkeypatch.setattr(kernel_regression, "draw_figures", lambda *_: {})


ALIGNMENTS = {
    "kernel alignment": "alignment",
    "floor of kernel alignment": "floor",
    "debiased kernel alignment": "debiased",
    "p": "p",
}


def main(tmp_path, *args):
    fixed = ["--preset", "tiny", "--benchmark", "digits", "--out", str(tmp_path)]
    fixed += [] if "--rate" in args else ["--rate", "0.1"]
    return kernel_regression.main([*fixed, *args])


@pytest.mark.parametrize(
    ("network", "widths"),
    [
        ("perceptron", ["16", "32"]),
        pytest.param("convnet", ["2"], marks=pytest.mark.slow),
    ],
)
def test_tiny(tmp_path, network, widths, monkeypatch, capsys):
    args = ["--network", network, "--widths", *widths]
    assert main(tmp_path, *args) == 0
    (path,) = (tmp_path / "kernel_regression").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    with np.load(path / "scores.npz") as file:
        scores = dict(file)
    assert list(facts["widths"]) == widths
    for width, of_width in facts["widths"].items():
        for k, (layer, of) in enumerate(of_width["layers"].items()):
            sizes = {
                name.removeprefix(f"{width}/"): size[:, k]
                for name, size in scores.items()
                if name.startswith(f"{width}/")
            }
            check_forms(of["forms"], sizes)
            check_shares(of, sizes)
            errors = {
                name: form["relative_error"]
                for name, form in of["forms"].items()
                if "relative_error" in form
            }
            # Along the step the kernel is integrated better than from its start.
            assert errors["quadrature"] < errors["path"] < 0.2
            assert errors["path"] < errors["frozen"]
            assert of["forms"]["frozen"]["form"] == "bottleneck"
            # The first layer's is that of the gates of relu, which may all stay.
            assert of["kernel_drift"] > 0 or layer == "fc1"
            assert "infinite" not in of["forms"], layer
    check_records(path, facts)
    near = scores["nearest_pixels"]
    inside = np.repeat([1, 0], len(near) // 2)
    expected = roc_auc_score(inside, near)
    assert facts["nearest_pixels"]["auroc"] == pytest.approx(expected)
    for name in ("forms", "width", "detectors"):
        assert (path / f"{name}.png").stat().st_size > 1000
    shown = kernel_regression.screen(several=False, infinite=False)
    assert_it_fits(capsys.readouterr().out, shown)
    # Run again, nothing is trained again.
    monkeypatch.setattr(forms, "follow", None)
    monkeypatch.setattr(kernel_regression, "draw_figures", lambda *_: {})
    assert main(tmp_path, *args) == 0


def test_before_is_of_the_first_weights_and_after_of_the_last(smooth):
    """By the trace of J Jᵀ, with explicit Jacobians."""
    feature_fn, initial, _, x = smooth
    final = jax.tree.map(lambda a: 1.5 * a + 0.1, initial)
    y = np.array([0, 1, 0, 1, 2, 2])
    found = SimpleNamespace(feature_fn=feature_fn, initial=initial, final=final)
    preset, data = PRESETS["small"], SimpleNamespace(x=np.asarray(x), y=y)
    told = forms.kernel_drifts(preset, found, data)["logits"]
    kernels = {}
    for when, variables in (("before", initial), ("after", final)):
        parts = jax.tree.leaves(
            jax.jacrev(lambda v: feature_fn(v, x)["logits"])(variables)
        )
        j = np.concatenate([np.reshape(p, (6, 3, -1)) for p in parts], -1)
        kernels[when] = np.einsum("ncp,mcp->nm", j, j)
        aligned = told[f"kernel_alignment_{when}"]
        expected = kernel_statistics.alignment(kernels[when], y)
        assert aligned["alignment"] == pytest.approx(expected, rel=1e-4)
        expected = kernel_statistics.debiased_alignment(kernels[when], y)
        assert aligned["debiased"] == pytest.approx(expected, rel=1e-3)
    cosine = np.vdot(*kernels.values()) / np.prod(
        [np.linalg.norm(k) for k in kernels.values()]
    )
    assert told["kernel_distance"] == pytest.approx(1 - cosine, rel=1e-3)


def check_records(path, facts):
    """They are the nested facts: some of every kind."""
    told = recorded(path)
    sets = {"all": "both", "ind": "in-distribution", "ood": "OoD"}
    for width, of_width in facts["widths"].items():
        at = {"width": int(width), "network": facts["network"], "seed": 0}
        found = told(quantity="accuracy", set="test", **at)
        assert found == [(of_width["test_accuracy"], None, None)]
        for layer, of in of_width["layers"].items():
            at["layer"] = layer
            for key, end in (("shares", ""), ("shares_moving", ", F* moving")):
                for term, shares in of[key].items():
                    for part, share in shares.items():
                        name = f"share of {term}{end}"
                        ((value, *_),) = told(quantity=name, set=sets[part], **at)
                        assert value == share
            for form, of_form in of["forms"].items():
                found = told(quantity="AUROC", method=form, **at)
                assert found == [(of_form["auroc"], *of_form["auroc_ci95"])]
                for part, r in of_form.get("with_fssd", {}).get("spearman", {}).items():
                    name = "spearman with FSSD"
                    found = told(quantity=name, method=form, set=sets[part], **at)
                    assert [value for value, *_ in found] == [r]
            ((error, *_),) = told(quantity="relative error", method="frozen", **at)
            assert error == of["forms"]["frozen"]["relative_error"]
            ((drift, *_),) = told(quantity="kernel drift", **at)
            assert drift == of["kernel_drift"]
            ((distance, *_),) = told(quantity="kernel distance", **at)
            assert distance == of["kernel_distance"]
            for when, step in (("before", 0), ("after", of_width["steps"])):
                aligned = of[f"kernel_alignment_{when}"]
                for name, key in ALIGNMENTS.items():
                    found = told(quantity=name, **{**at, "step": step})
                    assert [value for value, *_ in found] == [aligned[key]], name


def check_forms(told, sizes):
    """metrics.json is of the sizes stored, by scikit-learn and SciPy."""
    assert list(told) == list(sizes)
    half = len(sizes["fssd"]) // 2
    inside = np.repeat([1, 0], half)
    parts = {"all": slice(None), "ind": slice(half), "ood": slice(half, None)}
    for name, size in sizes.items():
        assert told[name]["auroc"] == pytest.approx(roc_auc_score(inside, size))
        for key, other in (
            ("with_fssd", "fssd"),
            ("with_displacement", "displacement"),
        ):
            if key in told[name]:
                for part, chosen in parts.items():
                    pair = size[chosen], sizes[other][chosen]
                    found = {kind: r[part] for kind, r in told[name][key].items()}
                    assert found == {
                        "pearson": pytest.approx(pearsonr(*pair)[0]),
                        "spearman": pytest.approx(spearmanr(*pair)[0]),
                    }
    assert "with_fssd" not in told["fssd"]
    assert "with_displacement" in told["frozen"]


def check_shares(of, sizes):
    """FSSD by its own function, not by the sum of its terms."""
    told, moving = of["shares"], of["shares_moving"]
    half = len(sizes["fssd"]) // 2
    moved, offset = sizes["displacement"] ** 2, sizes["offset"] ** 2
    square = sizes["fssd"] ** 2
    np.testing.assert_allclose(moved + sizes["cross"] + offset, square, rtol=1e-3)
    for name, term in (("moved", moved), ("cross", sizes["cross"]), ("offset", offset)):
        expected = {
            "all": term.sum() / square.sum(),
            "ind": term[:half].sum() / square[:half].sum(),
            "ood": term[half:].sum() / square[half:].sum(),
        }
        assert told[name] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    # With F* that moves, the offset is FSSD before training.
    for part, chosen in {"ind": slice(half), "ood": slice(half, None)}.items():
        total = square[chosen].sum()
        for name, term in (("offset", "untrained"), ("moved", "relative")):
            share = (sizes[term][chosen] ** 2).sum() / total
            assert moving[name][part] == pytest.approx(share, rel=1e-3)
        assert sum(share[part] for share in moving.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "network", ["perceptron", pytest.param("strided", marks=pytest.mark.slow)]
)
def test_infinite_width_is_told_of_the_logits(tmp_path, network, capsys):
    pytest.importorskip("analysis.neural_tangents_compat")
    args = ["--network", network, "--loss", "squared", "--widths", "8"]
    assert main(tmp_path, *args, "--nodes", "0") == 0
    (path,) = (tmp_path / "kernel_regression").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    of_forms = {k: of["forms"] for k, of in facts["widths"]["8"]["layers"].items()}
    with np.load(path / "scores.npz") as sizes:
        moved, expected = (sizes[f"8/{n}"][:, -1] for n in ("displacement", "infinite"))
    # The times are the same, though a network so narrow is not the limit.
    assert 0.5 < np.sqrt(np.mean(expected**2) / np.mean(moved**2)) < 2
    error = np.sqrt(np.mean((expected - moved) ** 2) / np.mean(moved**2))
    told = of_forms["logits"]["infinite"]
    assert told["relative_error"] == pytest.approx(error)
    assert told["auroc"] == pytest.approx(
        roc_auc_score(np.repeat([1, 0], len(expected) // 2), expected)
    )
    assert "<table>" in (path / "report.html").read_text()
    assert "infinite" not in of_forms["fc1"]
    assert "quadrature" not in of_forms["fc1"]
    shown = kernel_regression.screen(several=False, infinite=True)
    assert_it_fits(capsys.readouterr().out, shown)


@pytest.mark.usefixtures("undrawn")
def test_several_seeds_are_one_table(tmp_path, capsys, monkeypatch):
    measured, calls = [], []

    def measure_once(setup, data, seed, width):
        """What is told of one network stands for all: it takes seconds each."""
        calls.append((seed, setup.rate, data.x.sum()))
        if not measured:
            measured.append(forms.measure(setup, data, seed, width))
        return measured[0]

    monkeypatch.setattr(kept, "measure", measure_once)
    args = ["--widths", "4", "--nodes", "0", "--seeds", "0", "1", "--steps", "2"]
    assert main(tmp_path, *args) == 0
    files = list((tmp_path / "kernel_regression").iterdir())
    assert sum(path.is_dir() for path in files) == 2
    (together,) = (p for p in files if p.suffix == ".json")
    assert set(records.read(together).seed) == {0, 1}
    left = sorted(p.suffix for p in files if p.is_file())
    # Two pictures of both.
    assert left == [*(".csv", ".json", ".md"), *2 * [".pdf"], *2 * [".png"], ".tex"]
    printed = capsys.readouterr().out
    assert "seed 0, 1" in printed
    assert printed.count("┏") == 1  # one table of all seeds, and none of each
    lines = printed.splitlines()
    assert_it_fits(
        "\n".join(line for line in lines if not line.startswith("all of them: ")),
        [*kernel_regression.screen(several=True, infinite=False), "±"],
    )
    # Another rate: nothing is used again.
    parts = set((tmp_path / "scores").iterdir())
    args = ["--widths", "4", "--nodes", "0", "--steps", "2", "--rate", "0.5"]
    assert main(tmp_path, *args) == 0
    assert len(set((tmp_path / "scores").iterdir()) - parts) == 1
    assert [call[:2] for call in calls] == [(0, 0.1), (1, 0.1), (0, 0.5)]
    images = [call[2] for call in calls]
    assert images[0] == images[2] != images[1]


def test_both_sets_are_of_one_size():
    """However few images a set has: the digits' test set has 360."""
    data = draw(load_benchmark("digits"), 0, train=20, points=500, noise=5)
    assert len(data.points) == 720
    test = {image.tobytes() for image in as_input(load("digits", "test").x)}
    inside = [image.tobytes() in test for image in data.points]
    assert all(inside[:360])


def test_comparisons():
    rng = np.random.default_rng(0)
    fssd = rng.uniform(size=40)
    found = compare({"fssd": fssd, "displacement": fssd**3, "path": 2 * fssd})
    path = found["path"]
    assert path["with_fssd"]["pearson"]["all"] == pytest.approx(1)
    assert path["with_displacement"]["spearman"]["all"] == pytest.approx(1)
    assert path["with_displacement"]["pearson"]["all"] < 0.999
    gap = np.r_[np.zeros(20), np.ones(20)]  # Simpson: within the sets the sign turns
    slopes = compare({"fssd": 2 * gap + fssd, "path": 2 * gap - fssd,
                      "displacement": fssd, "still": np.ones(40)})  # fmt: skip
    assert slopes["path"]["with_fssd"]["pearson"]["all"] > 0.5
    assert slopes["path"]["with_fssd"]["pearson"]["ind"] == pytest.approx(-1)
    assert slopes["still"]["with_fssd"]["pearson"]["all"] is None
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
