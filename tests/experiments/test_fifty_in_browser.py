"""A page of fifty runs as large as real ones, in Chromium: soon there, and usable."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import report
from experiments.comparison.explorer import SHOWN
from experiments.comparison.pictures import in_roc
from experiments.harness import explored
from experiments.harness.files import save_arrays
from tests.experiments import pages
from tests.experiments.test_page_in_browser import address, browser, opened

__all__ = ["address", "browser", "opened"]  # fixtures
pytestmark = pytest.mark.browser
KEPT = Path(__file__).resolve().parents[2] / "docs/results/fmnist"  # of a whole run


def as_real(folder):
    """What `table2` leaves of FashionMNIST, but for the scores, which are invented."""
    folder.mkdir(parents=True)
    for path in (*KEPT.glob("*.png"), KEPT / "default.md", KEPT / "default-0.json"):
        suffix = path.suffix
        name = path.name if suffix == ".png" else f"metrics{suffix}"
        shutil.copy(path, folder / name)
    methods = json.loads((folder / "metrics.json").read_text())["methods"]
    rng, names = np.random.default_rng(0), [name for name in methods if in_roc(name)]
    scores = {f"{n}/{s}": rng.normal(size=1800) for n in names for s in ("ind", "ood")}
    save_arrays(folder / "scores.npz", scores)
    kept = pages.kept((SHOWN, SHOWN)) | {"rows": np.array(names)}
    for name in explored.SETS:  # half of it black, as around clothes
        grey = rng.integers(-255, 256, (SHOWN, 28, 28, 1)).clip(0)
        kept[f"images/{name}"] = grey.astype(np.uint8)
    save_arrays(folder / "explorer.npz", kept)


@pytest.fixture(scope="module")
def fifty(tmp_path_factory):
    """The page of fifty such folders, of which each has an AUROC of its own."""
    folder = tmp_path_factory.mktemp("fifty")
    as_real(folder / "all/run-0")
    facts = json.loads((folder / "all/run-0/metrics.json").read_text())
    for i in range(50):
        run = folder / f"all/run-{i}"
        if i:
            shutil.copytree(folder / "all/run-0", run)
        facts["methods"]["fssd tiles"]["auroc"] = 0.5 + (7 * i % 50) / 1000
        (run / "metrics.json").write_text(json.dumps(facts))
    out = folder / "report.html"
    assert report.main(["--results", str(folder / "all"), "--out", str(out)]) == 0
    return out


def test_fifty_runs_are_opened_sorted_and_explored_within_three_seconds(opened, fifty):
    """The best of three; a machine that does n things a core is given n times that."""
    assert fifty.stat().st_size > 50e6
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        tab = opened("overview", page=fifty.as_uri())  # returns after the load event
        tab.locator(".runs th", has_text="AUROC").click()
        column = tab.locator(".runs tbody td:nth-child(6)").all_inner_texts()
        took.append(time.perf_counter() - begin)
        values = [float(text.split()[0]) for text in column]
        assert values == sorted(values, reverse=values[0] > values[-1])
        assert len(values) == 50
        assert values != values[::-1]
        tab.goto(f"{fifty.as_uri()}#run-49")
        assert tab.locator(".run.open .explorer .slider").is_visible()
    busy = max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(f"{fifty.stat().st_size / 1e6:.0f} MB, seconds: {took}, busy: {busy}")
    assert min(took) < 3 * busy
