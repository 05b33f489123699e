"""Pictures of features and F*, in principal components."""

from collections.abc import Mapping

import numpy as np

from analysis.pca import Panel
from analysis.style import SETS, grid, legend_below, outline, page, styled
from fssd_jax.extras import missing

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error


@styled
def feature_scatter(
    points: Mapping[str, np.ndarray],
    singularity: np.ndarray,
    share: np.ndarray,
    title: str,
) -> Figure:
    """Features in their first two principal components, F* as a star (Figure 1).

    Args:
      points: set → [n, 2].
      singularity: [2].
      share: [2] of the variance explained.
      title: of the picture.
    """
    figure, (ax,) = grid(1, 1, 3.3)
    scatter(ax, points, singularity)
    ax.set(
        title=title,
        xlabel=f"first component ({share[0]:.0%} of variance)",
        ylabel=f"second component ({share[1]:.0%})",
    )
    legend_below(figure, ax, 4)
    return figure


def scatter(ax, points: Mapping[str, np.ndarray], star: np.ndarray) -> None:
    """A panel: the sets' points, and F* as a star."""
    for name, p in points.items():
        told = {"s": 6, "alpha": 0.5, "label": name, **SETS[name].of_points()}
        ax.scatter(*p.T, **told)
    ax.scatter(*star, s=90, marker="*", color="black", edgecolor="white", label="F*")


@styled
def concentration(panels: Mapping[str, Panel], title: str) -> Figure:
    """Features of each layer with F* and the origin, at one scale (Figure 3).

    What spreads across the plane is seen as a point in it, as noise often is: above
    each panel stands how much of the spread it shows.

    Args:
      panels: layer → its features.
      title: of the picture.
    """
    figure, axes = grid(len(panels), 4 if len(panels) > 6 else 3, 2.25)
    for ax, (layer, panel) in zip(axes, panels.items(), strict=True):
        scatter(ax, panel.points, panel.star)
        ax.scatter(*panel.origin, s=40, marker="+", color="black", label="F = 0")
        ax.set(
            title=f"{layer}\n{panel.share:.0%}, noise {panel.of_noise:.0%}",
            xlabel="first component", ylabel="second component",
            aspect="equal", adjustable="datalim",
        )  # fmt: skip
    legend_below(figure, axes[0], 5)
    figure.suptitle(f"{title} (%: how much of the variance the plane shows)")
    return figure


@styled
def layers_of_pairs(
    pairs: Mapping[str, tuple[Mapping[str, np.ndarray], list[str]]],
    titles: Mapping[str, list[str]],
) -> Figure:
    """FSSD of each layer: a row a pair of sets, a panel a layer (Figure 6).

    Args:
      pairs: pair → (set → [n, layers], the layers' names).
      titles: pair → a line for each panel, such as its AUROC.
    """
    columns = max(len(names) for _, names in pairs.values())
    figure, axes = page(len(pairs), columns, 1.9)
    for row, (pair, (distances, names)) in zip(axes, pairs.items(), strict=True):
        for k, ax in enumerate(row):
            if k >= len(names):
                ax.remove()
                continue
            together = np.concatenate([d[:, k] for d in distances.values()])
            bins = np.linspace(together.min(), together.max(), 41)
            for name, d in distances.items():
                outline(ax, d[:, k], bins, SETS[name], label=name)
            ax.set(title=f"{names[k]}\n{titles[pair][k]}", yticks=[])
            ax.set_xlabel("‖F(x) − F*‖")
        row[0].set_ylabel(f"{pair}\ndensity")
    legend_below(figure, axes[0, 0], 3)
    return figure
