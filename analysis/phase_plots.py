"""Phase diagrams: where, in width and training time, a form predicts the network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.style import page, styled
from fssd_jax.extras import missing

try:
    import matplotlib
    from matplotlib.colors import FuncNorm, LogNorm, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

# quantity → its file's name
QUANTITIES = {
    "error": "error", "FSSD error": "fssd-error", "rank": "rank", "AUROC": "auroc",
}  # fmt: skip
# Of differences of AUROC: the small ones are told apart, and none is beyond the ends.
SIGNED_ROOT = FuncNorm(
    (lambda d: np.sign(d) * np.sqrt(np.abs(d)), lambda r: np.sign(r) * r**2), -1, 1
)
SHOWN = (0, 0.03, 0.1, 0.3, 0.6, 1)  # of these, on either side
HOW = {
    "error": ("relative error of the displacement", LogNorm(0.01, 10), "cividis_r"),
    "FSSD error": ("relative error of FSSD", LogNorm(0.01, 10), "cividis_r"),
    "rank": (
        "rank correlation with FSSD within a set,\nmean of in-distribution and OoD",
        Normalize(0, 1),
        "cividis",
    ),
    "AUROC": (
        "AUROC of FSSD, less the network's (−: 0.01 or more below)",
        SIGNED_ROOT,
        "PuOr",
    ),
}


@styled
def phases(
    panels: Mapping[tuple[str, str, str], np.ndarray],
    quantity: str,
    widths: Sequence[int],
    times: Sequence[float],
    title: str,
    seeds: int | None = None,
) -> Figure:
    """A row a form; a column a layer and parametrisation; time to the right, width up.

    Args:
      panels: (form, parametrisation, layer) → [width, time]; NaN is hatched.
      quantity: of `QUANTITIES`.
      widths: in ascending order.
      times: ηt.
      title: of the picture.
      seeds: of how many a square is the mean.
    """
    forms = list(dict.fromkeys(form for form, _, _ in panels))
    columns = list(dict.fromkeys((layer, kind) for _, kind, layer in panels))
    if quantity == "error":  # before training nothing has moved: it is 1 everywhere
        forms = [form for form in forms if form != "untrained"]
    least = -np.inf if quantity in ("rank", "AUROC") else 1e-9  # a logarithm has no 0
    label, norm, colours = HOW[quantity]
    shades = matplotlib.colormaps[colours].with_extremes(bad="1")
    figure, axes = page(len(forms), len(columns), 1.15, sharex=True, sharey=True)
    image: Any = None
    for row, form in zip(axes, forms, strict=True):
        row[0].set_ylabel(form.replace(", ", ",\n") + "\nwidth")
        for ax, (layer, kind) in zip(row, columns, strict=True):
            panel = panels[form, kind, layer]
            image = ax.imshow(
                np.maximum(panel, least), norm=norm, cmap=shades,
                origin="lower", aspect="auto", interpolation="nearest",
            )  # fmt: skip
            _mark(ax, panel, norm if quantity == "AUROC" else None)
    for ax, (layer, kind) in zip(axes[0], columns, strict=True):
        ax.set_title(f"{layer}\n{kind}")
    shown = range(0, len(times), 2)
    for ax in axes[-1]:
        ax.set_xlabel("ηt")
        ax.set_xticks(list(shown), [f"{times[i]:.4g}" for i in shown], rotation=60)
    axes[0, 0].set_yticks(range(len(widths)), list(map(str, widths)))
    ends = {"rank": "min", "AUROC": "neither"}.get(quantity, "both")
    told = {"aspect": 40, "pad": 0.01, "label": label, "extend": ends}
    if quantity == "AUROC":
        told["ticks"] = sorted({sign * tick for sign in (-1, 1) for tick in SHOWN})
    bar = figure.colorbar(image, ax=axes, **told)
    if quantity == "AUROC":
        bar.ax.yaxis.set_major_formatter("{x:g}")
    means = f"each square is the mean of {seeds} seeds; " if seeds else ""
    figure.suptitle(f"{title} ({means}hatched: not known)")
    return figure


def _mark(ax: Any, panel: np.ndarray, signed: Normalize | None) -> None:
    """What grey does not tell: what is missing, and of two dark ends which is below."""
    for y, x in np.argwhere(np.isnan(panel)):
        cell = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="/////")
        cell.set(linewidth=0, edgecolor="0.5")
        ax.add_patch(cell)
    for y, x in np.argwhere(panel <= -0.01) if signed else ():
        dark = signed and signed(panel[y, x]) < 0.2
        place = {"ha": "center", "va": "center", "color": "1" if dark else "0"}
        ax.text(x, y, "−", **place)
