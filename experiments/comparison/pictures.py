"""Pictures of a comparison, from stored arrays: nothing here runs a network."""

import numpy as np
from matplotlib.figure import Figure

from analysis import feature_plots, plots
from experiments.comparison.answers import Answers
from experiments.comparison.report import FITTED
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
    whole = name.endswith((" clean", " default", " noise"))
    return not name.startswith(others) and (not layer or whole)


def epsilon(fitted: LayerScores, criterion: str) -> Figure:
    return plots.epsilon_choice(
        fitted.epsilons, fitted.criterion, fitted.epsilon, CRITERIA[criterion]
    )
