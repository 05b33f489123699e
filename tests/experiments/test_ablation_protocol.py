import itertools
import json

from experiments import ablation_protocol
from experiments.comparison import switches
from experiments.comparison.protocols import PROTOCOLS
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


def test_the_ladder_leads_from_paper_to_released_one_switch_at_a_time():
    steps = switches.switch_by_switch()
    assert steps[0][1] == PROTOCOLS["paper"]
    assert steps[-1][1] == PROTOCOLS["released"]
    for (_, before), (switch, after) in itertools.pairwise(steps):
        changed = {k for k in before._fields if getattr(before, k) != getattr(after, k)}
        assert changed - {"batch_size"} == {switch}


def test_main_prints_and_keeps_a_row_for_each_switch(tmp_path, monkeypatch, capsys):
    order = ("samples", "perturbation")  # all eight take a minute
    monkeypatch.setattr(switches, "ORDER", order)
    args = ["--benchmark", "digits", "--tiny", "--out", str(tmp_path)]
    assert ablation_protocol.main(args) == 0
    (path,) = tmp_path.glob("ablation_protocol/digits_near-0-*/metrics.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["switch"] for row in rows] == ["paper", *order]
    for before, row in itertools.pairwise(rows):
        assert row["difference"] == row["auroc"] - before["auroc"]
    told = recorded(path.parent)
    for row in rows:
        for metric in ("auroc", "auprc", "fpr80", "fpr95"):
            ends = row[f"{metric}_ci95"]
            at = {"quantity": metric.upper(), "condition": row["switch"]}
            assert told(**at) == [(row[metric], *ends)]
    changes = [row["difference"] for row in rows[1:]]
    found = told(quantity="difference of AUROC", method="fssd", seed=0)
    assert [value for value, *_ in found] == changes
    table = (path.parent / "metrics.md").read_text()
    printed = capsys.readouterr().out
    assert_it_fits(printed, ["AUROC", "FPR95", *order])
    for row in rows:
        assert f"| {row['switch']}" in table
        assert f"{row['switch']}: AUROC {row['auroc']:.5f}" in printed
