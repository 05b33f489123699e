"""The leakage ladder and the training-size curve, on tiny presets."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments import leakage, train_size
from experiments.comparison import ladder
from experiments.comparison.ladder import RUNGS, Swept
from fssd_jax.data.sources import load
from fssd_jax.detectors import odin
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


def made_up(columns):
    """Two ε; the target OoD set is told by column 0, the other set by column 1."""
    rng = np.random.default_rng(0)

    def draw(n, shifts):
        return rng.normal(size=(2, n, columns)) - np.resize(shifts, columns)

    return Swept(
        val_ind=draw(200, [0, 0]),
        target=draw(200, [3, 0]),
        other=draw(200, [0, 3]),
        corrupted=draw(200, [0, 3]),
        test_ind=draw(300, [0, 0]),
        test_ood=draw(250, [3, 0]),
    )


@pytest.mark.parametrize(("name", "columns"), [("fssd", 2), ("odin", 4)])
def test_labels_of_another_set_do_not_tell_the_tested_one(name, columns):
    d = made_up(columns)
    informed, misled = (
        ladder.by_labels(name, d, d.val_ind, ood, (0.0, 0.1), seed=0)
        for ood in (d.target, d.other)
    )
    assert informed > 0.95
    assert 0.3 < misled < 0.7


def test_odins_rung_is_the_best_cell_of_the_validation_table():
    d = made_up(len(odin.TEMPERATURES))
    y = np.r_[np.ones(200), np.zeros(200)]
    table = [
        [
            roc_auc_score(y, np.r_[d.val_ind[e, :, t], d.target[e, :, t]])
            for t in range(4)
        ]
        for e in range(2)
    ]
    e, t = np.unravel_index(np.argmax(table), (2, 4))
    y = np.r_[np.ones(300), np.zeros(250)]
    expected = roc_auc_score(y, np.r_[d.test_ind[e, :, t], d.test_ood[e, :, t]])
    found = ladder.by_labels("odin", d, d.val_ind, d.target, (0.0, 0.1), seed=0)
    assert found == pytest.approx(expected)


def test_the_photographs_are_a_sample_of_both_pictures(setting):
    """By a key of their own; the first hundred patches are the sky of one picture."""
    s = setting._replace(val_ood=np.zeros((100, 28, 28, 1)), seed=3)
    photos = load("photo_patches", "test")
    found = ladder.sets_of(s, photos)["other"]
    key = jax.random.fold_in(jax.random.key(3), 108)
    order = np.asarray(jax.random.permutation(key, len(photos.x)))[:100]
    np.testing.assert_array_equal(found, photos.x[np.sort(order)])
    # As bright as all of them, up to 4 standard errors; the sky is far off.
    brightness = photos.x.mean((1, 2, 3))
    error = brightness.std() / 10
    assert abs(found.mean() - brightness.mean()) < 4 * error
    assert abs(brightness[:100].mean() - brightness.mean()) > 4 * error


@pytest.mark.slow  # three minutes, most of them compiling
def test_the_whole_ladder_and_again_from_what_is_there(tmp_path, monkeypatch, capsys):
    args = ["--tiny", "--benchmark", "digits", "--out", str(tmp_path)]
    assert leakage.main(args) == 0
    assert_it_fits(capsys.readouterr().out, RUNGS)
    (path,) = (tmp_path / "leakage").iterdir()
    assert {p.name for p in path.iterdir()} == {
        "config.json", "metrics.json", "metrics.md", "metrics.csv", "metrics.tex",
        "scores.npz", "leakage.png", "leakage.pdf", "report.html",
    }  # fmt: skip
    m = json.loads((path / "metrics.json").read_text())
    for name in ("fssd", "mahalanobis", "odin"):
        assert list(m["rungs"][name]) == list(RUNGS)
        assert list(m["counts"][name]) == ["0", "10"]  # of 20 labelled images
        assert len(m["counts"][name]["10"]) == ladder.DRAWS
        assert m["counts"][name]["0"] == [m["rungs"][name]["none"]]
    for name in ("control: pixel stats", "control: raw pixels"):
        assert list(m["rungs"][name]) == list(RUNGS[:3])
    told = recorded(path)
    for name, of in m["counts"].items():
        for n, draws in of.items():
            found = told(method=name, labels=int(n), quantity="AUROC")
            assert [value for value, *_ in found] == draws
        for rung, auroc in m["rungs"][name].items():
            assert told(method=name, condition=rung) == [(auroc, None, None)]
    monkeypatch.setattr(ladder, "map_batches", None)  # would fail if called
    assert leakage.main(args) == 0
    assert json.loads((path / "metrics.json").read_text()) == m


def test_the_curve_takes_every_size_and_seed():
    def result(auroc):
        return {
            "benchmark": "pair", "methods": {"msp": {"auroc": auroc}}, "controls": {},
        }  # fmt: skip

    found = {10: [result(0.5), result(0.7)], 20: [result(0.8)]}
    assert train_size.to_curves(found) == {"pair": {"msp": {10: [0.5, 0.7], 20: [0.8]}}}


@pytest.mark.usefixtures("undrawn")
def test_train_size_runs_table2_for_each_size(tmp_path, capsys):
    args = ["--tiny", "--protocol", "clean", "--methods", "msp"]
    args += ["--out", str(tmp_path), "--sizes"]
    assert train_size.main([*args, "600", "9999"]) == 0
    printed = capsys.readouterr().out
    (path,) = (tmp_path / "train_size").iterdir()
    m = json.loads((path / "metrics.json").read_text())
    assert set(m["auroc"]) == {"digits_near", "digits_far"}
    assert_it_fits(printed, ["method", *m["accuracy"]])
    assert (path / "digits_near.png").exists()
    told = recorded(path)
    for pair, of_pair in m["auroc"].items():
        for name, of_sizes in of_pair.items():
            for size, aurocs in of_sizes.items():
                at = {"benchmark": pair, "method": name, "train_images": int(size)}
                found = told(quantity="AUROC", condition="clean", **at)
                assert [value for value, *_ in found] == aurocs
    assert train_size.main(args) == 1
    assert "give --sizes" in capsys.readouterr().err
