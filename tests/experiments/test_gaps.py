"""What the gaps to published numbers depend on, on a tiny preset."""

import json

import numpy as np
import pytest
import scipy.special
from sklearn.metrics import roc_auc_score

from experiments import gaps
from experiments.comparison import networks, retrained
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import make_setting, prepare
from fssd_jax.data import published
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


def digits(name, data_dir=None):
    benchmark = load_benchmark("digits", data_dir)
    return benchmark._replace(
        ood={"fmnist": benchmark.ood["digits_near"]}, paper=published.of("A")
    )


def made_up(name="auto", split="train", data_dir=None):
    x = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
    return ArrayDataset(x, np.zeros(64, np.int32), name, split, "a test", "0")


def test_every_part_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gaps, "load_benchmark", digits)
    monkeypatch.setattr(gaps, "outliers", lambda name, data_dir: made_up(name))
    monkeypatch.setattr(gaps, "load", made_up)
    monkeypatch.setattr(retrained, "MEMBERS", 3)
    monkeypatch.setattr(retrained, "RATES", (0.01,))  # each is another training
    args = ["--tiny", "--full-seeds", "1", "--epochs", "2", "--short-epochs", "1"]
    assert gaps.main([*args, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("gaps/fmnist-0-*/metrics.json")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["method"], row["varied"]) for row in rows] == [
        ("msp", "seed 0, 2 epochs"), ("msp", "seed 1, 1 epoch"),
        ("msp", "seed 2, 1 epoch"), ("deep ensemble", "seeds 1, 2"),
        ("deep ensemble", "seeds 0, 1, 2"),
        ("mc dropout, mean", "rate 0.01"), ("mc dropout, variance", "rate 0.01"),
        ("outlier exposure, fine-tuned", "64 auto/train"),
        ("outlier exposure, fine-tuned", "64 mnist/train"),
    ]  # fmt: skip
    assert_it_fits(capsys.readouterr().out, ["varied", "AUROC here"])
    told = recorded(path.parent)
    for row in rows:
        at = {"method": row["method"], "condition": row["varied"]}
        assert told(quantity="AUROC", **at) == [(row["auroc"], None, None)]

    # The ensemble of the two short ones, from the members' own softmax.
    config = gaps.Config(
        tiny=True, full_seeds=1, epochs=2, short_epochs=1, out=tmp_path
    )
    benchmark = digits("fmnist")
    prepared = prepare(benchmark, 0, config)
    s = make_setting(prepared, "fmnist", PROTOCOLS["paper"], tiny=True)
    x = as_input(np.concatenate([s.test_ind, s.test_ood]))
    y = np.r_[np.ones(len(s.test_ind)), np.zeros(len(s.test_ood))]
    softmax = []
    for seed in (1, 2):
        network = networks.plain(prepared.training, seed)
        # In float32, because such networks are so sure that many scores tie at 1.
        logits = np.asarray(s.logit_fn(network.variables, x))
        softmax.append(scipy.special.softmax(logits, axis=1))
    score = np.mean(softmax, axis=0).max(1)
    assert rows[3]["auroc"] == pytest.approx(roc_auc_score(y, score), abs=1e-3)

    table = path.with_name("metrics.md").read_text().splitlines()
    deep = next(line for line in table if "seeds 0, 1, 2" in line)
    assert deep.endswith("| 83.9 | 83.9 |")
