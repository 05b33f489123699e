"""Pictures of Eq. (4): FSSD against its kernel forms, and what the width does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.plots import dot_rows
from analysis.style import (
    LAYERS,
    METHODS,
    PAGE,
    SETS,
    Style,
    beside,
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

FORMS = ("displacement", "path", "frozen")
HALVES = ("in-distribution", "OoD")  # of the points, in this order


@styled
def forms(sizes: Mapping[str, np.ndarray], layers: Sequence[str], title: str) -> Figure:
    """FSSD of every image against each form of Eq. (4), a row a form.

    Above a panel stands Pearson's r within each set: that of both together is mostly
    of where the sets lie.

    Args:
      sizes: form → [image, layer]; in-distribution images first, then as many OoD.
      layers: names of the layers.
      title: of the picture.
    """
    figure, axes = page(len(FORMS), len(layers), 1.75)
    for row, form in zip(axes, FORMS, strict=True):
        for k, ax in enumerate(row):
            x, y = sizes[form][:, k], sizes["fssd"][:, k]
            _two_sets(ax, x, y, s=7)
            ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle=":")
            ax.set(xlim=(0, None), ylim=(0, None), xlabel=f"‖{form}‖")
            inside, outside = (np.corrcoef(x[s], y[s])[0, 1] for s in _halves(len(x)))
            told = f"r = {inside:.2f} in, {outside:.2f} OoD".replace("-", "−")
            ax.set_title(f"{layers[k]}\n{told}")
        row[0].set_ylabel("FSSD")
    legend_below(figure, axes[0, 0], 2)
    figure.suptitle(title)
    return figure


def _halves(count: int) -> tuple[slice, slice]:
    return slice(count // 2), slice(count // 2, None)


def _two_sets(ax, x: np.ndarray, y: np.ndarray, **size) -> None:
    """Points of both halves, told apart by colour and marker."""
    for name, part in zip(HALVES, _halves(len(x)), strict=True):
        told = {"alpha": 0.6, "label": name, **SETS[name].of_points(), **size}
        ax.scatter(x[part], y[part], **told)


def _widths(ax, widths: Sequence[int]) -> None:
    ax.set(xlabel="width", xscale="log")
    ax.set_xticks(widths, list(map(str, widths)))
    ax.xaxis.set_minor_locator(NullLocator())


DRIFT = "‖Θ − Θ before‖ / ‖Θ before‖"
# Width → layer → what metrics.json tells of it.
OfWidths = Mapping[int, Mapping[str, Mapping[str, Any]]]


def _over(
    ax,
    runs: Sequence[OfWidths],
    number: Callable,
    layer: str,
    style,
    at: tuple[int, int],
    **told,
) -> list[float]:
    """Draw a layer's number by width, mean and range of the runs; return the means.

    `at` is its place, and of how many lines, for several runs have bars.
    """
    widths = sorted(runs[0])
    values = [[number(run[w][layer]) for run in runs] for w in widths]
    means, low, high = mean_and_ends(values)
    x = beside(ax.xaxis, widths, *at) if len(runs) > 1 else widths
    interval(ax, x, means, low, high, style, **told)
    return means


@styled
def against_width(runs: Sequence[OfWidths]) -> Figure:
    """Errors and kernel drift, a panel each; a line of slope −1/2 is drawn in.

    Of several runs the means; the bars are their range.

    Args:
      runs: of each seed.
    """
    panels = {
        "error of the path form": lambda of: of["forms"]["path"]["relative_error"],
        "error of the frozen form": lambda of: of["forms"]["frozen"]["relative_error"],
        "kernel drift": lambda of: of["kernel_drift"],
    }
    labels = (*["error / displacement"] * 2, DRIFT)
    widths = sorted(runs[0])
    layers = list(runs[0][widths[0]])
    figure, axes = page(1, 3, 2.5)
    for ax, label, (title, number) in zip(axes[0], labels, panels.items(), strict=True):
        _widths(ax, widths)
        narrowest = []
        for i, layer in enumerate(layers):
            style, at = style_of(layer, LAYERS, i), (i, len(layers))
            narrowest.append(_over(ax, runs, number, layer, style, at, label=layer)[0])
        guide = max(narrowest) * np.sqrt(widths[0] / np.array(widths))
        ax.plot(widths, guide, color="black", linewidth=0.6, label="∝ 1/√width")
        ax.set(title=title, ylabel=label, yscale="log")
    legend_below(figure, axes[0, 0], 6)
    return figure


@styled
def detectors(runs: Sequence[OfWidths]) -> Figure:
    """AUROC of FSSD, of its forms and terms, and the terms' shares, by width.

    Of one run the bars are 95 % intervals of new images, where metrics.json has them;
    of several they are the range of the runs, and the line is their mean.

    Args:
      runs: of each seed.
    """
    shown = {
        "FSSD": "fssd",
        "displacement ‖Δ‖": "displacement",
        "frozen form": "frozen",
        "infinite width": "infinite",
        "offset ‖o‖ alone": "offset",
        "FSSD, untrained": "untrained",
    }
    widths = sorted(runs[0])
    layers = list(runs[0][widths[0]])
    figure, axes = page(3, len(layers), 1.9, sharey="row")
    for layer, (top, *bottoms) in zip(layers, axes.T, strict=True):
        for ax in (top, *bottoms):
            _widths(ax, widths)
        for ax in (top, *bottoms[:-1]):
            ax.set_xlabel("")
        for i, (name, form) in enumerate(shown.items()):
            found = [[run[w][layer]["forms"] for run in runs] for w in widths]
            # The infinitely wide network is known by its logits alone.
            if form not in found[0][0]:
                continue
            of_runs = [[of[form]["auroc"] for of in at] for at in found]
            means, low, high = mean_and_ends(of_runs)
            if len(runs) == 1:
                ends = [
                    at[0][form].get("auroc_ci95", (mean, mean))
                    for at, mean in zip(found, means, strict=True)
                ]
                low, high = zip(*ends, strict=True)
            x = beside(top.xaxis, widths, i, len(shown))
            interval(top, x, means, low, high, METHODS[form], label=name)
        top.axhline(0.5, color="black", linewidth=0.5)
        top.set(title=layer, ylim=(0, 1))
        for ax, centre in zip(bottoms, ("shares", "shares_moving"), strict=True):
            for i, term in enumerate(("moved", "cross", "offset")):
                share = lambda of, c=centre, t=term: of[c][t]["all"]  # noqa: E731
                _over(ax, runs, share, layer, METHODS[term], (i, 3), label=term)
            ax.axhline(0, color="black", linewidth=0.5)
    axes[0, 0].set_ylabel("AUROC")
    axes[1, 0].set_ylabel("share of FSSD²")
    axes[2, 0].set_ylabel("the same, F* moving")
    axes[1, -1].legend(title="shares", loc="upper left", bbox_to_anchor=(1, 1))
    # Of the last layer, which has the most lines.
    axes[0, -1].legend(title="AUROC", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def over_time(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Drift, distance and alignment of each layer's kernel in training.

    Of several runs the means; the bars are their range, a little beside each other.

    Args:
      runs: of each seed: layer → what metrics.json tells of it.
    """
    figure, axes = page(1, 3, 2.5)
    panels = {
        "kernel drift": (DRIFT, lambda of: of["drift"]),
        "kernel distance": ("1 − cosine of Θ and Θ before", lambda of: of["distance"]),
        "alignment with the labels": (
            "debiased alignment",
            lambda of: [null["value"] for null in of["debiased_alignment"]],
        ),
    }
    for ax, (title, (label, values)) in zip(axes[0], panels.items(), strict=True):
        ax.set_xscale("symlog", linthresh=1)
        for i, (layer, of) in enumerate(runs[0].items()):
            style = style_of(layer, LAYERS, i)
            at_steps = zip(*(values(run[layer]) for run in runs), strict=True)
            means, low, high = mean_and_ends(at_steps)
            x = beside(ax.xaxis, of["steps"], i, len(runs[0]))
            interval(ax, x, means, low, high, style, label=layer)
        ax.set(title=title, xlabel="step; layers a little apart", ylabel=label)
        ax.axhline(0, color="black", linewidth=0.5)
    legend_below(figure, axes[0, 0], 6)
    return figure


