"""Pictures of Eq. (3): features and their speed while a network is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.style import METHODS, SETS, grid, legend_below, outline, page, styled
from fssd_jax.extras import missing

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error


@styled
def moments(
    panels: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]],
    share: np.ndarray,
    title: str = "",
) -> Figure:
    """Features at some moments of training in one fixed basis (Figure 2a).

    Args:
      panels: title → (set → [n, 2], F* [2]), in principal components.
      share: [2] of the variance explained at the end.
      title: of the picture.
    """
    figure, axes = grid(len(panels), 5, 2.0, sharex=True, sharey=True)
    for ax, (moment, (points, star)) in zip(axes, panels.items(), strict=True):
        for name, p in points.items():
            told = {"s": 5, "alpha": 0.4, "label": name, **SETS[name].of_points()}
            ax.scatter(*p.T, **told)
        ax.scatter(
            *star, s=80, marker="*", color="black", edgecolor="white", label="F*"
        )
        ax.set(title=moment, xlabel=f"component 1 ({share[0]:.0%})")
    axes[0].set_ylabel(f"component 2 ({share[1]:.0%})")
    legend_below(figure, axes[0], 4)
    figure.suptitle(title)
    return figure


@styled
def speeds(
    panels: Mapping[int, Mapping[str, np.ndarray]], layer: str, title: str = ""
) -> Figure:
    """Histograms of the moving speed of one layer (Figure 2b).

    Args:
      panels: step → set → [n], ‖dF(x)/dt‖.
      layer: its name.
      title: of the picture.
    """
    figure, axes = grid(len(panels), 5, 1.8)
    for ax, (step, sets) in zip(axes, panels.items(), strict=True):
        bins = np.linspace(0, np.concatenate(list(sets.values())).max(), 41)
        for name, speed in sets.items():
            outline(ax, speed, bins, SETS[name], label=name)
        ax.set(title=f"step {step:,}", xlabel=f"‖dF/dt‖ of {layer}")
        ax.yaxis.set_major_locator(MaxNLocator(3))  # each panel has its own scale
    axes[0].set_ylabel("density, 1 / ‖dF/dt‖")
    legend_below(figure, axes[0], 3)
    figure.suptitle(title)
    return figure


NAMES = {
    "distance": "‖F − F*‖",
    "displacement": "‖F − F at step 0‖",
    "speed": "‖dF/dt‖",
}


@styled
def over_time(
    steps: Sequence[int],
    layers: Mapping[str, Mapping[str, Any]],
    quantities: Sequence[str],
    title: str = "",
) -> Figure:
    """Quartiles of each quantity over training, a column a layer; below, the AUROC.

    Args:
      steps: the moments.
      layers: layer → quantity → set → [moment, 3] quartiles, and "auroc" → [moment].
      quantities: a row each.
      title: of the picture.
    """
    figure, axes = page(len(quantities) + 1, len(layers), 1.45, sharex=True)
    for column, (layer, of) in zip(axes.T, layers.items(), strict=True):
        for ax, quantity in zip(column, quantities, strict=False):
            for name, style in SETS.items():
                low, middle, high = np.asarray(of[quantity][name]).T
                told = {"color": style.color, "linestyle": style.line}
                ax.plot(steps, middle, **told, label=f"{name}, quartiles")
                for end in (low, high):
                    ax.plot(steps, end, **told, linewidth=0.5)
            ax.set_yscale("log" if quantity == "speed" else "linear")
        for quantity in quantities:
            style = METHODS[quantity].of_line() | {"markersize": 2.5}
            label = f"AUROC of {NAMES[quantity]}"
            column[-1].plot(steps, of[quantity]["auroc"], **style, label=label)
        column[-1].axhline(0.5, color="black", linewidth=0.5)
        column[-1].set(ylim=(0, 1), xlabel="step")
        column[-1].set_xscale("symlog", linthresh=1)
        column[0].set_title(layer)
    for ax, quantity in zip(axes[:, 0], (*quantities, "AUROC"), strict=True):
        ax.set_ylabel(NAMES.get(quantity, quantity))
    of_both = [ax.get_legend_handles_labels() for ax in (axes[0, 0], axes[-1, 0])]
    handles, labels = ([*a, *b] for a, b in zip(*of_both, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure
