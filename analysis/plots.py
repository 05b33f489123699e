"""Pictures: functions from arrays to a matplotlib figure; `save` writes PNG and PDF."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.extras import missing

try:
    import matplotlib

    # Before pyplot: no screen is needed. A notebook has chosen already.
    if "MPLBACKEND" not in os.environ and "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("Agg")

    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

# Colours of Okabe and Ito (2008), told apart by colour-blind readers too.
COLORS = {"in-distribution": "#0072B2", "OoD": "#D55E00", "noise": "#999999"}


def layer_histograms(
    distances: Mapping[str, np.ndarray], layers: Sequence[str], titles: Sequence[str]
) -> Figure:
    """FSSD of each layer (Figure 6): a panel a layer, a histogram a set.

    Args:
      distances: set → [n, layers].
      layers: names of the layers.
      titles: a line for each panel, such as its AUROC.
    """
    figure, axes = plt.subplots(
        1, len(layers), figsize=(3.2 * len(layers), 2.8), layout="constrained"
    )
    for k, (ax, layer, title) in enumerate(
        zip(np.atleast_1d(axes), layers, titles, strict=True)
    ):
        together = np.concatenate([d[:, k] for d in distances.values()])
        bins = np.linspace(together.min(), together.max(), 41)
        for name, d in distances.items():
            ax.hist(
                d[:, k], bins, density=True, alpha=0.55, label=name, color=COLORS[name]
            )
        ax.set(title=f"{layer}\n{title}", xlabel="‖F(x) − F*‖", yticks=[])
    np.atleast_1d(axes)[0].set_ylabel("density")
    np.atleast_1d(axes)[0].legend(fontsize="small")
    return figure


# A vector of scores [n], or name → vector, or name → (in-distribution, OoD) vectors.
Scores = ArrayLike | Mapping[str, Any]


def histogram(ind: Scores, ood: Scores | None = None, title: str = "") -> Figure:
    """Histograms of scores, higher in-distribution: a panel a method.

        histogram(ind, ood)
        histogram(ind, {"mnist": of_mnist, "svhn": of_svhn})

    Args:
      ind: in-distribution scores [n]; or method → scores, of each a panel.
      ood: OoD scores [m]; or where `ind` is a vector, OoD set → scores; or where it is
        a mapping, scores by the same methods; or None, see `roc`.
      title: of the picture.

    Raises:
      InputError: scores that are no vectors of finite numbers, or names that differ.
    """
    panels: dict[str, dict[str, np.ndarray]] = {}  # title → set → scores
    for name, (inside, outside) in _pairs(ind, ood).items():
        panel, other = (
            (name, "OoD") if isinstance(ind, Mapping) else ("", name or "OoD")
        )
        panels.setdefault(panel, {"in-distribution": inside})[other] = outside
    figure = Figure(figsize=(max(4.6, 3.6 * len(panels)), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (method, drawn) in zip(axes, panels.items(), strict=True):
        bins = np.histogram_bin_edges(np.concatenate(list(drawn.values())), 40)
        for i, (name, scores) in enumerate(drawn.items()):
            color = COLORS.get(name, plt.get_cmap("Dark2")(i - 1))
            ax.hist(scores, bins, density=True, alpha=0.55, label=name, color=color)
        ax.set(title=method, xlabel="score", yticks=[])
    axes[0].set_ylabel("density")
    axes[-1].legend(fontsize="small")
    figure.suptitle(title)
    return figure


def roc(ind: Scores, ood: Scores | None = None, title: str = "") -> Figure:
    """ROC curves of scores, higher in-distribution.

        roc(ind, ood)
        roc({"fssd": ind_a, "msp": ind_b}, {"fssd": ood_a, "msp": ood_b})

    Args:
      ind: in-distribution scores [n]; or method → scores, of each a curve.
      ood: OoD scores [m]; or where `ind` is a vector, OoD set → scores, of each a
        curve; or where it is a mapping, scores by the same methods. If it is left
        out, `ind` is method → (in-distribution, OoD) scores, as `compare(…).scores`.
      title: of the picture.

    Raises:
      InputError: scores that are no vectors of finite numbers, or names that differ.
    """
    curves = _pairs(ind, ood)
    many = len(curves) > 6
    figure = Figure(figsize=(7.2 if many else 4.6, 4.2), layout="constrained")
    ax = figure.subplots()
    if many:
        ax.set_prop_cycle(color=plt.get_cmap("tab20")(np.arange(20)))
    for name, (inside, outside) in curves.items():
        labels = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
        fpr, tpr, _ = roc_curve(labels, np.concatenate([inside, outside]))
        style = "--" if name.startswith("control") else "-"
        width = 2.6 if name.startswith("fssd") else 1.4
        color = "black" if name == "fssd" else None  # None: the next of the cycle
        ax.plot(fpr, tpr, style, label=name, linewidth=width, color=color)
    ax.plot([0, 1], [0, 1], ":", color="black", linewidth=0.8)
    ax.set(
        title=title,
        xlabel="false positive rate (OoD accepted)",
        ylabel="true positive rate (in-distribution accepted)",
    )
    if many:
        ax.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    elif any(curves):
        ax.legend(fontsize="small", loc="lower right")
    return figure


def _pairs(ind: Any, ood: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name → (in-distribution, OoD) scores; two vectors have the name ""."""
    if isinstance(ind, Mapping) and ood is None:
        pairs = {}
        for name, pair in ind.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(
                    f"ind: {name!r} is a {type(pair).__name__}, expected a pair of "
                    "in-distribution and OoD scores; of what compare returns give "
                    "its .scores"
                )
            inside, outside = pair
            if isinstance(outside, Mapping):
                of = {f"{name}, {other}": (inside, s) for other, s in outside.items()}
            else:
                of = {name: (inside, outside)}
            pairs |= of
    elif isinstance(ind, Mapping) and isinstance(ood, Mapping):
        if list(ind) != list(ood):
            raise InputError(
                f"ind has scores of {list(ind)}, ood of {list(ood)}; give both by the "
                "same names, in the same order"
            )
        pairs = {name: (ind[name], ood[name]) for name in ind}
    elif isinstance(ind, Mapping):
        raise InputError(
            f"ind has scores of {list(ind)}, ood is none by name; give ood by the same "
            "names: other methods have other scores"
        )
    elif ood is None:
        raise InputError(
            "ood: is missing; ROC and histograms are of two sets of scores"
        )
    else:
        sets = ood if isinstance(ood, Mapping) else {"": ood}
        pairs = {name: (ind, scores) for name, scores in sets.items()}
    if not pairs:
        raise InputError("ind, ood: a mapping is empty; give one name or more")
    return {
        name: (
            checks.scores(inside, f"in-distribution scores {name}".rstrip()),
            checks.scores(outside, f"OoD scores {name}".rstrip()),
        )
        for name, (inside, outside) in pairs.items()
    }


