import itertools
import json

import pytest

from experiments import ablation_protocol, table2
from experiments.protocols import PROTOCOLS


def test_the_ladder_leads_from_paper_to_released_one_switch_at_a_time():
    steps = ablation_protocol.ladder()
    assert steps[0][1] == PROTOCOLS["paper"]
    assert steps[-1][1] == PROTOCOLS["released"]
    for (_, before), (switch, after) in itertools.pairwise(steps):
        changed = {k for k in before._fields if getattr(before, k) != getattr(after, k)}
        assert changed - {"batch_size"} == {switch}


def test_main_agrees_with_table2(tmp_path):
    args = ["--benchmark", "digits", "--tiny", "--out", str(tmp_path)]
    assert ablation_protocol.main(args) == 0
    (path,) = tmp_path.glob("ablation_protocol/digits_near-0-*/metrics.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["switch"] for row in rows] == ["paper", *ablation_protocol.ORDER]
    assert (path.parent / "table.md").read_text().count("\n|") == 2 + len(rows)
    ends = {"paper": rows[0], "released": rows[-1]}
    for protocol, row in ends.items():
        args = ["--tiny", "--protocol", protocol, "--methods", "fssd"]
        assert table2.main([*args, "--out", str(tmp_path)]) == 0
        (path,) = tmp_path.glob(f"table2/digits_near-{protocol}-0-*/metrics.json")
        found = json.loads(path.read_text())["methods"]["fssd"]["auroc"]
        assert found == pytest.approx(row["auroc"], abs=1e-9)
