"""The picture of ensembles: marks lie where the rows say, and tell what was fitted."""

import copy
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from analysis import auroc_plots
from analysis.style import METHODS
from experiments.comparison import pictures
from website.measured import RESULTS

CIFAR = "cifar6/table2-0.json", "cifar6/table2-1.json"
# Row of the picture → row without labels, and with them.
ROWS = {
    "stem": ("fssd stem", None),
    "stage3": ("fssd stage3", None),
    "all layers": ("fssd clean", "fssd, no input step"),
    **{
        name: (f"fssd, {name}, clean", f"fssd, {name}, labels")
        for name in ("3 networks", "perceptron", "ResNet and perceptron")
    },
    "epochs 4, 8, 12, 15": ("fssd, snapshots, clean", "fssd, snapshots, labels"),
}


def stored(path):
    return json.loads((RESULTS / path).read_text())


def rows_of(result):
    return result["methods"] | result["variants"]


def drawn(*results):
    (figure,) = pictures.ensembles(results).values()
    figure.draw_without_rendering()
    (ax,) = figure.axes
    return ax


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def marks(ax):
    """(row, filled) → (AUROC, ends of its bar); each mark lies nearest its row."""
    found = {}
    for line in ax.lines:
        if line.get_marker() in ("o", "D"):
            (x,), (y,) = line.get_data()
            row = names(ax)[-round(y)]
            filled = to_rgba(line.get_markerfacecolor()) != to_rgba("white")
            bars = [o.get_xdata() for o in ax.lines if [*o.get_ydata()] == [y, y]]
            assert len(bars) == 1
            assert (row, filled) not in found
            found[row, filled] = (x, *bars[0])
    return found


def test_marks_are_where_the_rows_of_one_seed_say():
    """Filled are those that saw labelled OoD images."""
    result = stored(CIFAR[0])
    found = marks(drawn(result))
    for name, of in ROWS.items():
        for row in filter(None, of):
            told = rows_of(result)[row]
            at = found[name, told["target_ood"]]
            assert at == pytest.approx((told["auroc"], *told["auroc_ci95"]))
    assert {name for name, _ in found} == {*ROWS, "stage1", "stage2"}
    assert sum(filled for _, filled in found) == 5


def test_of_several_seeds_the_mean_and_the_range():
    results = [stored(path) for path in CIFAR]
    found = marks(drawn(*results))
    for name, of in ROWS.items():
        for row in filter(None, of):
            values = [rows_of(r)[row]["auroc"] for r in results]
            at = found[name, rows_of(results[0])[row]["target_ood"]]
            assert at == pytest.approx((np.mean(values), min(values), max(values)))


def test_lines_are_the_one_network_of_the_same_images():
    result = stored(CIFAR[0])
    ax = drawn(result)
    lines = {
        line.get_linestyle(): line.get_xdata()[0]
        for line in ax.lines
        if line.get_label().startswith("one network")
    }
    rows = rows_of(result)
    clean, labels = rows["fssd clean"], rows["fssd, no input step"]
    assert lines == {":": clean["auroc"], "--": labels["auroc"]}
    # With an input step it is no pair of the ensembles, which have none.
    del result["variants"]["fssd, no input step"]
    result["epsilon"] = 0.1
    ax = drawn(result)
    assert ("all layers", True) not in marks(ax)
    assert not any(line.get_linestyle() == "--" for line in ax.lines)
    result["epsilon"] = 0.0  # without one it is
    at = marks(drawn(result))["all layers", True]
    assert at[0] == result["methods"]["fssd"]["auroc"]


def test_what_has_no_row_is_left_out():
    result = stored(CIFAR[0])
    assert names(drawn(result)) == [
        *("layers of one network", "stem", "stage1", "stage2", "stage3", "all layers"),
        *("networks", "3 networks"),
        *("architectures", "perceptron", "ResNet and perceptron"),
        *("snapshots of one training", "epochs 4, 8, 12, 15"),
    ]
    few = copy.deepcopy(result)
    few["methods"] = {}
    few["variants"] = {k: v for k, v in result["variants"].items() if "3 net" in k}
    ax = drawn(few)
    assert names(ax) == ["networks", "3 networks"]
    assert set(marks(ax)) == {("3 networks", False), ("3 networks", True)}
    few["variants"] = {}  # single layers are none
    assert pictures.ensembles([few]) == {}
    # Nor is a seed without ensembles one of those shown.
    assert marks(drawn(result, few)) == marks(drawn(result))


def test_what_is_perfect_lies_at_the_end_of_the_axis():
    result = stored("cifar6/table2-mnist-0.json")
    assert rows_of(result)["fssd, snapshots, labels"]["auroc"] > 0.9999
    ax = drawn(result)
    (low, high), found = ax.get_xlim(), marks(ax)
    assert found["epochs 4, 8, 12, 15", True][0] == high == 0.9999
    assert found["stem", False][0] == result["methods"]["fssd stem"]["auroc"] > low
    assert ax.get_xticklabels()[-1].get_text() == "99.99"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.52, 0.73], [0.5, 0.6, 0.7, 0.8]),
        ([0.5, 0.8], [0.5, 0.6, 0.7, 0.8]),
        ([0.04, 0.997], [0.01, 0.1, 0.5, 0.9, 0.99, 0.999]),
        ([0.001, 1.0], [1e-4, 0.01, 0.5, 0.99, 0.9999]),
        ([0.0, 0.3], [1e-4, 0.001, 0.01, 0.1, 0.5]),
        ([1.0, 1.0], [0.999, 0.9999]),
        ([0.5, 0.5], [0.5, 0.6]),
    ],
)
def test_the_axis_spans_the_values_by_few_ticks(values, ticks):
    marks = {"a row": {auroc_plots.CLEAN: (values[0], values[0], values[1])}}
    (ax,) = auroc_plots.ensembles({"a group": marks}, {}, "range", "").axes
    assert [*ax.get_xticks()] == pytest.approx(ticks)
    assert ax.get_xlim() == pytest.approx((ticks[0], ticks[-1]))


def test_hollow_and_filled_as_everywhere():
    assert auroc_plots.FITTED_ON[auroc_plots.CLEAN] == METHODS["fssd clean"]
    assert auroc_plots.FITTED_ON[auroc_plots.LABELS] == METHODS["fssd"]
