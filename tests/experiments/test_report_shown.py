"""What the section of a run shows, and content that no version of ours wrote."""

import datetime
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from analysis.pages import as_json
from experiments import report
from experiments.comparison import overview
from experiments.harness import explored, gathered, markup
from experiments.harness.files import save_arrays
from fssd_jax import InputError
from tests.experiments import pages
from tests.experiments.test_report import cells, made

AUROC = {"quantity": "AUROC", "method": "x", "value": 0.5}
SECONDS = "scoring_seconds_per_1000_images"


def alone(layer, value):
    return {"quantity": "AUROC", "layer": layer, "method": "fssd", "value": value}


def test_a_section_shows_what_the_folder_holds(tmp_path):
    """Each by its own number, warnings first, and what is inverted in the table too."""
    changes = {
        "records": [alone("conv1", 0.44), alone("conv2", 0.2), alone("fc1", 0.9)],
        "data": {"mnist/test": {"path": "t10k", "sha256": "abc", "version": "3.0"}},
    }
    folder = pages.write(tmp_path / "all" / "one-0", changes=changes)
    for name, grey in (("first", 10), ("second", 200)):
        Image.new("L", (9 + grey, 5), grey).save(folder / f"{name}.png")
    when = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC).timestamp()
    os.utime(folder / "metrics.json", (when, when))
    section = markup.detail(gathered.read(folder), "run-0")
    alert = section.partition('class="alert"')[2].partition("</div>")[0]
    assert "Inverted layers" in alert
    lines = re.findall("<li>(.*?)</li>", alert)
    assert lines == ["conv1, fssd: AUROC 0.44", "conv2, fssd: AUROC 0.2"]
    assert '<p class="note warning">warning: w</p>' in section
    assert "<dd>2026-01-02 03:04 UTC</dd>" in section
    assert cells(section, "mnist/test") == [["mnist/test", "3.0", "abc"]]
    assert ["msp", "0.5"] in cells(section, "msp")  # seconds
    pictures = re.findall(r'<img alt="(\w+)".*? width="(\d+)".*?,(\S+)"', section)
    assert [p[:2] for p in pictures] == [("first", "19"), ("second", "209")]
    assert pictures[0][2] != pictures[1][2]
    text = made(tmp_path / "all", tmp_path / "page.html")
    (row,) = cells(text, "one-0")
    fssd = pages.facts()["methods"]["fssd"]
    low, high = (100 * end for end in fssd["auroc_ci95"])
    assert low < high
    assert row[5] == f"{100 * fssd['auroc']:.1f} [{low:.1f}, {high:.1f}]"
    assert row[7:] == ["2", "2026-01-02 03:04"]


STRANGE = (
    {"metrics": {"seed": "a"}},
    {"metrics": {"seed": None}},
    {"metrics": {"seed": [1]}},
    {"metrics": {"records": [{**AUROC, "low": "0.1", "high": "0.2"}], "layers": 0}},
    {"metrics": {"records": [{**AUROC, "low": [0.1], "high": 1}], "layers": 0}},
    {"metrics": {"records": [{**AUROC, "layer": "x", "value": -(10**400)}]}},
    {"metrics": {"device": "\ud800"}},
    {"metrics": {"benchmark": "\udcff"}},
    {"timing": {SECONDS: {"msp": "x"}}},
    {"timing": {SECONDS: 3}},
    {"explorer": {"share": np.array([0.5, np.nan])}},
    {"explorer": {"singularity": np.array([np.inf, 0])}},
    {"explorer": {"points/OoD": np.zeros((3, 2))}},
    {"explorer": {"points/OoD": np.full((5, 2), np.nan)}},
    {"explorer": {"images/OoD": np.zeros((3, 4, 4, 1), np.uint8)}},
    {"explorer": {"images/OoD": np.zeros((5, 4, 4, 1))}},
    {"explorer": {"index/OoD": np.arange(-5, 0)}},
    {"explorer": {"index/OoD": np.arange(5) + 41}},
)


@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_no_content_of_a_folder_stops_the_page(tmp_path, capsys, strange):
    """Beside another seed of its group; what is no explorer is told, not shown."""
    name = "fmnist-paper-{}-0123abcd"
    for seed in (0, 1):
        folder = pages.write(tmp_path / "all" / name.format(seed), seed, explored=True)
    told = pages.facts(1) | strange.get("metrics", {})
    (folder / "metrics.json").write_text(json.dumps(told))
    if "timing" in strange:
        (folder / "timing.json").write_text(json.dumps(strange["timing"]))
    if "explorer" in strange:
        save_arrays(folder / "explorer.npz", pages.kept() | strange["explorer"])
        with pytest.raises(InputError, match="not of one run"):
            explored.read(folder)
    text = made(tmp_path / "all", tmp_path / "page.html")
    auroc = pages.facts()["methods"]["fssd"]["auroc"]
    (row,) = cells(text, name.format(0))
    assert row[5].startswith(f"{100 * auroc:.1f} [")
    assert cells(text, name.format(1))
    assert text.count('<div class="explorer">') == 2 - ("explorer" in strange)
    assert "Traceback" not in capsys.readouterr().err


def test_a_group_of_which_no_table_can_be_made_is_told(tmp_path, monkeypatch):
    for seed in (0, 1):
        pages.write(tmp_path / f"fmnist-paper-{seed}-0123abcd", seed)
    runs = [overview.completed(run) for run in gathered.gather(tmp_path)]
    monkeypatch.setattr(overview.tables, "cost_sheet", lambda *_: 1 / 0)
    text = overview.of_benchmarks(runs)
    assert "no table can be made of them (ZeroDivisionError" in text
    assert "<li>fmnist-paper-1-0123abcd</li>" in text


def test_a_folder_whose_name_is_no_text(tmp_path):
    try:
        pages.write(tmp_path / "all" / os.fsdecode(b"bad\xff-0"))
    except OSError:
        pytest.skip("this file system has names of text only")
    pages.write(tmp_path / "all" / "whole-0")
    out = tmp_path / "page.html"
    assert report.main(["--results", str(tmp_path / "all"), "--out", str(out)]) == 0
    assert cells(out.read_text(), "whole-0")
    assert cells(out.read_text(), "bad\\udcff-0")


def test_data_hold_no_tag_that_a_parser_could_take_for_one():
    """Not even "<!--<script", behind which all that follows would be script."""
    evil = {"a": "<!--<script>", "b": "</script>"}
    assert "<" not in as_json(evil)
    assert json.loads(as_json(evil)) == evil
