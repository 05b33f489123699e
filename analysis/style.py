"""What all pictures share: journal widths, type sizes, and what a colour means.

Two widths, one column or two of a page, and no type below 7 pt at that size. What a
colour tells apart, a line style, a marker or both tell apart in grey.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from fssd_jax.extras import missing

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

COLUMN, PAGE = 3.3, 6.9  # inches
SMALLEST = 7  # points
RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text that can be searched
}


class Style(NamedTuple):
    color: str
    line: Any  # matplotlib's line style
    marker: str
    filled: bool = True

    def of_line(self) -> dict[str, Any]:
        """For `Axes.plot` and `Axes.errorbar`."""
        inside = self.color if self.filled else "white"
        told = {"color": self.color, "linestyle": self.line, "marker": self.marker}
        return {**told, "markerfacecolor": inside, "markeredgewidth": 0.8}

    def of_points(self) -> dict[str, Any]:
        """For `Axes.scatter`."""
        inside = self.color if self.filled else "none"
        edge = {"edgecolors": self.color, "linewidths": 0 if self.filled else 0.5}
        return {"marker": self.marker, "facecolors": inside, **edge}


DASHDOT, DENSE, LONG = (0, (5, 1, 1, 1)), (0, (1, 1)), (0, (10, 2))
# Colours of Okabe and Ito (2008), told apart by colour-blind readers too.
SETS = {
    "in-distribution": Style("#0072B2", "-", "o"),
    "OoD": Style("#D55E00", "--", "^", filled=False),
    "noise": Style("#999999", ":", "s"),
}
# Detectors, the forms and terms of Eq. (4), and quantities as detectors.
METHODS = {
    "fssd": Style("#000000", "-", "o"),
    "distance": Style("#000000", "-", "o"),  # what FSSD is
    "displacement": Style("#009E73", "--", "s"),
    "moved": Style("#009E73", "--", "s"),  # its square
    "frozen": Style("#E69F00", "-.", "^"),
    "infinite": Style("#56B4E9", ":", "D"),
    "offset": Style("#CC79A7", DASHDOT, "v"),
    "cross": Style("#B79F00", ":", "P"),
    "untrained": Style("#8C510A", DENSE, "X"),
    "speed": Style("#B2182B", "-.", "^"),
    "mahalanobis": Style("#E7298A", "--", "s"),
    "odin": Style("#7570B3", "-.", "^"),
    "control: pixel stats": Style("#66A61E", ":", "D", filled=False),
    "control: raw pixels": Style("#A6761D", DENSE, "v", filled=False),
    "msp": Style("#E08214", "--", "D"),
    "deep ensemble": Style("#35978F", ":", "P"),
    "mc dropout": Style("#4393C3", DASHDOT, "v"),
    "outlier exposure, fine-tuned": Style("#67001F", "-", "X"),
    "fssd clean": Style("#555555", "-", "o", filled=False),
    "mahalanobis clean": Style("#F4A6C9", "--", "s", filled=False),
    "control: untrained": Style("#BF812D", DENSE, "^", filled=False),
    "control: nearest in pixels": Style("#8DA0CB", "-.", "s", filled=False),
    "control: brightness": Style("#C7B400", DENSE, "o", filled=False),
}
LAYERS = {
    "conv1": Style("#332288", "-", "o"),
    "conv2": Style("#44AA99", "--", "s"),
    "fc1": Style("#882255", "-.", "^"),
    "fc2": Style("#DDAA33", DASHDOT, "v"),
    "logits": Style("#AA4499", ":", "D"),
}
# What is none of these, in its order.
OTHERS = (
    Style("#00429D", "--", "s"),
    Style("#93003A", "-.", "^"),
    Style("#4E7D00", ":", "D", filled=False),
    Style("#6A3D9A", LONG, "v"),
    Style("#00838F", DENSE, "P"),
    Style("#B15928", "-", "X", filled=False),
)


def style_of(name: str, known: Mapping[str, Style], place: int = 0) -> Style:
    """That of the table, or what is none there, that of its place among others."""
    return known.get(name) or OTHERS[place % len(OTHERS)]


class Decimals(LogFormatter):
    """0.01, 1, 100: an exponent is set smaller than its base, below `SMALLEST`."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        shown = super().__call__(x, pos)  # whether this tick has room for a label
        if not shown:
            return ""
        return np.format_float_positional(x, 3, trim="-", fractional=False)


