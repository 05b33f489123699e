"""Figure 1: FSSD with the images that have it, beside the features and F*."""

from collections.abc import Mapping

import numpy as np

from analysis.feature_plots import scatter
from analysis.style import PAGE, SETS, outline, styled
from fssd_jax.extras import missing

try:
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

LARGE = 25  # points, an example's side


@styled
def examples(
    fssd: Mapping[str, np.ndarray],
    at: np.ndarray,
    images: Mapping[str, Mapping[int, np.ndarray]],
    points: Mapping[str, np.ndarray],
    star: np.ndarray,
    share: np.ndarray,
    layer: str,
) -> Figure:
    """Histograms of FSSD over images that have it; principal components (Figure 1).

    Args:
      fssd: set → [n].
      at: [k], values of FSSD.
      images: set → which of these values → an image [h, w, 1 or 3] in [0, 1].
      points: set → [n, 2].
      star: [2], F*.
      share: [2] of the variance explained.
      layer: whose features these are.
    """
    figure = Figure(figsize=(PAGE, 2.8), layout="constrained")
    heights = (2.6, *[1] * len(images))
    grid = figure.add_gridspec(
        len(heights), 2, width_ratios=(1.75, 1), height_ratios=heights, hspace=0
    )
    shown = figure.add_subplot(grid[0, 0])
    bins = np.linspace(*_ends(at), 51)
    for name, of in fssd.items():
        outline(shown, of, bins, SETS[name], label=name)
    shown.set(
        xlabel=f"‖F(x) − F*‖ in {layer}", ylabel="density", yticks=[], xlim=_ends(at)
    )
    for row, (name, of) in enumerate(images.items(), 1):
        _row(figure.add_subplot(grid[row, 0]), name, at, of)
    beside = figure.add_subplot(grid[:, 1])
    scatter(beside, points, star)
    beside.set(
        xlabel=f"first component ({share[0]:.0%} of variance)",
        ylabel=f"second component ({share[1]:.0%})",
    )
    handles, labels = beside.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right", ncols=3, handletextpad=0.2
    )
    shown.legend(loc="upper right")
    return figure


def _ends(at: np.ndarray) -> tuple[float, float]:
    half = (at[1] - at[0]) / 2
    return float(at[0] - half), float(at[-1] + half)


def _row(ax, name: str, at: np.ndarray, images: Mapping[int, np.ndarray]) -> None:
    """Images below the values that they have; a frame in the colour of their set."""
    ax.set(xlim=_ends(at), ylim=(0, 1))
    ax.axis("off")
    ax.text(-0.01, 0.5, name.replace("-", "-\n"), ha="right", va="center",
            transform=ax.transAxes, fontsize=7)  # fmt: skip
    for k, image in images.items():
        colour = np.broadcast_to(image, (*image.shape[:2], 3))
        zoom = LARGE / len(colour)
        drawn = OffsetImage(colour, zoom=zoom, interpolation="nearest")
        frame = {"edgecolor": SETS[name].color, "linestyle": SETS[name].line}
        ax.add_artist(
            AnnotationBbox(drawn, (at[k], 0.5), pad=0.1, bboxprops=frame | {"lw": 1.2})
        )
