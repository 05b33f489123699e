"""Results folders of invented scores, whole but for pictures that take long to draw."""

import json
from functools import cache

import numpy as np

from experiments.comparison import report
from experiments.comparison.rows import Scored
from experiments.harness.files import save_arrays
from experiments.harness.sheets import Sheet, to_markdown

METHODS = ("msp", "fssd")
SIDE = 4


def scores(seed, count=(60, 45)):
    """In-distribution and OoD, of whole numbers: many are equal."""
    rng = np.random.default_rng(seed)
    ind, ood = rng.normal(3, 3, count[0]).round(), rng.normal(0, 3, count[1]).round()
    return ind.astype(np.float32), ood.astype(np.float32)


@cache
def facts(seed=0, benchmark="fmnist", protocol="paper"):
    """metrics.json of `table2`, of two methods and no control."""
    rows = {name: Scored(*scores([seed, i])) for i, name in enumerate(METHODS)}
    found = report.summarise({"methods": rows, "variants": {}, "controls": {}})
    model = {"name": "LeNet()", "network": "lenet", "accuracy": 0.5, "epochs": 3}
    return {
        "seed": seed,
        "benchmark": benchmark,
        "protocol": protocol,
        "model": model,
        "counts": {"train": 10, "test_ind": 60, "test_ood": 45},
        "paper": None,
        "versions": {"python": "3"},
        "device": "1 × cpu",
        "left_out": {},
        "failed": {},
        **found,
    }


def write(folder, seed=0, explored=False, changes=None):
    """A folder as `table2` leaves it, without pictures."""
    folder.mkdir(parents=True)
    told = facts(seed) | (changes or {})
    sheet = Sheet("a <b>table</b>", ["method", "AUROC"], [], ["a note", "warning: w"])
    for name in METHODS:
        sheet.rows.append([name, f"{100 * facts(seed)['methods'][name]['auroc']:.1f}"])
    (folder / "metrics.json").write_text(json.dumps(told))
    config = {"experiment": "table2", "options": {"epochs": 3}, "cores": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.md").write_text(to_markdown(sheet))
    timing = {"scoring_seconds_per_1000_images": {"msp": 0.5, "fssd": None}}
    (folder / "timing.json").write_text(json.dumps(timing))
    arrays = {}
    for i, name in enumerate(METHODS):
        arrays[f"{name}/ind"], arrays[f"{name}/ood"] = scores([seed, i])
    save_arrays(folder / "scores.npz", arrays)
    if explored:
        save_arrays(folder / "explorer.npz", kept())
    return folder


def kept(shown=(7, 5)):
    """explorer.npz: the images of each set are of one grey, that of their place."""
    at = [np.arange(0, 6 * n, 6) for n in shown]
    greys = [np.arange(n, dtype=np.uint8) * 10 + 100 * i for i, n in enumerate(shown)]
    images = [np.broadcast_to(g[:, None, None, None], (*g.shape, SIDE, SIDE, 1))
              for g in greys]  # fmt: skip
    rng = np.random.default_rng(0)
    sets = ("in-distribution", "OoD")
    return {
        "rows": np.array(METHODS),
        "singularity": np.zeros(2),
        "share": np.array([0.5, 0.25]),
        "layer": np.array("fc1"),
        **{f"index/{name}": of for name, of in zip(sets, at, strict=True)},
        **{f"images/{name}": of for name, of in zip(sets, images, strict=True)},
        **{
            f"points/{s}": rng.normal(size=(n, 2))
            for s, n in zip(sets, shown, strict=True)
        },
    }
