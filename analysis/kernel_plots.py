"""Pictures of Eq. (4): FSSD against its kernel forms, and what the width does."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from analysis.plots import COLORS

FORMS = ("displacement", "path", "frozen")


def forms(sizes: Mapping[str, np.ndarray], layers: Sequence[str], title: str) -> Figure:
    """FSSD of every image against each form of Eq. (4), a row a form.

    Args:
      sizes: form → [image, layer]; in-distribution images first, then as many OoD.
      layers: names of the layers.
      title: of the picture.
    """
    figure, axes = plt.subplots(
        len(FORMS),
        len(layers),
        figsize=(2.9 * len(layers), 2.7 * len(FORMS)),
        layout="constrained",
        squeeze=False,
    )
    half = len(sizes["fssd"]) // 2
    halves = {"in-distribution": slice(half), "OoD": slice(half, None)}
    for row, form in zip(axes, FORMS, strict=True):
        for k, ax in enumerate(row):
            x, y = sizes[form][:, k], sizes["fssd"][:, k]
            for name, part in halves.items():
                ax.scatter(
                    *(x[part], y[part]),
                    s=7,
                    alpha=0.6,
                    linewidths=0,
                    color=COLORS[name],
                    label=name,
                )
            ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle=":")
            ax.set(xlim=(0, None), ylim=(0, None), xlabel=f"‖{form}‖")
            ax.set_title(f"{layers[k]}, r = {np.corrcoef(x, y)[0, 1]:.2f}")
        row[0].set_ylabel("FSSD")
    axes[0, 0].legend(fontsize="small")
    figure.suptitle(title)
    return figure


def against_width(facts: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Errors and kernel drift, a panel each; a line of slope −1/2 is drawn in."""
    panels = {
        "error of the path form": "relative_error_path",
        "error of the frozen form": "relative_error_frozen",
        "kernel drift ‖Θ_T − Θ_0‖/‖Θ_0‖": "kernel_drift",
    }
    widths = sorted(facts)
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
    for ax, (title, fact) in zip(axes, panels.items(), strict=True):
        for layer in facts[widths[0]]:
            values = [facts[w][layer][fact] for w in widths]
            ax.plot(widths, values, "o-", markersize=4, label=layer)
        top = max(facts[widths[0]][layer][fact] for layer in facts[widths[0]])
        guide = top * np.sqrt(widths[0] / np.array(widths))
        ax.plot(widths, guide, ":", color="black", label="∝ 1/√width")
        ax.set(title=title, xlabel="width", xscale="log", yscale="log")
        ax.set_xticks(widths, list(map(str, widths)), minor=False)
        ax.minorticks_off()
    axes[0].legend(fontsize="small")
    return figure


def detectors(facts: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """AUROC of FSSD, of its forms and terms, and the terms' shares, by width."""
    shown = {
        "FSSD": ("auroc_fssd", "-", "black"),
        "displacement ‖Δ‖": ("auroc_displacement", "-", "#0072B2"),
        "frozen form": ("auroc_frozen", "-", "#D55E00"),
        "infinite width": ("auroc_infinite", "-", "#009E73"),
        "offset ‖o‖ alone": ("auroc_offset", "--", "#CC79A7"),
        "FSSD, untrained": ("auroc_untrained", "--", "#999999"),
    }
    terms = {"moved": "#0072B2", "cross": "#E69F00", "offset": "#CC79A7"}
    widths = sorted(facts)
    layers = list(facts[widths[0]])
    figure, axes = plt.subplots(
        2,
        len(layers),
        figsize=(2.9 * len(layers), 5.2),
        layout="constrained",
        squeeze=False,
    )
    for layer, (top, bottom) in zip(layers, axes.T, strict=True):
        for name, (fact, style, color) in shown.items():
            values = [facts[w][layer].get(fact, np.nan) for w in widths]
            if not np.isnan(values).all():
                top.plot(
                    widths, values, style, color=color, label=name, marker="o", ms=3
                )
        top.axhline(0.5, color="black", linewidth=0.5)
        top.set(title=layer, ylim=(0, 1), xscale="log")
        for name, color in terms.items():
            values = [facts[w][layer][f"{name}_share"] for w in widths]
            bottom.plot(widths, values, color=color, label=name, marker="o", ms=3)
        bottom.axhline(0, color="black", linewidth=0.5)
        bottom.set(xlabel="width", xscale="log")
        for ax in (top, bottom):
            ax.set_xticks(widths, list(map(str, widths)))
            ax.minorticks_off()
    axes[0, 0].set_ylabel("AUROC")
    axes[1, 0].set_ylabel("share of FSSD²")
    # Of the last layer, which has the most lines.
    axes[0, -1].legend(fontsize="x-small")
    axes[1, 0].legend(fontsize="x-small")
    return figure
