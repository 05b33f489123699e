import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgba

import fssd_jax
from analysis import feature_plots, plots
from analysis.style import METHODS, SETS
from fssd_jax import InputError
from fssd_jax.metrics import auroc

ROOT = Path(__file__).parents[2]

RNG = np.random.default_rng(0)
DRAWN = {name: RNG.normal(size=(40, 3)) for name in SETS}


def test_a_panel_for_each_layer():
    figure = plots.layer_histograms(DRAWN, ["a", "b", "c"], ["1", "2", "3"])
    assert [ax.get_title() for ax in figure.axes] == ["a\n1", "b\n2", "c\n3"]
    for heights, edges, _ in outlines(figure.axes[0]):
        np.testing.assert_allclose(heights @ np.diff(edges), 1)  # a density's area


def outlines(ax):
    return [patch.get_data() for patch in ax.patches]


def test_roc_reaches_from_corner_to_corner():
    figure = plots.roc(
        {"x": (RNG.normal(1, 1, 50), RNG.normal(0, 1, 50))}, title="title"
    )
    points = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_array_equal(points[[0, -1]], [[0, 0], [1, 1]])


IND, OOD = RNG.normal(1, 1, 50), RNG.normal(0, 1, 40)
OTHER = RNG.normal(-1, 2, 30)


def curve_areas(figure):
    """By name; the last line is the diagonal."""
    (ax,) = figure.axes
    return {
        line.get_label(): np.trapezoid(line.get_ydata(), line.get_xdata())
        for line in ax.lines[:-1]
    }


def test_roc_of_vectors_sets_methods_and_pairs():
    """The area under each curve is the AUROC of its scores."""
    pairs = {"one": (IND, OOD), "other": (IND, OTHER)}
    areas = {name: auroc(*pair) for name, pair in pairs.items()}
    alone = curve_areas(plots.roc(IND, OOD))
    np.testing.assert_allclose(list(alone.values()), [auroc(IND, OOD)])
    sets = {"one": OOD, "other": OTHER}
    for figure in (
        plots.roc(IND.tolist(), sets),
        plots.roc({"one": IND, "other": IND}, sets),
        plots.roc(pairs),
    ):
        found = curve_areas(figure)
        assert list(found) == list(areas)
        np.testing.assert_allclose(list(found.values()), list(areas.values()))
    nested = curve_areas(plots.roc({"method": (IND, sets)}))
    assert list(nested) == ["method, one", "method, other"]


def test_of_many_methods_few_are_drawn_and_all_are_listed():
    """FSSD, the two best others and the best control; with every AUROC's interval."""
    shifts = {"fssd": 1, "a": 3, "b": 0.1, "c": 2, "d": 0.2, "control: x": 0.5,
              "control: y": 1.5, "fssd clean": 0.3}  # fmt: skip
    pairs = {name: (IND + shift, OOD) for name, shift in shifts.items()}
    left, right = plots.roc(pairs).axes
    drawn = [line.get_label() for line in left.lines[:-1]]
    assert drawn == ["fssd", "a", "c", "control: y"]
    assert [t.get_text() for t in right.get_yticklabels()] == list(pairs)
    bars = [line.get_xdata() for line in right.lines if len(line.get_xdata()) == 2]
    for bar, pair in zip(bars, pairs.values(), strict=True):
        np.testing.assert_allclose(bar, fssd_jax.evaluate(*pair).auroc_ci95)


def test_histograms_of_scores():
    """Each histogram is a density, over bins that all of a panel share."""
    sets = {"mnist": OOD, "svhn": OTHER}
    methods = {"fssd": IND, "msp": 1 / (1 + np.exp(-IND))}
    for figure, titles, names in (
        (plots.histogram(IND, OOD), [""], ["OoD"]),
        (plots.histogram(IND, sets), [""], list(sets)),
        (plots.histogram(methods, methods), list(methods), ["OoD"]),
    ):
        assert [ax.get_title() for ax in figure.axes] == titles
        legend = figure.axes[-1].get_legend_handles_labels()[1]
        assert legend == ["in-distribution", *names]
        for ax in figure.axes:
            assert len(outlines(ax)) == 2 * (1 + len(names))  # filled, and outlined
            for heights, edges, _ in outlines(ax):
                np.testing.assert_array_equal(edges, outlines(ax)[0][1])
                np.testing.assert_allclose(heights @ np.diff(edges), 1)


