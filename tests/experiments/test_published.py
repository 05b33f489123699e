"""docs/table2.md is what the results say, beside what was published."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import published
from experiments.comparison.corrupted_pairs import pair_of
from fssd_jax.data.imagenet_c import KINDS, LEVELS
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


def test_what_is_not_the_papers_benchmark_says_so(tmp_path):
    """Of seed 1; our own benchmarks, beside which nothing was published, need not."""
    models = ({"network": "a"}, {"network": "b", "weights": "mine.pth"})
    for seed, of in enumerate(models):
        paper = None if seed else {"paper": TABLE2["B"]}
        model = {"accuracy": 0.5, "epochs": 3, **of}
        told = result(seed=seed, paper=paper, model=model)
        (tmp_path / f"{seed}.json").write_text(json.dumps(told))
    own = result(benchmark="cifar6", paper=None)
    (tmp_path / "own.json").write_text(json.dumps(own))
    text = made(tmp_path, tmp_path / "out")
    of_b = text.split("## B:")[1].split("## C:")[0]
    assert "Here: a, b, weights mine.pth, seeds 0, 1," in of_b
    assert "warning: seed 1: not the paper's benchmark, but" in of_b
    assert text.count("warning") == 1


# ---- D, of its pairs ----------------------------------------------------------------

CELLS = {
    ("fog", 3): 0.9,
    ("snow", 3): 0.5,
    ("jpeg_compression", 3): 0.6,
    ("fog", 1): 0.2,
}


def leave_pairs(folder, seed=0, by="", of=CELLS, **changes):
    folder.mkdir(exist_ok=True)
    for (kind, level), auroc in of.items():
        pair = f"imagenet_{kind}_{level}{by}"
        told = result(benchmark=pair, seed=seed, paper=None, **changes)
        row = told["methods"]["msp"] | {"auroc": auroc + seed / 10}
        told["methods"] = {"msp": row}
        if kind == "fog":
            told["methods"]["odin"] = row
        (folder / f"{pair}-{seed}.json").write_text(json.dumps(told))


def of_d(text):
    return text.split("## D:")[1].split("\n## ")[0]


def test_d_is_the_mean_of_its_pairs(tmp_path):
    leave_pairs(tmp_path / "all")
    told = of_d(made(tmp_path / "all", tmp_path))
    quartiles = np.quantile([0.9, 0.5, 0.6], (0.25, 0.75)) * 100
    at_3 = f"66.7 [{quartiles[0]:.1f}, {quartiles[1]:.1f}]"
    assert f"| msp | 55.0 / 25.0 / 12.5 | 20.0 |  | {at_3} |  |  | nothing |" in told
    both = "55.0 / 25.0 / 12.5 (2 of 4 results)"  # fog at two levels
    assert f"| odin | {both} | 20.0 |  | 90.0 |  |  | nothing |" in told
    assert "| fssd | not run here |" in told
    assert "means over 4 of the 80 pairs" in told
    assert "the kinds, of which 1, 0, 3, 0, 0 of 16 are there" in told
    assert "Published as box plots (Figure 4), without numbers." in told
    assert told.count("seeds 0, 3 epochs, accuracy 50.0 %") == 1
    assert "warning" not in told  # no published number stands beside


def test_seeds_of_d_deviate_where_they_have_the_same_pairs(tmp_path):
    for seed in (0, 1):
        leave_pairs(tmp_path / "all", seed)
    told = of_d(made(tmp_path / "all", tmp_path))
    spread = f"{np.mean([55, 65]):.1f} ± {np.std([55, 65], ddof=1):.1f}"
    assert f"| msp | {spread} / 25.0 ± 0.0 / 12.5 ± 0.0 | 25.0 |" in told
    leave_pairs(tmp_path / "all", seed=2, of={("fog", 1): 0.4})
    told = of_d(made(tmp_path / "all", tmp_path))
    mean = np.mean([95, 55, 65, np.mean([20, 30, 60])])
    assert f"| msp | {mean:.1f} / 25.0 / 12.5 | 36.7 |" in told


def test_what_tfds_made_stands_apart(tmp_path):
    leave_pairs(tmp_path / "all", by="_by_tfds")
    text = made(tmp_path / "all", tmp_path)
    assert "| all methods | not run here |" in of_d(text)
    title = "D: ImageNet against ImageNet-C, ResNet-34: other images, which TFDS"
    assert "means over 4 of the 80 pairs" in text.split(title)[1].split("\n## ")[0]
    leave_pairs(tmp_path / "all", of={("fog", 5): 0.3})
    text = made(tmp_path / "all", tmp_path)
    assert "| msp | 30.0 / 25.0 / 12.5 |" in of_d(text)
    assert "| msp | 55.0 / 25.0 / 12.5 |" in text.split(title)[1]


def test_figure_4_of_d_is_drawn_at_levels_that_all_have(tmp_path, monkeypatch):
    leave_pairs(tmp_path / "all")
    given = []
    own = published.shift_plots.boxes
    monkeypatch.setattr(
        published.shift_plots, "boxes", lambda *of: (given.append(of), own(*of))[1]
    )
    text = made(tmp_path / "all", tmp_path)
    name = "table2-imagenet_KIND_LEVEL"
    assert f"\n![AUROC by level of corruption]({name}.png)\n" in text
    assert {f"{name}.png", f"{name}.pdf"} <= {p.name for p in tmp_path.iterdir()}
    ((boxes, levels, title),) = given
    assert levels == [1, 3]
    assert boxes["msp"][1] == pytest.approx((0.5, 0.55, 0.6, 0.75, 0.9, 2 / 3))
    assert boxes["odin"] == [pytest.approx((v,) * 6) for v in (0.2, 0.9)]
    assert title == "imagenet_KIND_LEVEL: 4 of 80 pairs"


def test_every_pair_of_the_benchmark_is_known():
    names = [f"imagenet_{kind}_{n}" for kind in KINDS for n in LEVELS]
    found = {pair_of(name + by) for name in names for by in ("", "_by_tfds")}
    assert len(found) == 160
    assert None not in found
    for other in ("imagenet", "imagenet_fog_6", "imagenet_fog", "cifar10_fog_1"):
        assert pair_of(other) is None


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
