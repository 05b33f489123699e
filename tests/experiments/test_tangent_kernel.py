"""On the embedded digits, for seconds."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import r2_score, roc_auc_score

from analysis import kernel_statistics, ntk
from experiments import tangent_kernel
from experiments.harness import records
from experiments.kernel_study import tangent
from fssd_jax.data.benchmarks import load_benchmark
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder, metrics.json, scores.npz and what was printed of one small run."""
    out = tmp_path_factory.mktemp("tangent")
    sizes = {"width": 16, "train": 150, "kernel": 20, "steps": 3, "moments": 3}
    sizes |= {"directions": 10, "examples": 2, "rate": 0.1}
    args = ["--benchmark", "digits", "--out", str(out), "--network", "perceptron"]
    for name, value in sizes.items():
        args += [f"--{name}", str(value)]
    assert tangent_kernel.main(args) == 0
    (path,) = (out / "tangent_kernel").iterdir()
    with np.load(path / "scores.npz") as scores:
        arrays = dict(scores)
    return path, json.loads((path / "metrics.json").read_text()), arrays


def test_it_tells_of_every_layer(left, capsys):
    path, facts, _ = left
    assert list(facts["layers"]) == ["fc1", "fc2", "logits"]
    assert facts["steps"] == 3
    for name in ("drift", "rbf", "contributions"):
        assert (path / f"{name}.png").stat().st_size > 1000
    sheet = tangent_kernel.to_sheet([facts])
    tangent_kernel.results.sheets.show([sheet])
    assert sheet.screen is not None
    assert_it_fits(capsys.readouterr().out, (*sheet.screen, "logits"))


SIZES = "--width 16 --train 20 --kernel 4 --steps 1 --moments 2 --examples 1".split()


@pytest.mark.usefixtures("undrawn")
def test_several_seeds_are_one_table_and_none_is_measured_again(
    tmp_path, capsys, monkeypatch
):
    begun = []
    begin = tangent.begin

    def counted(benchmark, seed, **sizes):
        begun.append(seed)
        return begin(benchmark, seed, **sizes)

    monkeypatch.setattr(tangent, "begin", counted)
    args = ["--benchmark", "digits", "--network", "perceptron", *SIZES]
    args += ["--out", str(tmp_path), "--seeds"]
    assert tangent_kernel.main([*args, "0"]) == 0
    assert tangent_kernel.main([*args, "0", "1"]) == 0
    assert begun == [0, 1]
    printed = capsys.readouterr().out
    assert printed.count("┏") == 2  # of the one seed, and of both
    (table,) = (tmp_path / "tangent_kernel").glob("*.md")
    stem = table.with_suffix("")
    assert stem.with_name(f"{stem.name}-drift.png").stat().st_size > 1000
    of_seeds = json.loads(stem.with_suffix(".json").read_text())["runs"]
    assert [facts["seed"] for facts in of_seeds] == [0, 1]
    assert set(records.read(stem.with_suffix(".json")).seed) == {0, 1}
    text = table.read_text()
    assert "seed 0, 1" in text
    for layer in ("fc1", "fc2", "logits"):
        (row,) = (r for r in text.splitlines() if r.startswith(f"| {layer} "))
        drifts = [facts["layers"][layer]["drift"][-1] for facts in of_seeds]
        mean, deviation = np.mean(drifts), np.std(drifts, ddof=1)
        assert row.split(" | ")[1] == f"{mean:.2f} ± {deviation:.2f}"
    assert_columns_are_of_their_time(of_seeds)
    wide = [w for w in tangent_kernel.to_sheet(of_seeds).rows[0] if "±" not in w]
    assert wide == ["fc1"]  # all else is a mean
    # Alone, one that is there shows its table again.
    assert tangent_kernel.main([*args, "1"]) == 0
    assert begun == [0, 1]
    assert "seed 1" in capsys.readouterr().out


def assert_columns_are_of_their_time(of_seeds) -> None:
    sheet = tangent_kernel.to_sheet(of_seeds)
    differ = 0
    for row in sheet.rows:
        shown = dict(zip(sheet.headings, row, strict=True))
        layers = [facts["layers"][row[0]] for facts in of_seeds]
        for i, when in ((0, "before"), (-1, "after")):
            for name, form, values in (
                ("alignment", ".2f", [of["alignment"][i] for of in layers]),
                ("its floor", ".2f", [of["alignment_floor"][i] for of in layers]),
                ("p", ".3f", [of["debiased_alignment"][i]["p_value"] for of in layers]),
                ("effective rank", ".1f", [of["effective_rank"][i] for of in layers]),
                ("R² of RBF", ".2f", [of[when]["plain_rbf"]["r2"] for of in layers]),
                ("Spearman", ".2f", [of[when]["rbf"]["spearman"] for of in layers]),
                (
                    "AUROC, cosine",
                    ".1f",
                    [100 * of[when]["auroc_cosine"] for of in layers],
                ),
            ):
                cell = f"{np.mean(values):{form}} ± {np.std(values, ddof=1):{form}}"
                assert shown[f"{name}, {when}"] == cell
                differ += shown[f"{name}, before"] != shown[f"{name}, after"]
    assert differ > 5  # or the two could stand in each other's place


