"""docs/table2.md is what the results say, beside what was published."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import published
from fssd_jax.data.published import TABLE2

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
FSSD = {"A": 99.6, "B": 99.5, "C": 93.1, "E": 78.3, "F": 86.7, "G": 74.8}


def made(folder, tmp_path):
    out = tmp_path / "table2.md"
    assert published.main(["--results", str(folder), "--out", str(out)]) == 0
    return out.read_text()


def test_the_document_is_what_the_results_say(tmp_path):
    assert made(RESULTS, tmp_path) == (ROOT / "docs" / "table2.md").read_text()


def test_a_row_is_the_mean_over_the_seeds(tmp_path):
    of = [
        json.loads((RESULTS / "fmnist" / f"table2-{seed}.json").read_text())
        for seed in range(3)
    ]
    odin = [100 * r["methods"]["odin"]["auroc"] for r in of]
    fpr = [100 * r["methods"]["odin"]["fpr80"] for r in of]
    begin = f"| {np.mean(odin):.1f} ± {np.std(odin, ddof=1):.1f} / "
    end = f" / {np.mean(fpr):.1f} ± {np.std(fpr, ddof=1):.1f} | 1000 in, 1000 target"
    (row, *_) = (
        line for line in made(RESULTS, tmp_path).splitlines() if "| odin" in line
    )
    assert begin in row
    assert end in row


def test_what_was_published():
    """FSSD's AUROCs, of another source; and ranks that hold in every row."""
    assert {k: 100 * rows["fssd"]["auroc"] for k, rows in TABLE2.items()} == (
        pytest.approx(FSSD)
    )
    for rows in TABLE2.values():
        assert max(r["auroc"] for r in rows.values()) == rows["fssd"]["auroc"]


def result(**changes):
    row = {"auroc": 0.5, "auprc": 0.25, "fpr80": 0.125, "fitted_on": "nothing"}
    row |= {f"{metric}_ci95": [0.0, 1.0] for metric in ("auroc", "auprc", "fpr80")}
    return {
        "benchmark": "cifar10",
        "protocol": "paper",
        "seed": 0,
        "methods": {"msp": row},
        "controls": {},
        "model": {"accuracy": 0.5, "epochs": 3},
        "counts": {"test_ind": 10, "test_ood": 20},
        "left_out": {"outlier_exposure": "there is no auxiliary set"},
        **changes,
    }


def test_one_seed_has_its_interval_and_others_are_missing(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(result()))
    (tmp_path / "b.json").write_text(json.dumps(result(protocol="clean")))
    (tmp_path / "c.json").write_text(json.dumps({"methods": {}}))
    text = made(tmp_path, tmp_path / "out")
    of_b = text.split("## B:")[1].split("## C:")[0]
    assert "50.0 [0.0, 100.0] / 25.0 [0.0, 100.0] / 12.5 [0.0, 100.0]" in of_b
    assert "| odin | 96.7 / 92.5 / 4.7 | 96.6 / 96.7 / 4.8 | not run here |" in of_b
    assert "| outlier exposure | 90.4 / 89.8 / 12.5 | - | not run here |" in of_b
    assert text.split("## A:")[1].split("## B:")[0].count("not run here") == 7
    symbols = result(benchmark="genomics", symbols=4)
    (tmp_path / "g.json").write_text(json.dumps(symbols))
    of_g = made(tmp_path, tmp_path / "out").split("## G:")[1]
    assert "| outlier exposure | NA | NA |" in of_g


def test_two_results_of_one_seed_are_refused(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(result()))
    args = ["--results", str(tmp_path), "--out", str(tmp_path / "o.md")]
    assert published.main(args) == 1
    assert "are both of cifar10, seed 0" in capsys.readouterr().err


def test_a_damaged_file_is_told_and_an_unfinished_one_is_not_taken(tmp_path, capsys):
    whole = tmp_path / "a"
    unfinished = tmp_path / ".a.0123.unfinished"  # of a run that was killed
    for folder in (whole, unfinished):
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(result()))
    assert published.read(tmp_path) == published.read(whole)
    damaged = whole / "other.json"
    damaged.write_text("{")
    assert published.main(["--results", str(tmp_path)]) == 1
    assert f"{damaged}: cannot be read" in capsys.readouterr().err
    damaged.unlink()  # as it says
    assert len(published.read(tmp_path)) == 1


def test_the_newest_is_taken_but_of_whole_networks(tmp_path):
    """Written in this order, each with its own accuracy: the third is meant."""
    options = [{}, {"train_size": None}, {"tiny": False}, {"tiny": True}]
    options.append({"train_size": 1000})
    for i, of in enumerate(options):
        folder = tmp_path / "table2" / str((i * 3) % 5)  # names are in another order
        folder.mkdir(parents=True)
        model = {"accuracy": i / 10, "epochs": 3}
        (folder / "metrics.json").write_text(json.dumps(result(model=model)))
        (folder / "config.json").write_text(json.dumps({"options": of}))
        os.utime(folder / "metrics.json", (i, i))
    out = tmp_path / "o.md"
    args = ["--newest", "--results", str(tmp_path / "table2"), "--out", str(out)]
    assert published.main(args) == 0
    assert "accuracy 20.0" in out.read_text()
