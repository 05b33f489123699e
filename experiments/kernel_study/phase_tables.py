"""What `kernel_phases` found, as facts, flat records, tables and pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats

from analysis import phase_plots
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from experiments.kernel_study.phase_facts import (
    PIXELS,
    Cell,
    Numbers,
    Plan,
)
from experiments.kernel_study.phase_twins import DRAWN, INFINITE, OWN
from experiments.kernel_study.phases import (
    FROZEN,
    NETWORK,
    UNDONE,
    UNTRAINED,
    named,
)
from experiments.kernel_study.setting import NTK_NETWORKS

Found = Mapping[Cell, Numbers]
# Our words for sets → those of the records.
SETS = {"all": "both", "ind": "in-distribution", "ood": "OoD"}
QUANTITIES = {
    "error": "relative error",
    "FSSD error": "relative error of FSSD",
    "rank": "spearman with FSSD",
    "offset": "share of offset",
    "moved": "share of moved",
}
DETECTORS = {
    "fssd": "AUROC",
    "nearest": "AUROC",
    "displacement": "AUROC of displacement",
    "relative": "AUROC of relative displacement",
}


# What is drawn beside the forms of Eq. (4), where it is known.
RIVALS = (UNDONE, UNTRAINED, OWN, PIXELS)


def layers_of(cell: Cell) -> tuple[str, ...]:
    return NTK_NETWORKS[cell.network]().feature_layers


def mean_and_interval(of_seeds: np.ndarray) -> tuple[float, float | None, float | None]:
    """The mean over seeds and its 95 % interval, of Student's t; NaN if one is NaN."""
    mean, n = float(np.mean(of_seeds)), len(of_seeds)
    if n < 2 or not np.isfinite(mean):
        return mean, None, None
    half = scipy.stats.t.ppf(0.975, n - 1) * np.std(of_seeds, ddof=1) / np.sqrt(n)
    return mean, float(mean - half), float(mean + half)


def to_records(plan: Plan, found: Found) -> list[Record]:
    """Means over the seeds, after the last step."""
    out = []
    for cell, numbers in found.items():
        keys = {
            "benchmark": cell.benchmark,
            "network": cell.network,
            "width": cell.width,
            "condition": f"{cell.loss}, {cell.parametrisation}",
            "step": plan.moments[-1],
        }
        for name, values in numbers.items():
            form, quantity, part = (*name.split("/"), "")[:3]
            if form == "points" or quantity == "accuracy":
                continue
            beside = {"method": form}
            if quantity == "AUROC":
                quantity = DETECTORS[part]
            else:
                quantity, beside["set"] = QUANTITIES[quantity], SETS[part]
            for layer, of_seeds in zip(layers_of(cell), values[:, -1].T, strict=True):
                mean, *interval = mean_and_interval(of_seeds)
                if np.isfinite(mean):  # a run that diverged has none
                    told = record(
                        quantity, mean, interval, layer=layer, **beside, **keys
                    )
                    out.append(told)
        for part, which in (("train", "training"), ("test", "test")):
            of_seeds = numbers[f"{NETWORK}/accuracy/{part}"][:, -1, 0]
            mean, *interval = mean_and_interval(of_seeds)
            out.append(record("accuracy", mean, interval, set=which, **keys))
    return out


def facts(plan: Plan, rates: Mapping[Cell, float], found: Found) -> dict[str, Any]:
    """For metrics.json; the numbers are its records, and scores.npz."""
    return {
        **plan._asdict(),
        "cells": {cell.name: {"rate": rates[cell]} for cell in found},
        "diverged": diverged(plan, found),
    }


def diverged(plan: Plan, found: Found) -> dict[str, str]:
    """Cell and form → the seeds whose numbers were not finite at the end."""
    out = {}
    for cell, numbers in found.items():
        for name in (NETWORK, *forms_of(plan)):
            last = numbers[f"{name}/AUROC/fssd"][:, -1, -1]
            seeds = [
                str(s) for s, v in zip(plan.seeds, last, strict=True) if np.isnan(v)
            ]
            if seeds:
                out[f"{cell.name}/{name}"] = ", ".join(seeds)
    return out


def forms_of(plan: Plan) -> tuple[str, ...]:
    return (FROZEN, *map(named, plan.starts))


def to_arrays(found: Found) -> dict[str, np.ndarray]:
    """Cell → [quantity, seed, moment, layer], "quantities/CELL" → their names."""
    out = {}
    for cell, numbers in found.items():
        names = sorted(name for name in numbers if not name.startswith("points/"))
        shape = numbers[f"{FROZEN}/error/all"].shape
        every = [np.broadcast_to(numbers[name], shape) for name in names]
        out[cell.name] = np.stack(every).astype(np.float32)
        out[f"quantities/{cell.name}"] = np.array(names)
    return out


def to_sheets(plan: Plan, rates: Mapping[Cell, float], found: Found) -> list[Sheet]:
    """A table for each layer that is shown, after the last step."""
    some = next(iter(found))
    return (
        [
            _sheet(
                plan, rates, {c: n for c, n in found.items() if c[:3] == group}, place
            )
            for group in dict.fromkeys(c[:3] for c in found)
            for place in (-1, -2)
        ]
        if some
        else []
    )


