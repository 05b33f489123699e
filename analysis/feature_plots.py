"""Pictures of features and F*, in principal components."""

from collections.abc import Mapping

import numpy as np

from analysis.plots import COLORS
from fssd_jax.extras import missing

try:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error


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
    figure, ax = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    for name, p in points.items():
        ax.scatter(*p.T, s=6, alpha=0.5, label=name, color=COLORS[name], linewidths=0)
    ax.scatter(
        *singularity, s=140, marker="*", color="black", edgecolor="white", label="F*"
    )
    ax.set(
        title=title,
        xlabel=f"first component ({share[0]:.0%} of variance)",
        ylabel=f"second component ({share[1]:.0%})",
    )
    ax.legend(fontsize="small")
    return figure


def concentration(
    panels: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]],
    title: str,
) -> Figure:
    """Features of each layer with F* and the origin, at one scale (Figure 3).

    Args:
      panels: layer → (set → [n, 2], F* [2], origin [2]), in principal components.
      title: of the picture.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3 * len(panels), 3.3), layout="constrained"
    )
    for ax, (layer, (points, star, origin)) in zip(
        np.atleast_1d(axes), panels.items(), strict=True
    ):
        for name, p in points.items():
            ax.scatter(*p.T, s=5, alpha=0.4, label=name, color=COLORS[name], lw=0)
        ax.scatter(
            *star, s=140, marker="*", color="black", edgecolor="white", label="F*"
        )
        ax.scatter(*origin, s=40, marker="+", color="black", label="F = 0")
        ax.set(
            title=layer, xlabel="first component", aspect="equal", adjustable="datalim"
        )
    np.atleast_1d(axes)[0].set_ylabel("second component")
    np.atleast_1d(axes)[0].legend(fontsize="x-small")
    figure.suptitle(title)
    return figure