def test_drift_and_alignment_are_of_the_kernels_stored(left):
    _, facts, arrays = left
    same = arrays["classes"][:, None] == arrays["classes"][None]
    n = len(same)
    centre = np.eye(n) - 1 / n
    for layer, of in facts["layers"].items():
        kernels = arrays[f"{layer}/kernel"].astype(np.float64)
        assert of["steps"] == [0, 1, 3]
        norms = np.linalg.norm(kernels - kernels[:1], axis=(1, 2))
        drift = norms / np.linalg.norm(kernels[0])
        assert of["drift"] == pytest.approx(drift)
        assert drift[0] == 0
        assert drift[2] > drift[1] > 0 or layer == "fc1"
        for kernel, told in zip(kernels, of["alignment"], strict=True):
            a, b = (centre @ k @ centre for k in (kernel, same.astype(float)))
            cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
            assert told == pytest.approx(cosine, rel=1e-5)
        for i, kernel in enumerate(kernels):
            cosine = (kernel * kernels[0]).sum() / np.linalg.norm(kernel)
            cosine /= np.linalg.norm(kernels[0])
            assert of["distance"][i] == pytest.approx(1 - cosine, abs=1e-6)
            null = of["debiased_alignment"][i]
            value = kernel_statistics.debiased_alignment(kernel, arrays["classes"])
            assert null["value"] == pytest.approx(value, abs=1e-6)
            assert abs(null["mean"]) < 5 * null["sd"] / np.sqrt(null["count"])


def test_records_are_what_is_told_of_layers_and_images(left):
    path, facts, _ = left
    told = recorded(path)
    for layer, of in facts["layers"].items():
        for step, drift, alignment in zip(
            of["steps"], of["drift"], of["alignment"], strict=True
        ):
            at = {"layer": layer, "step": step, "width": 16}
            assert told(quantity="kernel drift", **at) == [(drift, None, None)]
            assert told(quantity="kernel alignment", **at) == [(alignment, None, None)]
        for when, step in (("before", 0), ("after", 3)):
            at = {"layer": layer, "step": step}
            mean, fit = of[when]["mean_cosine"], of[when]["rbf"]
            found = told(quantity="normalised kernel", set="OoD", **at)
            assert found == [(mean["ood"], None, None)]
            assert told(quantity="RBF length", **at) == [(fit["length"], None, None)]
            found = told(quantity="AUROC", method="kernel", **at)
            assert found == [(of[when]["auroc_similarity"], None, None)]
    needed = told(quantity="images for half", set="OoD")
    expected = facts["contributions"]["needed_for_half"][2:]
    assert [value for value, *_ in needed] == expected


def test_similarity_is_of_the_kernels_stored(left):
    _, facts, arrays = left
    inside = np.repeat([1, 0], 20)
    distances = arrays["distances"]
    near = roc_auc_score(inside, -distances.min(axis=1))
    assert facts["auroc_pixels"] == pytest.approx(near)
    np.testing.assert_allclose(arrays["nearest_pixels"], -distances.min(1), rtol=1e-5)
    for layer, of in facts["layers"].items():
        for when in ("before", "after"):
            told, cosine = of[when], arrays[f"{layer}/{when}/cosine"]
            kernel = arrays[f"{layer}/{when}/kernel"]
            assert np.abs(cosine).max() <= 1 + 1e-4
            assert told["auroc_similarity"] == pytest.approx(
                roc_auc_score(inside, kernel.mean(axis=1))
            )
            mean = cosine.mean(axis=1)
            assert told["auroc_cosine"] == pytest.approx(roc_auc_score(inside, mean))
            assert told["mean_cosine"]["ind"] == pytest.approx(mean[:20].mean())
            assert told["mean_cosine"]["ood"] == pytest.approx(mean[20:].mean())
            fit = ntk.RBFFit(**told["rbf"])
            curve = np.exp(-(distances**2) / (2 * fit.length**2))
            curve = fit.amplitude * curve + fit.offset
            r2 = r2_score(cosine.ravel(), curve.ravel())
            assert fit.r2 == pytest.approx(r2, abs=1e-5)
            r = spearmanr(distances.ravel(), cosine.ravel())[0]
            assert fit.spearman == pytest.approx(r)
            # More to choose from can only fit better.
            assert fit.r2 >= told["plain_rbf"]["r2"] - 1e-6


def test_before_is_the_network_as_it_is_drawn(left):
    """The kernel of the logits has few enough rows to be exact."""
    _, _, arrays = left
    one = tangent.begin(
        load_benchmark("digits"),
        0,
        network="perceptron",
        width=16,
        train=150,
        points=20,
        steps=3,
        rate=0.1,
    )
    exact = ntk.tangent_kernel(
        *(one.feature_fn, one.initial, "logits", one.data.points, one.data.x[:20]),
        axes="trace",
        direct=True,
    )
    before, after = (arrays[f"logits/{when}/kernel"] for when in ("before", "after"))
    np.testing.assert_allclose(before, exact, rtol=1e-4, atol=1e-4 * exact.max())
    assert kernel_statistics.drift(exact, after) > 0.01


def test_the_movement_adds_up(left):
    _, facts, arrays = left
    told = facts["contributions"]
    value = arrays["contributions/value"]
    assert value.shape == (4, 150)
    assert told["largest_relative_error"] < 1e-5
    np.testing.assert_allclose(value.sum(axis=1), told["length"], rtol=1e-5)
    for i, row in enumerate(value):
        pushing = sorted(row[row > 0], reverse=True)
        some, count = 0.0, 0
        while some < sum(pushing) / 2:
            some, count = some + pushing[count], count + 1
        assert told["needed_for_half"][i] == count
        assert 1 < count < len(pushing) / 2  # the largest, not any
        share = sum(pushing[:5]) / sum(pushing)
        assert told["share_of_top"][i] == pytest.approx(share, rel=1e-5)
        np.testing.assert_allclose(arrays["contributions/shares"][i].sum(), share)


@pytest.mark.parametrize("args", [["--width", "0"], ["--kernel", "1"]])
def test_mistakes_are_one_line(tmp_path, capsys, args):
    assert tangent_kernel.main(["--out", str(tmp_path), *args]) == 1
    assert args[0] in capsys.readouterr().err
