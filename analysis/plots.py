"""Pictures of scores, from arrays to a matplotlib figure; `save` writes PNG and PDF."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fssd_jax import checks, metrics
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

from analysis.style import (
    COLUMN,
    METHODS,
    OTHERS,
    PAGE,
    RC,
    SETS,
    Style,
    grid,
    legend_below,
    outline,
    style_of,
    styled,
)

FEW = 6  # curves that one panel can show


@styled
def layer_histograms(
    distances: Mapping[str, np.ndarray], layers: Sequence[str], titles: Sequence[str]
) -> Figure:
    """FSSD of each layer (Figure 6): a panel a layer, a histogram a set.

    Args:
      distances: set → [n, layers].
      layers: names of the layers.
      titles: a line for each panel, such as its AUROC.
    """
    figure, axes = grid(len(layers), 4, 1.8)
    for k, (ax, layer, title) in enumerate(zip(axes, layers, titles, strict=True)):
        together = np.concatenate([d[:, k] for d in distances.values()])
        bins = np.linspace(together.min(), together.max(), 41)
        for name, d in distances.items():
            outline(ax, d[:, k], bins, SETS[name], label=name)
        ax.set(title=f"{layer}\n{title}", xlabel="‖F(x) − F*‖", yticks=[])
        ax.set_ylabel("density")
    legend_below(figure, axes[0], len(distances))
    return figure


# A vector of scores [n], or name → vector, or name → (in-distribution, OoD) vectors.
Scores = ArrayLike | Mapping[str, Any]


@styled
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
    figure, axes = grid(len(panels), 3, 2.0 if len(panels) > 1 else 2.5)
    for ax, (method, drawn) in zip(axes, panels.items(), strict=True):
        bins = np.histogram_bin_edges(np.concatenate(list(drawn.values())), 40)
        for i, (name, scores) in enumerate(drawn.items()):
            outline(ax, scores, bins, style_of(name, SETS, i - 1), label=name)
        ax.set(title=method, xlabel="score", ylabel="density", yticks=[])
    legend_below(figure, axes[-1], 3)
    figure.suptitle(title)
    return figure


@styled
def roc(ind: Scores, ood: Scores | None = None, title: str = "") -> Figure:
    """ROC curves of scores, higher in-distribution.

    Of many, a few are drawn: FSSD, and the best methods and control. The AUROC of all
    stands beside, with its 95 % interval.

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
    from sklearn.metrics import roc_curve  # slow to import, for one of many pictures

    curves = _pairs(ind, ood)
    many = len(curves) > FEW
    found = (
        {name: metrics.evaluate(*pair) for name, pair in curves.items()} if many else {}
    )
    aurocs = {name: of.auroc for name, of in found.items()}
    styles = _styles(chosen(aurocs) if many else list(curves))
    size = (PAGE, max(2.6, 0.9 + 0.15 * len(curves))) if many else (COLUMN, 3.0)
    figure = Figure(figsize=size, layout="constrained")
    ax, *beside = figure.subplots(1, 1 + many, squeeze=False)[0]
    for name, style in styles.items():
        inside, outside = curves[name]
        labels = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
        fpr, tpr, _ = roc_curve(labels, np.concatenate([inside, outside]))
        ax.plot(
            *(fpr, tpr),
            label=name, color=style.color, linestyle=style.line,
            linewidth=1.8 if style.color == "#000000" else 1.2,
        )  # fmt: skip
    ax.plot([0, 1], [0, 1], "-", color="#cccccc", linewidth=0.6, zorder=0)
    ax.set(
        title=title,
        xlabel="false positive rate\n(OoD accepted)",
        ylabel="true positive rate\n(in-distribution accepted)",
    )
    if beside:
        dot_rows(
            *(beside[0], list(found), list(aurocs.values())),
            intervals=[of.auroc_ci95 for of in found.values()],
            styles=[styles.get(name, PLAIN) for name in found],
        )
        beside[0].set_xlabel(
            "AUROC, 95 % interval of new images\n"
            "(where none is seen, it is within the mark)"
        )
    if any(curves):
        legend_below(figure, ax, 4 if many else 2)
    return figure


PLAIN = Style("#777777", "-", "o")  # of what is not singled out


def chosen(aurocs: Mapping[str, float]) -> list[str]:
    """The names to single out: FSSD, the two best other methods, the best control.

    FSSD is the row of that name, or the best one whose name begins so.
    """
    best = sorted(aurocs, key=aurocs.__getitem__, reverse=True)
    controls = [name for name in best if name.startswith("control")]
    fssd = [name for name in best if name.startswith("fssd")]
    fssd.sort(key=lambda name: name != "fssd")
    others = [name for name in best if name not in (*controls, *fssd)]
    wanted = (*fssd[:1], *others[:2], *controls[:1])
    return [name for name in aurocs if name in wanted]


def _styles(names: Sequence[str]) -> dict[str, Style]:
    """Of a few methods: each its own, of another line where two were alike in grey."""
    styles: dict[str, Style] = {}
    for place, name in enumerate(names):
        own = style_of(name, METHODS, place)
        if name not in METHODS and (name.startswith("fssd") or len(names) == 1):
            own = METHODS["fssd"]
        taken = [style.line for style in styles.values()]
        lines = (own.line, *(other.line for other in OTHERS))
        free = (line for line in lines if line not in taken)
        styles[name] = own._replace(line=next(free, own.line))
    return styles


def dot_rows(
    ax,
    names: Sequence[str],
    values: Sequence[float],
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
    styles: Sequence[Style] | None = None,
    label: str | None = None,
) -> np.ndarray:
    """A row a name, from the top: a dot at its value, and a bar through it.

    Controls are hollow. Returns where the rows are.
    """
    rows = -np.arange(len(names))
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        style = styles[i] if styles else SETS["in-distribution"]
        if intervals:
            ax.plot(intervals[i], [row, row], "-", color=style.color, linewidth=1)
        hollow = name.startswith("control") or not style.filled
        ax.plot(
            *(values[i], row, style.marker),
            color=style.color, mfc="white" if hollow else style.color,
            label=label if i == 0 else None,
        )  # fmt: skip
    ax.set_yticks(rows, list(names))
    ax.grid(axis="x", alpha=0.3, linewidth=0.5)
    return rows


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


@styled
def epsilon_choice(
    epsilons: np.ndarray, values: np.ndarray, chosen: float, criterion: str = "AUROC"
) -> Figure:
    """How well each ε did on validation images, and the ε chosen."""
    figure, (ax,) = grid(1, 1, 2.3)
    ax.plot(epsilons, values, "o-", color="black", label="FSSD")
    ax.axvline(chosen, color="black", linestyle=":", label=f"chosen: ε = {chosen:g}")
    ax.set(xlabel="ε (pixels in [0, 1])", ylabel=f"{criterion} in validation")
    ax.legend()
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf and close the figure."""
    with matplotlib.rc_context(RC):
        figure.savefig(stem.with_suffix(".png"), dpi=200)
        # Without dates the same data give the same bytes.
        figure.savefig(
            stem.with_suffix(".pdf"), metadata={"CreationDate": None, "ModDate": None}
        )
    plt.close(figure)