@styled
def against_distance(
    layers: Mapping[str, Mapping[str, Any]],
    distances: np.ndarray,
    cosines: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """The normalised kernel against ‖x − x_m‖, before and after, with its RBF.

    x_m are training images.

    Args:
      layers: layer → "before" and "after" → "rbf", the fit.
      distances: [n, m] of test images, of which the first half is in-distribution, and
        training images.
      cosines: layer → "before" and "after" → [n, m], the normalised kernel.
    """
    d = distances[::5, ::10]  # a part of the pairs is enough for a picture
    shape = 2, len(layers)
    figure, axes = page(*shape, 1.8, sharex=True, sharey=True)
    for column, (layer, of) in zip(axes.T, layers.items(), strict=True):
        for ax, when in zip(column, ("before", "after"), strict=True):
            _two_sets(ax, d, cosines[layer][when][::5, ::10], s=6)
            fit = of[when]["rbf"]
            along = np.linspace(d.min(), d.max(), 100)
            curve = np.exp(-(along**2) / (2 * fit["length"] ** 2))
            curve = fit["amplitude"] * curve + fit["offset"]
            ax.plot(along, curve, color="black", label="a·RBF + b")
            ax.set_title(f"{layer}, {when}: R² = {fit['r2']:.2f}", fontsize=7)
        column[-1].set_xlabel("distance in pixels")
    for ax in axes[:, 0]:
        ax.set_ylabel("normalised kernel")
    legend_below(figure, axes[0, 0], 3)
    return figure


@styled
def moved_by(
    tested: np.ndarray, top: np.ndarray, classes: np.ndarray, shares: np.ndarray
) -> Figure:
    """Test images, and beside each the training images that moved it most.

    Args:
      tested: [n, ...], of which the first half is in-distribution.
      top: [n, k, ...] training images.
      classes: [n, k], theirs.
      shares: [n, k] of what pushed the test image.
    """
    rows, columns = len(tested), top.shape[1] + 1
    figure, axes = page(rows, columns, PAGE / columns + 0.2)
    for i, (row, image) in enumerate(zip(axes, tested, strict=True)):
        kind = HALVES[i >= rows // 2]
        row[0].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        row[0].set_title(kind, fontsize=7, color=SETS[kind].color)
        for j, ax in enumerate(row[1:]):
            ax.imshow(top[i, j].squeeze(), cmap="gray", vmin=0, vmax=1)
            told = f"class {classes[i, j]}: {shares[i, j]:.1%}"
            ax.set_title(told, fontsize=7)
    for ax in axes.ravel():
        ax.axis("off")
    return figure


MEASURES = (
    METHODS["infinite"].color,
    "#6A3D9A",
    "#B15928",
)  # of one twin
LINES = (("-", True), ("--", False))  # of the twins; filled marks, or hollow


@styled
def infinite_width(
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    controls: Mapping[str, Sequence[float]],
) -> Figure:
    """AUROC of what moves at infinite width, over time; controls have no time.

    Means of the seeds; the bars are their range.

    Args:
      lines: "TWIN, MEASURE" → time, as text → AUROC of each seed.
      controls: name → AUROC of each seed.
    """
    figure, ((left, right),) = page(1, 2, 3.2)
    twins = list(dict.fromkeys(name.split(", ")[0] for name in lines))
    measures = list(dict.fromkeys(name.split(", ", 1)[1] for name in lines))
    for name, of_times in lines.items():
        twin, measure = name.split(", ", 1)
        place = measures.index(measure)
        line, filled = LINES[twins.index(twin)]
        marker = "osD^vP"[2 * place + twins.index(twin)]
        style = Style(MEASURES[place], line, marker, filled)
        # Places in a row, because the last time may be infinite.
        interval(
            left, list(of_times), *mean_and_ends(of_times.values()), style, label=name
        )
    left.axhline(0.5, color="black", linewidth=0.5)
    left.set(xlabel="ηt", ylabel="AUROC", ylim=(0, 1))
    means, low, high = mean_and_ends(controls.values())
    dot_rows(
        right,
        list(controls),
        means,
        intervals=list(zip(low, high, strict=True)),
        styles=[Style("#555555", "-", "o", filled=False)] * len(means),
    )
    right.axvline(0.5, color="black", linewidth=0.5)
    right.set(xlabel="AUROC", xlim=(0, 1), title="controls, without time")
    legend_below(figure, left, 2)
    return figure
