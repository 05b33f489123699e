"""Every picture: of a journal's width, its type large enough, legible in grey."""

import itertools
import re

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import PathPatch, StepPatch
from matplotlib.text import Text

from analysis.style import COLUMN, METHODS, OTHERS, PAGE, SETS, SMALLEST
from tests.analysis.drawn import DRAWN


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_can_be_printed(name):
    with plt.rc_context({"font.size": 3, "xtick.labelsize": 2}):  # a reader's own
        figure = DRAWN[name]()
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] in (COLUMN, PAGE)
    page = figure.bbox
    ticks = {
        id(label)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for label in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))
    }
    for text in written(figure):
        assert smallest(text) >= SMALLEST, text
        box = text.get_window_extent()
        if id(text) in ticks:  # those out of view are not drawn
            continue
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text
    boxes = [
        (text.get_window_extent().padded(-1), text.get_text())
        for text in written(figure)
        if id(text) not in ticks
    ]
    for (one, name_of_one), (other, name_of_other) in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (name_of_one, name_of_other)
    # A colour bar has no place in the grid.
    placed = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    drawn = [ax for ax in placed if ax.has_data() and ax.axison]
    assert drawn or name == "contributions"
    for ax in drawn:
        # Panels of one row or column may share a label, or all of them.
        at = ax.get_subplotspec()
        row = [a for a in drawn if a.get_subplotspec().rowspan == at.rowspan]
        column = [a for a in drawn if a.get_subplotspec().colspan == at.colspan]
        named = any(re.match("[a-z]{3}", t.get_text()) for t in ax.get_yticklabels())
        of_all = figure.get_supxlabel(), figure.get_supylabel()
        assert of_all[0] or any(a.get_xlabel() for a in column)
        assert of_all[1] or named or any(a.get_ylabel() for a in row)
        in_grey = [key for key in map(grey_key, labelled(ax)) if key is not None]
        assert len(in_grey) == len(set(in_grey)), in_grey


def smallest(text):
    """The size in points of its smallest sign, be it an exponent or a subscript."""
    parser, size = MathTextParser("path"), text.get_fontsize()
    if not text.get_parse_math() or text.get_text().count("$") < 2:
        return size
    parsed = parser.parse(text.get_text(), 72, text.get_fontproperties())
    return min(of for _, of, *_ in parsed.glyphs)


def test_exponents_and_subscripts_are_measured():
    figure = plt.Figure()
    for told, expected in (("$10^2$", 7), ("$F_t$ of", 7), ("$F$", 10), ("F_t", 10)):
        text = figure.text(0, 0, told, fontsize=10)
        assert smallest(text) == pytest.approx(expected)


def written(figure):
    texts = figure.findobj(lambda a: isinstance(a, Text) and a.get_text().strip())
    return [text for text in texts if text.get_visible()]


def labelled(ax):
    handles, _ = ax.get_legend_handles_labels()
    return handles


def grey_key(artist):
    """What is left of an artist's look without colour."""
    if isinstance(artist, StepPatch):
        return "outline", artist.get_linestyle()
    if isinstance(artist, PathPatch):
        return "box", artist.get_hatch()
    if hasattr(artist, "get_sizes"):  # points
        (path,) = artist.get_paths()
        return path.vertices.tobytes(), len(artist.get_facecolors())
    line = artist[0] if isinstance(artist, tuple) else artist
    dashes = getattr(line, "_dash_pattern", None) or line.get_linestyle()
    hollow = line.get_markerfacecolor() in ("none", "white")
    return str(dashes), line.get_marker(), hollow


def test_a_colour_means_one_thing():
    """But where the same quantity has two names."""
    same = ({"fssd", "distance"}, {"displacement", "moved"})
    from analysis.style import LAYERS as OF_LAYERS

    seen: dict[tuple, str] = {}
    others = {f"other {i}": style for i, style in enumerate(OTHERS)}
    for table in (SETS, METHODS, OF_LAYERS, others):
        for name, style in table.items():
            other = seen.setdefault(to_rgba(style.color), name)
            assert name == other or {name, other} in same
