"""Benchmark D of its pairs: ImageNet against each kind and level of ImageNet-C.

A result of `table2` is of one pair. The paper gives no number of D, but draws means and
quartiles of AUROC over the kinds at each level (Figure 4).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from experiments.comparison import beside
from experiments.comparison.report import Result
from experiments.comparison.shift_tables import is_drawn
from experiments.comparison.shifted import Box, boxes
from experiments.harness.sheets import Sheet, mean_cell
from fssd_jax.data.imagenet_c import KINDS, LEVELS
from fssd_jax.data.published import METRICS

COUNT = len(KINDS) * len(LEVELS)
ALL = beside.TITLES["D"].pair
BY_TFDS = f"{ALL}_by_tfds"
OTHERS = "other images, which TFDS computed anew"
NAMED = re.compile(rf"imagenet_({'|'.join(KINDS)})_([1-5])(_by_tfds)?")


class Pair(NamedTuple):
    of: str  # ALL or BY_TFDS
    kind: str
    level: int


def pair_of(name: str) -> Pair | None:
    """By its name in fssd_jax/data/imagenet.py; None: it is of another benchmark."""
    found = NAMED.fullmatch(name)
    return found and Pair(BY_TFDS if found[3] else ALL, found[1], int(found[2]))


def assembled(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results of D, the published images apart from the others."""
    found: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if pair := pair_of(str(result["benchmark"])):
            found[pair.of].append(result)
    return found


def network_of(result: Result) -> str:
    """With what tells a whole one from one that is only called like it."""
    model, seen = result["model"], result["counts"].get("train")
    told = [model.get("network") or "network"]
    told += [f"{model['parameters']:,} parameters"] if "parameters" in model else []
    told += [f"{seen:,} training images"] if seen else []
    return ", ".join(told)


def sheets(title: str, found: dict[str, list[Result]]) -> list[Sheet]:
    """Of what `assembled` gives: of the published images, and apart of the others."""
    if ALL in found:
        first = to_sheet(title, found[ALL])
    else:
        first = beside.to_sheet(title, {}, [])
    others = found.get(BY_TFDS)
    return [first, *([to_sheet(f"{title}: {OTHERS}", others)] if others else [])]


def to_sheet(title: str, results: list[Result]) -> Sheet:
    """A row a method: means over the pairs, and its AUROCs at each level."""
    pairs = {pair for r in results if (pair := pair_of(r["benchmark"]))}
    kinds = Counter(pair.level for pair in pairs)
    rows = []
    for name in beside.names(results):
        found = beside.rows_of(name, results)
        at = _at_levels(name, results)
        levels = [_cell(at[level]) if level in at else "" for level in LEVELS]
        some = 0 < len(found) < len(results)
        missing = f" ({len(found)} of {len(results)} results)" * some
        here = " / ".join(_mean(name, results, m) for m in METRICS if found)
        fitted_on = found[0][1]["fitted_on"] if found else ""
        rows.append([name, (here or beside.NOT_RUN) + missing, *levels, fitted_on])
    levels = [f"AUROC, level {level}" for level in LEVELS]
    told = (
        f"Here: means over {len(pairs)} of the {COUNT} pairs, ± the standard deviation "
        "over seeds that have the same pairs. AUROC at a level: mean [quartiles] over "
        f"the kinds, of which {', '.join(str(kinds[n]) for n in LEVELS)} of "
        f"{len(KINDS)} are there."
    )
    networks = "; ".join(dict.fromkeys(map(network_of, results)))
    once = {(r["seed"], repr(r["model"])): r for r in results}  # whatever the pair
    notes = [
        beside.NO_NUMBERS,
        told,
        f"Of {networks}.",
        *beside.notes({}, [*once.values()]),
    ]
    return Sheet(title, ["", "here", *levels, "fitted on"], rows, notes)


def _means(name: str, results: list[Result], metric: str) -> dict[Pair, float]:
    """Of each pair, over its seeds."""
    of: dict[Pair, list[float]] = defaultdict(list)
    for result, row in beside.rows_of(name, results):
        if pair := pair_of(result["benchmark"]):
            of[pair].append(row[metric])
    return {pair: float(np.mean(values)) for pair, values in of.items()}


def _mean(name: str, results: list[Result], metric: str) -> str:
    of_seeds = [
        _means(name, [r for r in results if r["seed"] == seed], metric)
        for seed in sorted({r["seed"] for r in results})
    ]
    if any(of.keys() != of_seeds[0].keys() for of in of_seeds):
        of_seeds = [_means(name, results, metric)]
    return mean_cell([100 * float(np.mean([*of.values()])) for of in of_seeds], ".1f")


def _at_levels(name: str, results: list[Result]) -> dict[int, Box]:
    at: dict[int, list[float]] = defaultdict(list)
    for pair, auroc in _means(name, results, "auroc").items():
        at[pair.level].append(auroc)
    return {level: boxes(np.array(of)[:, None])[0] for level, of in at.items()}


def _cell(box: Box) -> str:
    mean, *ends = (f"{100 * v:.1f}" for v in (box.mean, box.lower, box.upper))
    return mean if box.low == box.high else f"{mean} [{', '.join(ends)}]"


def drawn_boxes(results: list[Result]) -> tuple[dict[str, list[Box]], list[int]]:
    """As `shift_plots.boxes` takes them, at the levels that all drawn rows have."""
    found = {
        name: at
        for name in beside.names(results)
        if is_drawn(name) and (at := _at_levels(name, results))
    }
    levels = [n for n in LEVELS if all(n in at for at in found.values())]
    return {name: [at[n] for n in levels] for name, at in found.items()}, levels
