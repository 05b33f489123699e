"""Pictures of a comparison, from what is stored: nothing here runs a network."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import auroc_plots, feature_plots, plots
from analysis.style import mean_and_ends
from experiments.comparison.answers import Answers
from experiments.comparison.report import FITTED, Result
from experiments.comparison.rows import LayerScores
from fssd_jax import metrics

CRITERIA = {"auroc": "AUROC", "tnr95": "TNR at TPR 95 %"}
SETS = ("noise", "in-distribution", "OoD")


def figures(found: Answers, title: str, criterion: str = "auroc") -> dict[str, Figure]:
    """By name: layers, features, roc and, if an ε was chosen, epsilon.

    The first two not where looking for them failed, the third not where all did.
    """
    drawn = {}
    if found.pictures:
        drawn["layers"] = layers(found.pictures)
        drawn["features"] = features(found.pictures)
    if any(in_roc(name) for rows in found.groups.values() for name in rows):
        drawn["roc"] = roc(found, title)
    methods = found.groups["methods"]
    fitted = next((m.layers for m in map(methods.get, FITTED) if m), None)
    if fitted is not None and len(fitted.epsilons):
        drawn["epsilon"] = epsilon(fitted, criterion)
    return drawn


def layers(arrays: dict[str, np.ndarray]) -> Figure:
    """FSSD of each layer at ε = 0: a histogram a layer."""
    names = arrays["layers"].tolist()
    ind, ood, noise = (
        arrays[f"distances/{of}"] for of in ("in-distribution", "OoD", "noise")
    )
    titles = [
        f"AUROC {metrics.auroc(ind[:, k], ood[:, k]):.3f}" for k in range(len(names))
    ]
    sets = {"in-distribution": ind, "OoD": ood, "noise": noise}
    return plots.layer_histograms(sets, names, titles)


def features(arrays: dict[str, np.ndarray]) -> Figure:
    """The last hidden layer in its first two principal components."""
    points = {name: arrays[f"points/{name}"] for name in SETS}
    title = f"features of {arrays['layer']}"
    return feature_plots.feature_scatter(
        points, arrays["singularity"], arrays["share"], title
    )


def roc(found: Answers, title: str) -> Figure:
    curves = {
        name: (row.ind, row.ood)
        for rows in found.groups.values()
        for name, row in rows.items()
        if in_roc(name)
    }
    return plots.roc(curves, title=f"{title}: ROC")


def in_roc(name: str) -> bool:
    """Not the variants, nor single layers, nor parts of a row that is there whole."""
    others = ("fssd,", "displacement,", "relative displacement,", "mc dropout,")
    layer = name.startswith(("fssd ", "control: untrained,"))
    # "fssd default" is in results of before.
    sums = ("clean", "deep", "default", "noise", "tiles", "+ mahalanobis")
    whole = name.removeprefix("fssd ").removeprefix("control: untrained, ") in sums
    return not name.startswith(others) and (not layer or whole)


def epsilon(fitted: LayerScores, criterion: str) -> Figure:
    return plots.epsilon_choice(
        fitted.epsilons, fitted.criterion, fitted.epsilon, CRITERIA[criterion]
    )


# ---- "Effects of ensemble" ----------------------------------------------------------

ONE = "layers of one network"
ALL = "all layers"
OF_SEVERAL = re.compile("fssd, (.+), (clean|labels)")  # rows of `variants.ensembles`
Place = tuple[str, str, str]  # group, row, what weights were fitted on


def ensembles(results: Sequence[Result]) -> dict[str, Figure]:
    """By name: ensembles, of one pair over its seeds; none where there is no such row.

    All of it at ε = 0. A group without rows is left out, and a seed without ensembles.
    """
    results = [r for r in results if any(map(OF_SEVERAL.fullmatch, r["variants"]))]
    if not results:
        return {}
    found: dict[Place, list[dict[str, Any]]] = {}
    for result in results:
        for place, row in _placed(result):
            found.setdefault(place, []).append(row)
    groups: dict[str, dict[str, dict[str, auroc_plots.Interval]]] = {}
    for (group, name, fitted_on), rows in found.items():
        marks = groups.setdefault(group, {}).setdefault(name, {})
        means, low, high = mean_and_ends([[row["auroc"] for row in rows]])
        ends = rows[0]["auroc_ci95"] if len(results) == 1 else (low[0], high[0])
        marks[fitted_on] = (means[0], *ends)
    together = groups.get(ONE, {}).get(ALL, {})
    single = {fitted_on: mark[0] for fitted_on, mark in together.items()}
    first, several = results[0], len(results) > 1
    title = f"{first['benchmark']}, seed{'s' * several} "
    title += ", ".join(str(r["seed"]) for r in results)
    bars = "range of the seeds" if several else "95 % interval"
    return {"ensembles": auroc_plots.ensembles(groups, single, bars, title)}


def _placed(result: Result) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The rows of one seed that are in this picture, from the top."""
    methods, variants = result["methods"], result["variants"]
    for name, row in methods.items():
        part = name.removeprefix("fssd ")
        if part != name and "," not in name and not in_roc(name):
            yield (ONE, part, auroc_plots.NOTHING), row
    # Those of several networks take no input step.
    unstepped = methods.get("fssd") if result["epsilon"] == 0 else None
    for row in (
        methods.get("fssd clean"),
        variants.get("fssd, no input step", unstepped),
    ):
        if row is not None:
            yield (ONE, ALL, _fitted_on(row)), row
    for name, row in variants.items():
        if of_several := OF_SEVERAL.fullmatch(name):
            title, fitted_on = of_several[1], _fitted_on(row)
            if title == "snapshots":
                yield ("snapshots of one training", row["note"], fitted_on), row
            else:
                yield (_group(title), title, fitted_on), row


def _fitted_on(row: dict[str, Any]) -> str:
    return auroc_plots.LABELS if row["target_ood"] else auroc_plots.CLEAN


def _group(title: str) -> str:
    return "architectures" if title.endswith("perceptron") else "networks"