def plain_decimals(axis: Axis) -> None:
    """Without exponents, if it is logarithmic and nobody has named its ticks."""
    if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
        axis.set_major_formatter(Decimals())
    if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
        axis.set_minor_formatter(Decimals())


P = ParamSpec("P")
R = TypeVar("R", bound=Figure)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw by `RC`, whatever the reader's own settings are."""

    @wraps(draw)
    def with_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(RC):
            figure = draw(*args, **kwargs)
        for ax in figure.axes:  # ticks are made later, out of this context
            ax.tick_params(which="both", labelsize=SMALLEST, width=0.6)
            plain_decimals(ax.xaxis)
            plain_decimals(ax.yaxis)
        return figure

    return with_style


def page(rows: int, columns: int, height: float, **shared) -> tuple[Figure, np.ndarray]:
    """A figure of the page's width; `height` inches a row; axes [rows, columns].

    A picture of one panel is one column wide.
    """
    width = COLUMN if rows == columns == 1 else PAGE
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    return figure, axes


def grid(
    count: int, columns: int, height: float, **shared
) -> tuple[Figure, list[Axes]]:
    """`count` panels, row by row, at most `columns` in each."""
    columns = min(count, columns)
    figure, axes = page(-(-count // columns), columns, height, **shared)
    for ax in axes.ravel()[count:]:
        ax.remove()
    for ax in axes.ravel()[count - columns : count]:  # the last of its column
        ax.tick_params(labelbottom=True)
    return figure, list(axes.ravel()[:count])


def legend_below(figure: Figure, ax: Axes, columns: int) -> None:
    """The legend of one panel, which is that of all, under them."""
    handles, labels = ax.get_legend_handles_labels()
    columns = min(columns, len(labels))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def outline(
    ax: Axes, values: np.ndarray, bins: np.ndarray, style: Style, **told
) -> None:
    """A histogram's density: its outline, and filled lightly."""
    heights, _ = np.histogram(values, bins, density=True)
    ax.stairs(heights, bins, fill=True, color=style.color, alpha=0.2, lw=0)
    ax.stairs(heights, bins, color=style.color, linestyle=style.line, **told)


def interval(ax: Axes, x: ArrayLike, values, low, high, style: Style, **told) -> None:
    """A line, with a bar through each point from `low` to `high`."""
    below, above = np.subtract(values, low), np.subtract(high, values)
    bars = np.clip([below, above], 0, None)
    ax.errorbar(x, values, bars, elinewidth=0.7, **style.of_line(), **told)


def beside(
    axis: Axis, x: ArrayLike, place: int, count: int, apart: float = 0.015
) -> np.ndarray:
    """Where the line at `place` of `count` stands, so that no bar hides another.

    A little beside `x`, and as far all along the axis, whatever its scale; `apart` is
    of the span of `x`, from one line to the next.
    """
    scale = axis.get_transform()
    at = scale.transform(np.asarray(x, float))
    shift = apart * (np.ptp(at) or 1) * (place - (count - 1) / 2)
    return scale.inverted().transform(at + shift)


def mean_and_ends(of: Iterable[Iterable[float]]) -> tuple[list, list, list]:
    """The mean of each, its least and its greatest, as `interval` takes them."""
    each = [list(values) for values in of]
    means, low, high = ([f(v) for v in each] for f in (np.mean, min, max))
    return means, low, high
