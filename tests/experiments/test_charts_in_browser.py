"""What the page's charts draw, in Chromium: by Chart.js's own data, against NumPy."""

import numpy as np
import pytest

from experiments.harness import explored
from fssd_jax import metrics
from tests.experiments import pages
from tests.experiments.test_page_in_browser import (
    STEPS,
    address,
    browser,
    movie,
    opened,
    set_slider,
)

__all__ = ["address", "browser", "opened"]  # fixtures
pytestmark = pytest.mark.browser
DRAWN = """name => {
  const chart = Chart.getChart(document.querySelector(`.run.open ${name}`));
  const sets = chart.data.datasets;
  const {x, y} = chart.options.scales;
  const told = value => typeof value === "function" ? value() : value;
  return {
    titles: [x.title.text, y.title.text],
    labels: sets.map(set => set.label),
    colours: sets.map(set => told(set.borderColor)),
    xy: sets.map(set => set.data.map(point => [point.x, point.y])),
  };
}"""
COLOUR = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"


def drawn(tab, name):
    return tab.evaluate(DRAWN, name)


def colours(tab):
    return [tab.evaluate(COLOUR, f"--{name}").strip() for name in ("ind", "ood")]


def is_histogram(steps, of):
    """Each bar ends at its point; edges are rounded, and values lie on some of them."""
    edges, heights = np.array(steps).T
    close = 2e-3 * np.abs(edges).max()
    inside = of.clip(edges[0], edges[-1])
    below, up_to = (
        np.array([100 * np.mean(inside < edge + by) for edge in edges[1:]])
        for by in (-close, close)
    )
    found = np.cumsum(heights[1:])
    assert (found >= below - 0.1).all()
    assert (found <= up_to + 0.1).all()
    assert found[-1] == pytest.approx(100, abs=0.1)


def test_the_explorer_draws_rates_histograms_and_features(opened):
    tab = opened("run-0")
    kept, level = pages.kept(), 150
    for place, name in enumerate(pages.METHODS):
        ind, ood = pages.scores([0, place])
        tab.select_option(".run.open .method", name)
        set_slider(tab, level)
        rates = np.array(
            [
                [100 * np.mean(of >= s) for of in (ood, ind)]
                for s in np.concatenate([ind[0:42:6], ood[0:30:6]])
            ]
        )
        roc = drawn(tab, ".roc")
        assert roc["titles"] == ["OoD accepted in %", "in-distribution accepted in %"]
        assert roc["labels"] == ["", *explored.SETS, "threshold"]
        assert roc["colours"][1:3] == colours(tab)
        np.testing.assert_allclose(roc["xy"][1], rates[:7], rtol=1e-6)
        np.testing.assert_allclose(roc["xy"][2], rates[7:], rtol=1e-6)
        threshold = np.sort(ind)[::-1][-(-level * len(ind) // explored.LEVELS) - 1]
        at = metrics.fpr_at(ind, ood, level / explored.LEVELS).value
        tpr = np.mean(ind >= threshold)
        np.testing.assert_allclose(roc["xy"][3], [[100 * at, 100 * tpr]], rtol=1e-6)
        curve = np.array(roc["xy"][0])
        assert (np.diff(curve, axis=0) >= 0).all()
        assert curve[0].tolist() == [0, 0]
        assert curve[-1].tolist() == [100, 100]

        bars = drawn(tab, ".bars")
        assert bars["titles"] == ["score", "share of a set in %"]
        assert bars["labels"] == [*explored.SETS, "threshold"]
        assert bars["colours"][:2] == colours(tab)
        for of, steps in zip((ind, ood), bars["xy"], strict=False):
            is_histogram(steps, of)
        assert [x for x, _ in bars["xy"][2]] == pytest.approx([threshold] * 2)

    cloud = drawn(tab, ".cloud")
    assert cloud["titles"] == [
        "first component (50 % of variance)",
        "second component (25 %)",
    ]
    assert cloud["labels"] == [*explored.SETS, "F*"]
    for name, points in zip(explored.SETS, cloud["xy"], strict=False):
        np.testing.assert_allclose(points, kept[f"points/{name}"], rtol=1e-6)
    assert cloud["xy"][2] == [kept["singularity"].tolist()]


def test_tiles_are_framed_as_their_set_is_coloured(opened):
    tab = opened("run-0")
    set_slider(tab, 150)
    for side in ("above", "below"):
        for tile in tab.locator(f".run.open .{side} li .tile").all():
            kind = "ind" if tile.get_attribute("title").startswith("in") else "ood"
            assert tile.get_attribute("class") == f"tile {kind}"
            found = tile.evaluate(
                "(tile, kind) => { const box = document.createElement('i');"
                "box.style.color = `var(--${kind})`; document.body.append(box);"
                "return [getComputedStyle(tile), getComputedStyle(box)]"
                ".map((of, i) => i ? of.color : of.borderTopColor) }",
                kind,
            )
            assert found[0] == found[1]


def test_the_movie_draws_each_moment(opened):
    tab, of = opened("run-1"), movie()
    slider = tab.locator(".run.open .movie .slider")
    slider.focus()
    for moment, step in enumerate(STEPS):
        cloud, bars, medians = (
            drawn(tab, f".movie {name}") for name in (".cloud", ".bars", ".medians")
        )
        assert cloud["labels"] == [*of.points, "F*"]
        for points, xy in zip(of.points.values(), cloud["xy"], strict=False):
            np.testing.assert_allclose(xy, points[moment], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(cloud["xy"][-1], [of.star[moment]], rtol=1e-3)
        for speeds, xy in zip(of.speeds.values(), bars["xy"], strict=True):
            is_histogram(xy, speeds[moment])
        for speeds, xy in zip(of.speeds.values(), medians["xy"], strict=False):
            x, y = np.array(xy).T
            np.testing.assert_allclose(x, np.log10(1 + STEPS), rtol=1e-6)
            np.testing.assert_allclose(y, np.median(speeds, axis=1), rtol=1e-3)
        assert {x for x, _ in medians["xy"][-1]} == {np.log10(1 + step)}
        tab.keyboard.press("ArrowRight")


def test_rows_without_a_number_are_last_both_ways(opened):
    tab = opened("run-0")
    tab.evaluate(
        "() => { const table = document.querySelector('.run.open .sheet table');"
        "const row = table.tBodies[0].rows[0].cloneNode(true);"
        "row.cells[1].textContent = 'failed';"
        "row.cells[1].removeAttribute('data-sort');"
        "table.tBodies[0].prepend(row) }"
    )
    heading = tab.locator(".run.open .sheet th", has_text="AUROC").first
    for _ in range(2):
        heading.click()
        cells = tab.locator(".run.open .sheet tbody").first.locator("td:nth-child(2)")
        texts = cells.all_inner_texts()
        assert texts[-1] == "failed"
        assert "failed" not in texts[:-1]