def _sheet(plan, rates, found: Found, place: int) -> Sheet:
    some = next(iter(found))
    layer = layers_of(some)[place]
    last, start = forms_of(plan)[-1], forms_of(plan)[1]
    columns = {
        "accuracy": f"{NETWORK}/accuracy/test",
        "error frozen": f"{FROZEN}/error/all",
        "error linear 0": f"{start}/error/all",
        f"error linear {plan.starts[-1]}": f"{last}/error/all",
        "error undone": f"{UNDONE}/error/all",
        "FSSD error frozen": f"{FROZEN}/FSSD error/all",
        "FSSD error linear 0": f"{start}/FSSD error/all",
        "rank frozen, OoD": f"{FROZEN}/rank/ood",
        "rank linear 0, in": f"{start}/rank/ind",
        "rank linear 0, OoD": f"{start}/rank/ood",
        "rank untrained, OoD": f"{UNTRAINED}/rank/ood",
        "rank pixels, OoD": f"{PIXELS}/rank/ood",
        "rank infinite, OoD": f"{INFINITE}/rank/ood",
        "FSSD error, own f_0": f"{OWN}/FSSD error/all",
        "rank own f_0, in": f"{OWN}/rank/ind",
        "rank own f_0, OoD": f"{OWN}/rank/ood",
        "AUROC FSSD": f"{NETWORK}/AUROC/fssd",
        "AUROC ‖Δ‖": f"{NETWORK}/AUROC/displacement",
        "AUROC ‖Δ − Δ*‖": f"{NETWORK}/AUROC/relative",
        "AUROC frozen": f"{FROZEN}/AUROC/fssd",
        "AUROC linear 0": f"{start}/AUROC/fssd",
        "AUROC untrained": f"{UNTRAINED}/AUROC/fssd",
        "AUROC infinite": f"{INFINITE}/AUROC/fssd",
        "AUROC own f_0": f"{OWN}/AUROC/fssd",
        **{
            f"AUROC f_0 · {scale:g}": f"{name}/AUROC/fssd"
            for scale, name in DRAWN.items()
        },
        "AUROC pixels": f"{PIXELS}/AUROC/nearest",
        "offset share, in": f"{NETWORK}/offset/ind",
        "offset share, OoD": f"{NETWORK}/offset/ood",
    }
    shown = ("error frozen", "error linear 0", "error undone", "rank linear 0, OoD")
    shown += ("AUROC FSSD", "AUROC linear 0")
    rows = [
        [
            f"{cell.parametrisation}, {cell.width}",
            *(_cell(numbers.get(name), place) for name in columns.values()),
        ]
        for cell, numbers in found.items()
    ]
    steps = f"{plan.moments[-1]:,} steps"
    return Sheet(
        f"{some.benchmark}, {some.network}, {some.loss}: {layer} after {steps}",
        ["network", *columns],
        rows,
        [
            f"Mean and half of its 95 % interval over {len(plan.seeds)} seeds; rate "
            f"{rates[some]:g} at the base width. Errors are relative to the "
            "displacement over both sets, or to FSSD; undone: that of features of 0, "
            "as of logits if training undoes f_0 and does nothing else; ranks: "
            "Spearman's correlation with FSSD within a set, of pixels that of minus "
            "the distance. Infinite: "
            "√E FSSD² of the infinitely wide network; own f_0: the one that begins as "
            "this network; f_0 · 1, 1/2, …: the mean over those whose f_0 is drawn, "
            "and scaled."
        ],
        ("network", *shown),
    )


def _cell(values: np.ndarray | None, place: int) -> str:
    if values is None:
        return ""
    column = values[:, -1, place if values.shape[-1] > 1 else 0]
    mean, low, _ = mean_and_interval(column)
    if not np.isfinite(mean):
        return ""
    return f"{mean:.2g}" if low is None else f"{mean:.3g} ± {mean - low:.2g}"


def figures(plan: Plan, rates: Mapping[Cell, float], found: Found):
    """Name → picture: of each group, how well each form predicts, over the grid."""
    out = {}
    for group in dict.fromkeys(c[:3] for c in found):
        cells = {c: n for c, n in found.items() if c[:3] == group}
        some, widths = next(iter(cells)), sorted({c.width for c in cells})
        times = [rates[some] * m for m in plan.moments]
        for quantity, name in phase_plots.QUANTITIES.items():
            out[f"{'-'.join(group)}-{name}"] = phase_plots.phases(
                _panels(plan, cells, quantity, widths),
                *(quantity, widths, times, ", ".join(group)),
                seeds=len(plan.seeds),
            )
    return out


def _panels(plan, cells: Found, quantity: str, widths):
    """(form, parametrisation, layer) → [width, moment], of the last two layers."""
    some = next(iter(cells))
    names = {form: _name(form, quantity) for form in (*forms_of(plan), *RIVALS)}
    known = {name for numbers in cells.values() for name in numbers}
    panels = {}
    for form, name in names.items():
        if name not in known:
            continue
        for place in (-2, -1):
            for kind in dict.fromkeys(c.parametrisation for c in cells):
                panel = np.full((len(widths), len(plan.moments)), np.nan)
                for row, width in enumerate(widths):
                    cell = some._replace(parametrisation=kind, width=width)
                    if cell in cells:
                        panel[row] = _map(cells[cell], name, quantity)[:, place]
                panels[form, kind, layers_of(some)[place]] = panel
    return panels


def _name(form: str, quantity: str) -> str:
    if quantity == "AUROC":
        return f"{form}/AUROC/{'nearest' if form == PIXELS else 'fssd'}"
    return f"{form}/{quantity}/{'ind' if quantity == 'rank' else 'all'}"


def _map(numbers: Numbers, name: str, quantity: str) -> np.ndarray:
    """[moment, layer], the mean over seeds; NaN where the cell has no such number."""
    fssd = numbers[f"{NETWORK}/AUROC/fssd"]
    found = numbers.get(name, np.nan)
    if quantity == "rank":  # of both sets
        found = (found + numbers.get(name.replace("/ind", "/ood"), np.nan)) / 2
    if quantity == "AUROC":
        found = found - fssd
    return np.broadcast_to(found, fssd.shape).mean(0)