@pytest.mark.parametrize("draw", [plots.roc, plots.histogram])
@pytest.mark.parametrize(
    ("ind", "ood", "told"),
    [
        (IND, [], "OoD scores: expected a non-empty vector"),
        (IND, {"far": [np.nan]}, "OoD scores far: 1 of 1 scores are NaN"),
        ({"a": IND}, {"b": OOD}, "by the same names"),
        ({"a": IND}, OOD, "ood is none by name"),
        (IND, {}, "a mapping is empty"),
        ({}, None, "a mapping is empty"),
        (IND, None, "ood: is missing"),
        ({"a": IND}, None, "'a' is a .*, expected a pair"),
        ({"a": fssd_jax.evaluate(IND, OOD)}, None, "give its .scores"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, ind, ood, told):
    with pytest.raises(InputError, match=told):
        draw(ind, ood)


def test_a_notebooks_choice_of_backend_is_kept():
    code = "import analysis.plots, matplotlib; print(matplotlib.get_backend())"
    for chosen in ({}, {"MPLBACKEND": "svg"}):
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), **chosen},
        )  # fmt: skip
        assert found.stdout.strip().lower() == chosen.get("MPLBACKEND", "agg")


def test_files_are_pictures_and_the_same_every_time(tmp_path):
    files = []
    for name in ("one", "two"):
        figure = feature_plots.feature_scatter(
            {k: v[:, :2] for k, v in DRAWN.items()},
            np.zeros(2),
            np.array([0.7, 0.2]),
            "t",
        )
        plots.save(figure, tmp_path / name)
        files.append(
            [(tmp_path / f"{name}.{end}").read_bytes() for end in ("png", "pdf")]
        )
    assert files[0] == files[1]
    assert matplotlib.image.imread(tmp_path / "one.png").std() > 0.01
    assert files[0][1].startswith(b"%PDF")


def test_of_many_the_best_of_each_kind_are_singled_out():
    """FSSD by that name, or the best of its rows; two others; one control."""
    aurocs = {"fssd noise": 0.6, "fssd tiles": 0.9, "msp": 0.8, "odin": 0.85}
    aurocs |= {"energy": 0.84, "control: a": 0.3, "control: b": 0.4}
    found = plots.chosen(aurocs)
    assert found == ["fssd tiles", "odin", "energy", "control: b"]
    assert plots.chosen({**aurocs, "fssd": 0.1})[-1] == "fssd"
    assert "fssd tiles" not in plots.chosen({**aurocs, "fssd": 0.1})


def test_the_chosen_epsilon_is_marked():
    figure = plots.epsilon_choice(np.array([0, 0.1]), np.array([0.6, 0.7]), 0.1)
    assert figure.axes[0].get_legend_handles_labels()[1][1:] == ["chosen: ε = 0.1"]


@pytest.mark.parametrize(
    "names",
    [("fssd", "msp", "mahalanobis"), ("fssd", "mahalanobis", "msp", "knn", "odin")],
)
def test_methods_have_their_own_colours_and_lines_of_their_own(names):
    scores = np.random.default_rng(0).normal(size=(2, 30))
    figure = plots.roc({name: (scores[0] + 1, scores[1]) for name in names})
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    found = {name: drawn[name] for name in names}
    for name, line in found.items():
        known = METHODS.get(name)
        assert known is None or to_rgba(line.get_color()) == to_rgba(known.color)
    assert len({str(line._dash_pattern) for line in found.values()}) == len(names)
