"""Pictures of AUROCs on changed images: by level of corruption, by amount of noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.style import (
    METHODS,
    PAGE,
    beside,
    interval,
    legend_below,
    page,
    style_of,
    styled,
)
from fssd_jax.extras import missing

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

# What tells boxes apart in grey; FSSD's is filled.
HATCHES = {
    "fssd clean": "/////",
    "msp": ".....",
    "deep ensemble": "xxxxx",
    "mc dropout": "-----",
    "outlier exposure, fine-tuned": "|||||",
    "odin": "\\\\\\\\\\",
    "mahalanobis": "+++++",
    "mahalanobis clean": "OO",
    "control: untrained": "***",
    "control: pixel stats": "ooo",
}
OTHER_HATCHES = ("//..", "--..", "||..", "xx..", "++..", "//--", "||//", "xx--")
FILLED = "fssd"
KEYS = ("whislo", "q1", "med", "q3", "whishi", "mean")  # matplotlib's
Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]
SHARE = 0.86  # of the space of a level that its boxes take


@styled
def boxes(
    found: Mapping[str, Sequence[Sequence[float]]], levels: Sequence[int], title: str
) -> Figure:
    """A box a method at each level of corruption (Figure 4).

    Args:
      found: method → a box a level: least, lower quartile, median, upper quartile,
        greatest, mean.
      levels: where they stand.
      title: of the picture.
    """
    figure = Figure(figsize=(PAGE, 3.3), layout="constrained")
    ax = figure.subplots()
    width = SHARE / len(found)
    for i, (name, of) in enumerate(found.items()):
        style = style_of(name, METHODS, i)
        stats: list[dict[str, Any]] = [dict(zip(KEYS, box, strict=True)) for box in of]
        at = np.arange(len(levels)) + (i - (len(found) - 1) / 2) * width
        line = {"color": style.color, "linewidth": 0.8}
        filled, other = name == FILLED, OTHER_HATCHES[i % len(OTHER_HATCHES)]
        drawn = ax.bxp(
            stats,
            positions=at,
            widths=0.8 * width,
            patch_artist=True,
            showmeans=True,
            showfliers=False,
            showcaps=False,
            boxprops={
                "facecolor": style.color if filled else "white",
                "edgecolor": style.color, "linewidth": 0.8,
                "hatch": "" if filled else HATCHES.get(name, other),
                "hatch_linewidth": 0.5,
            },
            whiskerprops=line,
            medianprops={"color": "white" if filled else "black"},
            meanprops={
                "marker": "D", "markersize": 2.2,
                "markerfacecolor": "white", "markeredgecolor": "black",
                "markeredgewidth": 0.5,
            },
            manage_ticks=False,
        )  # fmt: skip
        drawn["boxes"][0].set_label(name)
    for at in np.arange(len(levels) - 1) + 0.5:
        ax.axvline(at, color="#dddddd", linewidth=0.6, zorder=0)
    ax.axhline(0.5, color="#999999", linewidth=0.6, zorder=0)  # chance
    ax.set_xticks(range(len(levels)), list(map(str, levels)))
    ax.set(
        xlim=(-0.5, len(levels) - 0.5), xlabel="level of corruption",
        ylabel="AUROC", title=title,
    )  # fmt: skip
    legend_below(figure, ax, 5)
    return figure


# AUROCs near 1 are told apart by their distance from it, and most lie there.
STRETCHED = (lambda a: -np.sqrt(np.clip(1 - a, 0, None)), lambda y: 1 - y**2)
TICKS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
BESIDE = 0.006  # of the width, from one method's bars to the next one's
XLABELS = {
    "gaussian_noise": "standard deviation of the noise\n(pixels in [0, 1])",
    "impulse_noise": "share of values that become 0 or 1",
}


@styled
def against_noise(
    curves: Mapping[str, Mapping[str, Curve]], amounts: Mapping[str, Sequence[float]]
) -> Figure:
    """AUROC by the amount of noise in both test sets: a panel a noise (Figure 5).

    The axis of AUROC is stretched towards 1; methods stand a little beside each other.

    Args:
      curves: noise → method → (AUROC, low, high), of each amount.
      amounts: noise → where they stand.
    """
    figure, axes = page(1, len(curves), 3.6, sharey=True)
    for ax, (noise, methods) in zip(axes[0], curves.items(), strict=True):
        at = np.asarray(amounts[noise], float)
        for i, (name, of) in enumerate(methods.items()):
            style = style_of(name, METHODS, i)
            x = beside(ax.xaxis, at, i, len(methods), BESIDE)
            interval(ax, x, *of, style, label=name)
        title = noise.replace("_", " ").capitalize()
        ax.set(title=title, xlabel=XLABELS.get(noise, "amount"))
        ax.set_xticks(list(amounts[noise]), [f"{a:g}" for a in amounts[noise]])
        ax.set_ylabel("AUROC (stretched towards 1)")
        ax.axhline(0.5, color="#999999", linewidth=0.6, zorder=0)  # chance
    low = min([0.5, *(np.min(of) for each in curves.values() for of in each.values())])
    ax = axes[0][0]  # whose scale all share
    ax.set_yscale("function", functions=STRETCHED)
    ax.set_ylim(max(0, low - 0.03), 1)
    ax.set_yticks([t for t in TICKS if t >= low - 0.03], minor=False)
    ax.yaxis.set_major_formatter("{x:g}")
    legend_below(figure, ax, 4)
    return figure