def epsilon_choice(
    epsilons: np.ndarray, values: np.ndarray, chosen: float, criterion: str = "AUROC"
) -> Figure:
    """How well each ε did on validation images, and the ε chosen."""
    figure, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    ax.plot(epsilons, values, "o-", markersize=4, color=COLORS["in-distribution"])
    ax.axvline(chosen, color="black", linestyle=":", label=f"chosen: ε = {chosen:g}")
    ax.set(xlabel="ε (pixel units)", ylabel=f"{criterion} in validation")
    ax.legend(fontsize="small")
    return figure


def leakage(
    rungs: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[int, Sequence[float]]],
    title: str,
) -> Figure:
    """AUROC by what a method was fitted on, and by the number of OoD labels.

    Args:
      rungs: method → what it was fitted on → AUROC.
      counts: method → number of labelled OoD images → AUROC of each draw.
      title: of the picture.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = list(dict.fromkeys(rung for of in rungs.values() for rung in of))
    for method, of in rungs.items():
        style = "--" if method.startswith("control") else "-"
        at = [names.index(rung) for rung in of]
        left.plot(at, list(of.values()), style, marker="o", markersize=4, label=method)
        numbers = sorted(counts[method])
        means = [np.mean(counts[method][n]) for n in numbers]
        (line,) = right.plot(
            [max(n, 1) for n in numbers], means, style, marker="o", markersize=4
        )
        for n in numbers:
            ends = min(counts[method][n]), max(counts[method][n])
            right.plot([max(n, 1)] * 2, ends, color=line.get_color(), alpha=0.5)
    left.set_xticks(range(len(names)), [n.replace(" ", "\n", 1) for n in names])
    left.set(xlabel="fitted on", ylabel="AUROC", title=title)
    left.legend(fontsize="small")
    right.set_xscale("log")
    ticks = sorted({n for of in counts.values() for n in of})
    right.set_xticks([max(n, 1) for n in ticks], list(map(str, ticks)))
    right.set(xlabel="labelled images of the tested OoD set", ylabel="AUROC")
    return figure


def dots(
    names: Sequence[str],
    values: Sequence[float],
    xlabel: str,
    title: str,
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
    published: Mapping[str, Sequence[float | None]] | None = None,
) -> Figure:
    """A row a name, a dot at its value.

    Args:
      names: from the top.
      values: one a name.
      xlabel: what the values are.
      title: of the picture.
      intervals: ends of a bar through each dot.
      published: source → a value for each name, or None: hollow marks beside the dots.
    """
    figure, ax = plt.subplots(
        figsize=(6.9, 1.2 + 0.26 * len(names)), layout="constrained"
    )
    rows = -np.arange(len(names))
    color = COLORS["in-distribution"]
    ax.plot(values, rows, "o", color=color, markersize=5, label="here")
    for row, (low, high) in zip(rows, intervals or [], strict=bool(intervals)):
        ax.plot([low, high], [row, row], color=color, linewidth=1.2)
    for marker, (source, of) in zip("sD^v", (published or {}).items(), strict=False):
        known = [(v, row) for v, row in zip(of, rows, strict=True) if v is not None]
        if known:
            ax.plot(*zip(*known, strict=True), marker, color="black", mfc="none",
                    markersize=5, linestyle="none", label=source)  # fmt: skip
    ax.set_yticks(rows, list(names))
    ax.set(xlabel=xlabel, title=title)
    ax.grid(axis="x", alpha=0.3)
    if published:
        ax.legend(fontsize="small")
    return figure


def train_size(
    curves: Mapping[str, Mapping[int, Sequence[float]]], title: str
) -> Figure:
    """Mean AUROC against the number of training images.

    Args:
      curves: method → number of training images → AUROC of each seed.
      title: of the picture.
    """
    figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    styles = {"fssd": ("-", 2.4), "control": (":", 1.2)}
    for i, (name, of) in enumerate(curves.items()):
        line, width = styles.get(name.split(",")[0].split(":")[0].split()[0], ("-", 1))
        color = "black" if name == "fssd" else plt.get_cmap("tab20")(i % 20)
        ax.plot(
            list(of),
            [np.mean(values) for values in of.values()],
            line,
            marker="o",
            markersize=3,
            linewidth=width,
            color=color,
            label=name,
        )
    ax.set_xscale("log")
    ax.set(title=title, xlabel="training images", ylabel="AUROC")
    ax.legend(fontsize="x-small", bbox_to_anchor=(1.01, 1), loc="upper left")
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf and close the figure."""
    figure.savefig(stem.with_suffix(".png"), dpi=150)
    # Without dates the same data give the same bytes.
    figure.savefig(
        stem.with_suffix(".pdf"), metadata={"CreationDate": None, "ModDate": None}
    )
    plt.close(figure)
