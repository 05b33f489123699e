"""Pictures of AUROCs: by method, by what was fitted on, by the number of images."""

from collections.abc import Mapping, Sequence

from analysis.plots import dot_rows
from analysis.style import (
    METHODS,
    PAGE,
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
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

BEHIND = "#cccccc"  # the other curves of a small multiple


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
