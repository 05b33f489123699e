"""Pictures of Eq. (3): features and their speed while a network is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.plots import COLORS
from fssd_jax.extras import missing

try:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error


def moments(
    panels: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]],
    share: np.ndarray,
) -> Figure:
    """Features at some moments of training in one fixed basis (Figure 2a).

    Args:
      panels: title → (set → [n, 2], F* [2]), in principal components.
      share: [2] of the variance explained at the end.
    """
    figure, axes = plt.subplots(
        *(1, len(panels)),
        figsize=(2.7 * len(panels), 3.2),
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    axes = np.atleast_1d(axes)
    for ax, (title, (points, star)) in zip(axes, panels.items(), strict=True):
        for name, p in points.items():
            ax.scatter(*p.T, s=5, alpha=0.4, label=name, color=COLORS[name], lw=0)
        ax.scatter(
            *star, s=120, marker="*", color="black", edgecolor="white", label="F*"
        )
        ax.set(title=title, xlabel=f"first component ({share[0]:.0%})")
    axes[0].set_ylabel(f"second component ({share[1]:.0%})")
    axes[0].legend(fontsize="x-small", markerscale=1.5)
    return figure


def speeds(panels: Mapping[int, Mapping[str, np.ndarray]], layer: str) -> Figure:
    """Histograms of the moving speed of one layer (Figure 2b).

    Args:
      panels: step → set → [n], ‖dF(x)/dt‖.
      layer: its name.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.7 * len(panels), 2.8), layout="constrained"
    )
    for ax, (step, sets) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        bins = np.linspace(0, np.concatenate(list(sets.values())).max(), 41)
        for name, speed in sets.items():
            ax.hist(speed, bins, alpha=0.55, label=name, color=COLORS[name])
        ax.set(title=f"step {step:,}", xlabel="‖dF/dt‖", yticks=[])
    np.atleast_1d(axes)[0].set_ylabel(f"images, by {layer}")
    np.atleast_1d(axes)[0].legend(fontsize="x-small")
    return figure


def over_time(
    steps: Sequence[int],
    layers: Mapping[str, Mapping[str, Any]],
    quantities: Sequence[str],
) -> Figure:
    """Quartiles of each quantity over training, a column a layer; below, the AUROC.

    Args:
      steps: the moments.
      layers: layer → quantity → set → [moment, 3] quartiles, and "auroc" → [moment].
      quantities: a row each.
    """
    figure, axes = plt.subplots(
        len(quantities) + 1,
        len(layers),
        figsize=(2.9 * len(layers), 2.2 * (len(quantities) + 1)),
        sharex=True,
        layout="constrained",
        squeeze=False,
    )
    for column, (layer, of) in zip(axes.T, layers.items(), strict=True):
        for ax, quantity in zip(column, quantities, strict=False):
            for name, color in COLORS.items():
                low, middle, high = np.asarray(of[quantity][name]).T
                ax.plot(steps, middle, color=color, label=name)
                ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
            ax.set_yscale("log" if quantity == "speed" else "linear")
        for quantity in quantities:
            column[-1].plot(steps, of[quantity]["auroc"], label=quantity)
        column[-1].axhline(0.5, color="black", linewidth=0.5)
        column[-1].set(ylim=(0, 1), xlabel="step")
        column[-1].set_xscale("symlog", linthresh=1)
        column[0].set_title(layer)
    names = {"distance": "‖F − F*‖", "displacement": "‖F − F₀‖", "speed": "‖dF/dt‖"}
    for ax, quantity in zip(axes[:, 0], (*quantities, "AUROC"), strict=True):
        ax.set_ylabel(names.get(quantity, quantity))
    axes[0, 0].legend(fontsize="x-small")
    axes[-1, 0].legend(fontsize="x-small")
    return figure
