"""What docs/results keeps of kernels is read as one table, and is what was measured."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.harness import records

RESULTS = Path(__file__).resolve().parents[2] / "docs/results"
KEPT = sorted(
    path
    for path in (*RESULTS.glob("kernel/*.json"), *RESULTS.glob("kernel-phases/*.json"))
)
PHASES = [path for path in KEPT if path.with_suffix(".npz").exists()]
KEYS = ("condition", "width", "quantity", "method", "set", "layer")
# In the arrays, and in the records.
QUANTITIES = {
    "frozen/error/all": ("relative error", "frozen", "both"),
    "linearised 30/rank/ood": ("spearman with FSSD", "linearised 30", "OoD"),
    "network/AUROC/fssd": ("AUROC", "network", None),
    "network/moved/ind": ("share of moved", "network", "in-distribution"),
}


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", KEPT, ids=named)
def test_it_is_read_in_the_vocabulary(path):
    pytest.importorskip("pandas")
    frame = records.read(path)
    assert len(frame)
    assert frame.value.notna().all()
    assert not frame.duplicated([c for c in frame if c not in records.NUMBERS]).any()
    assert list(frame.unit) == [records.QUANTITIES[q] for q in frame.quantity]
    assert set(frame.set.dropna()) <= set(records.SETS)
    known = frame[frame.low.notna()]
    assert ((known.low <= known.value) & (known.value <= known.high)).all()


@pytest.mark.parametrize("path", PHASES, ids=named)
def test_phases_are_the_means_of_their_arrays(path):
    rows = json.loads(path.read_text())["records"]
    told = {tuple(row[k] for k in KEYS): row["value"] for row in rows}
    layers = list(dict.fromkeys(row["layer"] for row in rows if row["layer"]))
    with np.load(path.with_suffix(".npz")) as kept:
        arrays = dict(kept)
    for cell in (name for name in arrays if "/" not in name):
        _, _, loss, parametrisation, width = cell.split("-")
        of = dict(zip(arrays[f"quantities/{cell}"], arrays[cell], strict=True))
        at = f"{loss}, {parametrisation}", int(width)
        for name, words in QUANTITIES.items():
            for k, layer in enumerate(layers):
                value = told.get((*at, *words, layer))
                mean = of[name][:, -1, k].mean(dtype=float)  # [seed, moment, layer]
                if np.isnan(mean):  # it diverged
                    assert value is None
                else:
                    assert value == pytest.approx(mean, rel=1e-5, abs=1e-6)
        accuracy = told[*at, "accuracy", None, "test", None]
        assert accuracy == pytest.approx(of["network/accuracy/test"][:, -1, 0].mean())


@pytest.mark.parametrize("network", ["perceptron", "strided"])
def test_records_of_a_table_are_what_it_prints(network):
    path = RESULTS / f"kernel/{network}-squared.json"
    text = path.with_suffix(".md").read_text()
    kept = json.loads(path.read_text())["records"]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [cell for line in lines[2:] for cell in line.split(" | ")[2:]]
    printed = [float(cell.split(" ± ")[0]) for cell in cells if " ± " in cell]
    printed += map(float, re.findall(r"no network: ([\d.]+) ±", text))
    rates = re.findall(r"([\d.]+) and ([\d.]+) % at \d+", text)
    printed += [float(rate) / 100 for pair in rates for rate in pair]
    assert sorted(row["value"] for row in kept) == pytest.approx(sorted(printed))
    (last,) = (
        row["value"]
        for row in kept
        if row["width"] == {"perceptron": 512, "strided": 64}[network]
        and (row["layer"], row["method"]) == ("logits", "displacement")
    )
    assert last == {"perceptron": 0.496, "strided": 0.39}[network]
