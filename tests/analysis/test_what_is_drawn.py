"""Figures 1, 3, 4, 5 and 6: what a picture shows is what it was drawn from."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import PathPatch, Rectangle, StepPatch

from analysis import (
    dynamics_plots,
    example_plots,
    feature_plots,
    kernel_plots,
    pca,
    phase_plots,
    plots,
    shift_plots,
)
from analysis.style import METHODS, SETS
from tests.analysis.drawn import LAYERS as LAYERS_OF_WIDTHS
from tests.analysis.drawn import WIDTHS as W
from tests.analysis.drawn import widths

RNG = np.random.default_rng(1)
TESTED = ("in-distribution", "OoD")
STAR, SHARE = np.array([3.0, -2.0]), np.array([0.7, 0.2])
ROWS = ("msp", "fssd", "control: untrained")


def named(ax):
    handles, names = ax.get_legend_handles_labels()
    assert len(names) == len(set(names))
    return dict(zip(names, handles, strict=True))


def colour(of):
    return to_rgba(of)[:3]


def check_histogram(ax, sets):
    """A density of each set, in its colour, over bins that hold the whole of it."""
    drawn = named(ax)
    assert list(drawn) == list(sets)
    for name, values in sets.items():
        heights, edges, _ = drawn[name].get_data()
        assert len(heights) >= 30
        width = edges[1] - edges[0]
        # A value on an edge may be counted on either side of it.
        counts = np.array([(values < edge).sum() for edge in edges])
        below = np.cumsum([0, *heights]) * width * len(values)
        np.testing.assert_allclose(below[1:-1], counts[1:-1], atol=1.01)
        assert below[-1] == pytest.approx(len(values))
        assert colour(drawn[name].get_edgecolor()) == colour(SETS[name].color)
        outlines = [p for p in ax.patches if isinstance(p, StepPatch)]
        (filled,) = (
            p
            for p in outlines
            if p.get_fill() and colour(p.get_facecolor()) == colour(SETS[name].color)
        )
        np.testing.assert_array_equal(filled.get_data()[0], heights)


def check_cloud(ax, points):
    drawn = named(ax)
    for name, of in points.items():
        np.testing.assert_array_equal(drawn[name].get_offsets(), of)
        (edge,) = {colour(c) for c in drawn[name].get_edgecolors()}
        assert edge == colour(SETS[name].color)
    np.testing.assert_array_equal(drawn["F*"].get_offsets(), [STAR])
    return drawn


def clouds(*names):
    return {name: RNG.normal(5 * i, 1, (30, 2)) for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def of_examples():
    at = np.linspace(1, 9, 9)
    images = {
        name: {k: RNG.uniform(size=(6, 6, 1 + 2 * (name == "OoD"))) for k in which}
        for name, which in (("OoD", range(6)), ("in-distribution", range(3, 9)))
    }
    fssd = {"in-distribution": RNG.normal(6, 1, 90), "OoD": RNG.gamma(4, 0.8, 50)}
    fssd = {name: np.clip(d, 0.5, 9.5) for name, d in fssd.items()}
    points = clouds(*TESTED)
    figure = example_plots.examples(fssd, at, images, points, STAR, SHARE, "fc1")
    return figure, at, images, fssd, points


def test_figure1_has_the_distances_and_features(of_examples):
    figure, at, _, fssd, points = of_examples
    histogram, *_, cloud = figure.axes
    check_histogram(histogram, fssd)
    assert histogram.get_xlim() == (at[0] - 0.5, at[-1] + 0.5)
    assert "fc1" in histogram.get_xlabel()
    assert list(check_cloud(cloud, points)) == [*points, "F*"]
    assert "70%" in cloud.get_xlabel()
    assert "20%" in cloud.get_ylabel()


def test_figure1_has_each_image_below_its_distance(of_examples):
    figure, at, images, _, _ = of_examples
    histogram, *rows, _ = figure.axes
    for ax, (name, of) in zip(rows, images.items(), strict=True):
        assert ax.get_xlim() == histogram.get_xlim()
        (told,) = (t.get_text() for t in ax.texts)
        assert told.replace("\n", "") == name
        boxes = [a for a in ax.artists if isinstance(a, AnnotationBbox)]
        assert [box.xy[0] for box in boxes] == [at[k] for k in of]
        for box, image in zip(boxes, of.values(), strict=True):
            shown = box.offsetbox.get_data()
            np.testing.assert_array_equal(
                shown,
                np.repeat(image, 4 - image.shape[2], 2)
                if image.shape[2] == 1
                else image,
            )
            assert colour(box.patch.get_edgecolor()) == colour(SETS[name].color)


def test_figure3_has_features_of_each_layer():
    panels = {
        layer: pca.Panel(
            *(clouds(*SETS), STAR, np.array([k, -k])), 0.5 + 0.1 * k, 0.01 * k
        )
        for k, layer in enumerate(("pixels", "conv1", "logits"))
    }
    figure = feature_plots.concentration(panels, "title")
    for ax, (layer, panel) in zip(figure.axes, panels.items(), strict=True):
        shown = f"{panel.share:.0%}, noise {panel.of_noise:.0%}"
        assert ax.get_title() == f"{layer}\n{shown}"
        drawn = check_cloud(ax, panel.points)
        np.testing.assert_array_equal(drawn["F = 0"].get_offsets(), [panel.origin])


def test_figure4_has_a_box_a_method_and_level():
    found = {name: np.sort(RNG.uniform(size=(3, 6))) for name in ROWS}
    for of in found.values():  # the mean is somewhere else
        of[:, 5] = of[:, 2] + 0.01
    drawn = {name: of.tolist() for name, of in found.items()}
    figure = shift_plots.boxes(drawn, (1, 3, 5), "title")
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "3", "5"]
    boxes = [p for p in ax.patches if isinstance(p, PathPatch)]
    assert {n: h.get_edgecolor()[:3] for n, h in named(ax).items()} == {
        name: colour(METHODS[name].color) for name in ROWS
    }
    seen = []
    for box in boxes:
        x, y = box.get_path().vertices.T
        middle, level = (x.min() + x.max()) / 2, round((x.min() + x.max()) / 2)
        (name,) = (
            n for n in ROWS if colour(METHODS[n].color) == box.get_edgecolor()[:3]
        )
        seen.append((name, level))
        inside = [o for o in ax.lines if np.allclose(np.mean(o.get_xdata()), middle)]
        flat = [o for o in inside if len(set(o.get_ydata())) == 1]
        (median,) = (o.get_ydata()[0] for o in flat if len(o.get_xdata()) > 1)
        (mean,) = (o.get_ydata()[0] for o in flat if len(o.get_xdata()) == 1)
        ends = {float(v) for o in inside if o not in flat for v in o.get_ydata()}
        expected = found[name][level]
        assert (y.min(), y.max()) == (expected[1], expected[3])
        assert sorted(ends) == sorted(expected[[0, 1, 3, 4]])
        assert (median, mean) == (expected[2], expected[5])
    assert sorted(seen) == sorted((name, level) for name in ROWS for level in range(3))
    # Beside each other in the order of the legend, none over its neighbour.
    where = sorted(
        (box.get_path().vertices[:, 0].min(), i) for i, box in enumerate(boxes)
    )
    spans = [boxes[i].get_path().vertices[:, 0] for _, i in where]
    for left, right in pairwise(spans):
        assert left.max() < right.min()
    order = [seen[i][0] for _, i in where]
    assert order == 3 * list(ROWS)


@pytest.mark.parametrize("lowest", [0.1, 0.7])
def test_figure5_has_each_value_and_interval(lowest):
    amounts = {"gaussian_noise": (0.0, 0.1, 0.4), "impulse_noise": (0.0, 0.3)}
    curves = {
        noise: {
            name: tuple(
                np.sort(RNG.uniform(lowest, 1, (3, len(at))), 0)[[1, 0, 2]].tolist()
            )
            for name in ROWS
        }
        for noise, at in amounts.items()
    }
    figure = shift_plots.against_noise(curves, amounts)
    figure.draw_without_rendering()
    for ax, (noise, of) in zip(figure.axes, curves.items(), strict=True):
        assert ax.get_title() == noise.replace("_", " ").capitalize()
        told = [t.get_text() for t in ax.get_xticklabels()]
        assert told == [f"{a:g}" for a in amounts[noise]]
        assert np.allclose(ax.get_xticks(), amounts[noise])
        for name, (values, low, high) in of.items():
            line, _, (bars,) = named(ax)[name]
            x, y = line.get_data()
            np.testing.assert_array_equal(y, values)
            # A little beside, so that bars do not cover each other.
            np.testing.assert_allclose(
                x, amounts[noise], atol=0.02 * amounts[noise][-1]
            )
            assert colour(line.get_color()) == colour(METHODS[name].color)
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            np.testing.assert_allclose(ends, np.transpose([low, high]))
            bottom, top = ax.get_ylim()
            assert bottom <= min(low)
            assert top == 1
    # The scale of both panels is told by the first one's ticks.
    ax, other = figure.axes
    assert ax.get_shared_y_axes().joined(ax, other)
    texts = [text.get_text() for text in ax.get_yticklabels()]
    assert texts == [f"{tick:g}" for tick in ax.get_yticks()]
    assert len(texts) > 4
    heights = [ax.transData.transform((0, t))[1] for t in (0.5, 0.9, 0.95, 0.99, 1)]
    gaps = np.diff(heights) / np.diff([0.5, 0.9, 0.95, 0.99, 1])
    assert np.all(np.diff(gaps) > 0)  # stretched towards 1
    first = [named(figure.axes[0])[name][0].get_xdata()[0] for name in ROWS]
    assert len(set(first)) == len(ROWS)


LAYERS = ["conv1", "conv2", "logits"]


def layers_of(sets, count=3):
    """Every layer elsewhere, so that no panel can stand for another."""
    return {
        name: RNG.normal(10 * np.arange(count), 1, (40, count)) + i
        for i, name in enumerate(sets)
    }


def test_figure6_has_each_layer_of_each_pair():
    pairs = {
        "near: six": (layers_of(SETS), LAYERS),
        "far: photos": (layers_of(SETS), LAYERS),
    }
    titles = {pair: [f"{pair} {layer}" for layer in LAYERS] for pair in pairs}
    figure = feature_plots.layers_of_pairs(pairs, titles)
    axes = iter(figure.axes)
    for pair, (sets, layers) in pairs.items():
        for k, layer in enumerate(layers):
            ax = next(axes)
            check_histogram(ax, {name: d[:, k] for name, d in sets.items()})
            assert ax.get_title() == f"{layer}\n{titles[pair][k]}"
            assert pair in ax.get_ylabel() or k > 0
    assert next(axes, None) is None


def test_over_widths_is_the_mean_of_seeds_and_their_range():
    runs = [widths() for _ in range(3)]
    numbers = (
        lambda of: of["forms"]["path"]["relative_error"],
        lambda of: of["forms"]["frozen"]["relative_error"],
        lambda of: of["kernel_drift"],
    )
    figure = kernel_plots.against_width(runs)
    for ax, number in zip(figure.axes, numbers, strict=True):
        for layer in LAYERS_OF_WIDTHS:
            check_range(ax, layer, [[number(run[w][layer]) for run in runs] for w in W])
    figure = kernel_plots.detectors(runs)
    figure.draw_without_rendering()
    rows = np.reshape(figure.axes, (3, -1))
    for k, layer in enumerate(LAYERS_OF_WIDTHS):
        at = [[run[w][layer] for run in runs] for w in W]
        of = [[found["forms"]["frozen"]["auroc"] for found in f] for f in at]
        check_range(rows[0, k], "frozen form", of)
        for ax, centre in zip(rows[1:, k], ("shares", "shares_moving"), strict=True):
            of = [[found[centre]["cross"]["all"] for found in f] for f in at]
            check_range(ax, "cross", of)
    # Of one seed the bars are of new images.
    ax = kernel_plots.detectors(runs[:1]).axes[0]
    _, _, (bars,) = named(ax)["FSSD"]
    ends = [runs[0][w][LAYERS_OF_WIDTHS[0]]["forms"]["fssd"]["auroc_ci95"] for w in W]
    found = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(found, ends)


def test_bars_of_layers_are_beside_each_other():
    at = [0, 1, 3, 800]
    numbers = lambda: RNG.uniform(size=len(at)).tolist()  # noqa: E731
    runs = [
        {
            layer: {
                "steps": at,
                "drift": numbers(),
                "distance": numbers(),
                "debiased_alignment": [{"value": v} for v in numbers()],
            }
            for layer in LAYERS_OF_WIDTHS
        }
        for _ in range(3)
    ]
    figures = kernel_plots.over_time(runs), kernel_plots.against_width([widths()] * 2)
    for figure, places in zip(figures, (at, W), strict=True):
        figure.draw_without_rendering()
        for ax in figure.axes:
            drawn = [named(ax)[layer] for layer in LAYERS_OF_WIDTHS]
            inches = figure.dpi_scale_trans.inverted()
            to_inches = ax.transData + inches
            x = np.array(
                [
                    [to_inches.transform(s[0])[0] for s in bars.get_segments()]
                    for _, _, (bars,) in drawn
                ]
            )
            true = [to_inches.transform((place, 0.1))[0] for place in places]
            apart = 72 * np.diff(x, axis=0)  # points: a bar is 0.7 wide
            assert np.all(apart > 1.2)
            np.testing.assert_allclose(apart, apart[0, 0], rtol=1e-6)
            np.testing.assert_allclose(x.mean(0), true, atol=1e-6)
            assert np.all(np.abs(x - true) < 0.06)


def test_correlations_are_within_the_sets():
    """Each set alone, which both together may contradict."""
    x, noise = RNG.uniform(size=(40, 1)), RNG.normal(0, 1e-3, (40, 1))
    y = x + noise
    y[20:] = 3 - y[20:]
    sizes = dict.fromkeys(kernel_plots.FORMS, x) | {"fssd": y}
    figure = kernel_plots.forms(sizes, ["fc1"], "")
    for ax in figure.axes:
        assert ax.get_title() == "fc1\nr = 1.00 in, −1.00 OoD"


def test_figure2_tells_sets_and_densities():
    of = {step: {name: RNG.uniform(size=30) for name in SETS} for step in (0, 9)}
    figure = dynamics_plots.speeds(of, "logits", "mnist; OoD: fashion_mnist")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "mnist; OoD: fashion_mnist"
    for ax, sets in zip(figure.axes, of.values(), strict=True):
        check_histogram(ax, sets)
        assert "logits" in ax.get_xlabel()
        low, high = ax.get_ylim()
        assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 2
    assert figure.axes[0].get_ylabel() == "density, 1 / ‖dF/dt‖"
    quartiles = {name: np.ones((2, 3)) for name in SETS} | {"auroc": [0.5, 0.6]}
    layers = {"fc1": {"speed": quartiles}}
    figure = dynamics_plots.over_time([0, 9], layers, ["speed"], "mnist")
    assert figure.get_suptitle() == "mnist"


def check_range(ax, name, values):
    """A line of means over the widths, and bars from the least to the greatest."""
    line, _, (bars,) = named(ax)[name]
    np.testing.assert_allclose(line.get_xdata(), W, rtol=0.2)  # a little beside
    found = np.asarray(line.get_ydata(), float)
    np.testing.assert_allclose(found, np.mean(values, 1))
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [(min(v), max(v)) for v in values])


def test_histograms_of_a_run_have_each_layer():
    sets = layers_of(TESTED)
    figure = plots.layer_histograms(sets, LAYERS, ["a", "b", "c"])
    for k, ax in enumerate(figure.axes):
        check_histogram(ax, {name: d[:, k] for name, d in sets.items()})
        assert ax.get_title() == f"{LAYERS[k]}\n{'abc'[k]}"


@pytest.mark.parametrize("quantity", ["AUROC", "error"])
def test_phases_can_be_read_in_grey(quantity):
    """Both ends of the differences' colours are dark: what is below 0 has a minus."""
    panel = RNG.uniform(-0.3, 0.3, (3, 8))
    panel[1, :2] = np.nan
    panels = {("frozen", "ntk", "logits"): panel}
    figure = phase_plots.phases(panels, quantity, (8, 16, 32), [1.0] * 8, "")
    ax = figure.axes[0]
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().mask, np.isnan(panel))
    below = {t.get_position()[::-1] for t in ax.texts if t.get_text() == "−"}
    signed = np.argwhere(panel <= -0.01) if quantity == "AUROC" else ()
    assert below == {tuple(at) for at in signed}
    hatched = {
        (round(p.get_y() + 0.5), round(p.get_x() + 0.5))
        for p in ax.patches
        if isinstance(p, Rectangle) and p.get_hatch()
    }
    assert hatched == {(1, 0), (1, 1)}


def test_no_difference_is_beyond_the_colours():
    """Nearest pixels may be far above the network, and are told apart in grey."""
    panel = np.linspace(-1, 1, 8)[None]
    panels = {("pixels", "ntk", "logits"): panel}
    figure = phase_plots.phases(panels, "AUROC", (8,), [1.0] * 8, "")
    (image,) = figure.axes[0].images
    grey = image.to_rgba(panel)[0, :, :3] @ [0.299, 0.587, 0.114]
    assert np.all(np.diff(grey[:4]) > 0.03)
    assert np.all(np.diff(grey[4:]) < -0.03)


def test_phases_tell_what_a_square_is_the_mean_of():
    panels = {("frozen", "ntk", "logits"): RNG.uniform(size=(1, 8))}
    figure = phase_plots.phases(panels, "rank", (8,), [1.0] * 8, "of these", seeds=5)
    assert "of these (each square is the mean of 5 seeds" in figure.get_suptitle()
    assert "mean of in-distribution and OoD" in figure.axes[-1].get_ylabel()
