"""Pictures of AUROCs: by method, by what was fitted on, by the number of images."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from analysis.plots import dot_rows
from analysis.style import (
    COLUMN,
    METHODS,
    PAGE,
    Style,
    grid,
    interval,
    legend_below,
    mean_and_ends,
    page,
    style_of,
    styled,
)
from fssd_jax.extras import missing

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

BEHIND = "#cccccc"  # the other curves of a small multiple

# What weights were fitted on. Hollow: no OoD image.
NOTHING, CLEAN, LABELS = "nothing", "clean", "labels"
FITTED_ON = {
    NOTHING: Style("#555555", ":", "D", filled=False),
    CLEAN: METHODS["fssd clean"],
    LABELS: METHODS["fssd"],
}
IN_WORDS = {
    NOTHING: "fitted on nothing",
    CLEAN: "clean: on in-distribution",
    LABELS: "labels: on OoD, too",
}
LINES = {CLEAN: ":", LABELS: "--"}
# Of a logit axis, finest first: the first are taken of which few span the values.
TICKS = (
    (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    (1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999),
    (1e-4, 0.01, 0.5, 0.99, 0.9999),
)
FEW = 7


@styled
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
    figure, axes = page(1, 2, 2.9)
    left, right = axes[0]
    names = list(dict.fromkeys(rung for of in rungs.values() for rung in of))
    for i, (method, of) in enumerate(rungs.items()):
        style = style_of(method, METHODS, i)
        at = [names.index(rung) for rung in of]
        left.plot(at, list(of.values()), **style.of_line(), label=method)
        numbers = sorted(counts[method])
        draws = mean_and_ends(counts[method][n] for n in numbers)
        interval(right, [max(n, 1) for n in numbers], *draws, style)
    left.set_xticks(range(len(names)), [n.replace(" ", "\n", 1) for n in names])
    left.set(xlabel="fitted on", ylabel="AUROC", title=title)
    right.set_xscale("log")
    ticks = sorted({n for of in counts.values() for n in of})
    right.set_xticks([max(n, 1) for n in ticks], list(map(str, ticks)))
    right.xaxis.set_minor_locator(NullLocator())
    right.set(
        xlabel="labelled images of the tested OoD set",
        ylabel="AUROC", title="mean and range of draws",
    )  # fmt: skip
    legend_below(figure, left, 5)
    return figure


@styled
def ladder(pairs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """AUROC by what a method was fitted on, least first: a panel a pair.

    Args:
      pairs: title → method → what it was fitted on → AUROC.
    """
    figure, axes = page(1, len(pairs), 2.7, sharey=True)
    for ax, (title, rungs) in zip(axes[0], pairs.items(), strict=True):
        names = list(dict.fromkeys(rung for of in rungs.values() for rung in of))[::-1]
        for i, (method, of) in enumerate(rungs.items()):
            at = [names.index(rung) for rung in of]
            style = style_of(method, METHODS, i)
            ax.plot(at, list(of.values()), **style.of_line(), label=method)
        ax.axhline(0.5, color="#cccccc", linewidth=0.6, zorder=0)
        ax.set_xticks(range(len(names)), names)
        ax.set(title=title, xlabel="fitted on", ylim=(0, 1.02))
    axes[0, 0].set_ylabel("AUROC")
    legend_below(figure, axes[0, 0], 5)
    return figure


@styled
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
    figure = Figure(figsize=(PAGE, 0.8 + 0.17 * len(names)), layout="constrained")
    ax = figure.subplots()
    rows = dot_rows(ax, names, values, intervals=intervals, label="here")
    for marker, (source, of) in zip("sD^v", (published or {}).items(), strict=False):
        known = [(v, row) for v, row in zip(of, rows, strict=True) if v is not None]
        if known:
            ax.plot(*zip(*known, strict=True), marker, color="black", mfc="none",
                    linestyle="none", label=source)  # fmt: skip
    ax.set(xlabel=xlabel, title=title)
    if published:
        legend_below(figure, ax, 4)
    return figure


@styled
def train_size(
    curves: Mapping[str, Mapping[int, Sequence[float]]], title: str
) -> Figure:
    """Mean AUROC against the number of training images: a panel a method.

    The others' means are in grey behind; the bars are the range of the seeds.

    Args:
      curves: method → number of training images → AUROC of each seed.
      title: of the picture.
    """
    figure, axes = grid(len(curves), 5, 1.25, sharex=True, sharey=True)
    sizes = sorted({size for of in curves.values() for size in of})
    found = {name: mean_and_ends(of.values()) for name, of in curves.items()}
    for ax, (name, of) in zip(axes, curves.items(), strict=True):
        for other, (means, _, _) in found.items():
            ax.plot([*curves[other]], means, color=BEHIND, linewidth=0.6)
        style = METHODS["control: raw pixels" if name[:7] == "control" else "fssd"]
        style = style._replace(color="#000000")
        interval(ax, [*of], *found[name], style)
        ax.set(xscale="log", ylim=(0, 1.08), yticks=(0, 0.5, 1))
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        at = ": " if ": " in name else ", "
        ax.set_title(name.replace(at, f"{at.strip()}\n"))
        ax.xaxis.set_minor_locator(NullLocator())
    figure.suptitle(title)
    figure.supxlabel("training images", fontsize=8)
    figure.supylabel("AUROC", fontsize=8)
    return figure


# AUROC, and the ends of its bar.
Interval = tuple[float, float, float]


@styled
def ensembles(
    groups: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    single: Mapping[str, float],
    bars: str,
    title: str,
) -> Figure:
    """What is combined, a row each; two marks: by labels, and without any.

    The axis is that of log(AUROC / (1 − AUROC)), which tells apart what is nearly
    perfect; what lies beyond its ends is drawn there.

    Args:
      groups: group → row → one of `FITTED_ON` → AUROC with its interval.
      single: one of `LINES` → AUROC of one network, a line through all rows.
      bars: what the intervals are.
      title: of the picture.
    """
    names = [name for group, rows in groups.items() for name in (group, *rows)]
    figure = Figure(figsize=(COLUMN, 1.2 + 0.17 * len(names)), layout="constrained")
    ax = figure.subplots()
    ax.set_yticks([-k for k in range(len(names))], names)
    values = [v for rows in groups.values() for of in rows.values()
              for v in chain(*of.values())]  # fmt: skip
    least, most = _logit(ax, [*values, *single.values()])
    labels = ax.get_yticklabels()
    row, told = 0, set()  # what is in the legend already
    for rows in groups.values():
        labels[row].set_fontweight("bold")
        if row:
            ax.axhline(0.5 - row, color=BEHIND, linewidth=0.6)
        for marks in rows.values():
            row += 1
            apart = 0.17 if len(marks) > 1 else 0
            for fitted_on, of in marks.items():
                y = -row + (apart if fitted_on == LABELS else -apart)
                value, *ends = np.clip(of, least, most)
                style = FITTED_ON[fitted_on]
                ax.plot(ends, [y, y], "-", color=style.color, linewidth=0.8)
                label = None if fitted_on in told else IN_WORDS[fitted_on]
                look = style._replace(line="none").of_line()
                ax.plot(value, y, **look, clip_on=False, label=label)
                told.add(fitted_on)
        row += 1
    for fitted_on, auroc in single.items():
        ax.axvline(
            auroc,
            color=FITTED_ON[fitted_on].color, linestyle=LINES[fitted_on],
            linewidth=0.8, zorder=0, label=f"one network, {fitted_on}",
        )  # fmt: skip
    ax.set(xlabel=f"AUROC in %, logit scale\n(bars: {bars})", title=title)
    ax.set_ylim(0.4 - len(names), 0.6)
    ax.tick_params("y", length=0)
    legend_below(figure, ax, 2)
    return figure


def _logit(ax: Axes, values: Sequence[float]) -> tuple[float, float]:
    """Make the axis one of logits that spans fractions; where it ends.

    Beside 0 and 1, which it does not reach.
    """
    low, high = (max(min(values), TICKS[-1][0]), min(max(values), TICKS[-1][-1]))
    for known in TICKS:
        first = min(sum(tick <= low for tick in known), len(known) - 1) - 1
        last = max(sum(tick < high for tick in known), first + 1)
        ticks = known[max(first, 0) : last + 1]
        if first >= 0 and last < len(known) and len(ticks) <= FEW:
            break
    ax.set_xscale("logit")
    ax.set_xlim(ticks[0], ticks[-1])
    ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    return ticks[0], ticks[-1]
