"""The page in Chromium: what moves agrees with `fssd_jax.metrics`, by mouse and keys.

Skipped where Playwright or Chromium is not there; CONTRIBUTING.md has how to get them.
"""

import math
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from analysis import animation
from experiments import report
from experiments.harness import explored
from experiments.harness.files import save_arrays
from fssd_jax import metrics
from tests.experiments import pages, scored
from tests.npz import read_npz

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
WIDE, NARROW = 1280, 360
NAME = "fmnist-paper-1-0123abcd"  # where training was followed, too
STEPS = np.array([0, 1, 8, 40])  # Of the run in the middle: by letters 9.5 comes last.
METHODS = pages.facts(1)["methods"]
LOW = {"methods": {**METHODS, "fssd": {**METHODS["fssd"], "auroc": 0.095}}}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    reason = "pip install playwright; apt-get install chromium"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    path = next(filter(None, found), None)
    if path is None:
        pytest.skip(f"no Chromium on PATH, nor named by CHROMIUM: {reason}")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=list(FLAGS))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for i in range(3):
        name = NAME.replace("1", str(i), 1)
        pages.write(folder / "all" / name, i, i == 0, LOW if i == 1 else None)
    save_arrays(folder / "all" / NAME / animation.FILE, animation.to_arrays(movie()))
    out = folder / "report.html"
    assert report.main(["--results", str(folder / "all"), "--out", str(out)]) == 0
    return out.as_uri()


@pytest.fixture
def opened(browser, address):
    """(section, width, page) → it is there; at the end nothing was complained of."""
    complaints, contexts = [], []

    def at(section, width=WIDE, page=address):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.goto(f"{page}#{section}")
        return tab

    yield at
    for context in contexts:
        context.close()
    assert complaints == []


def movie():
    rng = np.random.default_rng(0)
    sets = ("in-distribution", "OoD", "noise")
    features = {s: rng.normal(size=(4, 7, 3)) for s in sets}
    speeds = {s: rng.uniform(1, 9, (4, 7)).round(1) for s in sets}
    stars = features["noise"].mean(1)
    return animation.from_arrays("logits", STEPS, features, stars, speeds)


def seen(tab, name):
    return tab.locator(f".run.open {name}").inner_text()


def set_slider(tab, level):
    script = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }"
    tab.locator(".run.open .slider").evaluate(script, level)


def where_it_moves(ind):
    """The first places of the slider at another threshold than the one before."""
    ordered, n = np.sort(ind)[::-1], explored.LEVELS
    at = [ordered[math.ceil(k * len(ind) / n) - 1] for k in range(1, n + 1)]
    return [k for k in range(2, n + 1) if at[k - 1] != at[k - 2]][::2]


def percent(part, whole):
    return f"{100 * part / whole:.1f} %"


def test_the_slider_shows_the_rates_of_metrics(opened):
    tab = opened("run-0")
    for place, name in enumerate(pages.METHODS):
        ind, ood = pages.scores([0, place])
        tab.select_option(".run.open .method", name)
        for level in (1, 190, 200, *where_it_moves(ind)):
            set_slider(tab, level)
            tpr = level / explored.LEVELS
            rate = metrics.fpr_at(ind, ood, tpr).value
            assert seen(tab, "output") == f"{100 * tpr:.1f} %"
            false = round(rate * len(ood))
            assert seen(tab, ".false") == f"{100 * rate:.1f} % {false} of {len(ood)}"
            threshold = float(seen(tab, ".threshold"))
            accepted = int((ind >= threshold).sum())
            told = f"{percent(accepted, len(ind))} {accepted} of {len(ind)}"
            assert seen(tab, ".accepted") == told
        auroc = metrics.auroc(ind, ood)
        assert seen(tab, ".auroc") == f"{100 * auroc:.1f} %"


def test_images_on_either_side_of_the_threshold(opened):
    """Those kept that score nearest, of both sets."""
    tab = opened("run-0")
    tab.select_option(".run.open .method", "msp")
    ind, ood = pages.scores([0, 0])
    shown = np.concatenate([ind[0:42:6], ood[0:30:6]])
    for level in (60, 150, 195):
        set_slider(tab, level)
        threshold = float(seen(tab, ".threshold"))
        for side, of in (
            ("above", sorted(s for s in shown if s >= threshold)),
            ("below", sorted((s for s in shown if s < threshold), reverse=True)),
        ):
            texts = tab.locator(f".run.open .{side} li").all_inner_texts()
            told = [float(t.rpartition(":")[2]) for t in texts if t != "none"]
            assert told == of[:8]


def test_pointing_at_the_curve_or_going_there_by_keys_shows_the_image(opened):
    tab = opened("run-0")
    tab.select_option(".run.open .method", "msp")
    assert "Point at" in seen(tab, ".look")
    for chart in (".cloud", ".roc"):
        tab.reload()
        tab.locator(f".run.open {chart}").hover()
        assert "score" in seen(tab, ".look")
        assert tab.locator(".run.open .look .tile").count() == 1
    ind, ood = pages.scores([0, 0])
    shown = np.concatenate([ind[0:42:6], ood[0:30:6]])
    tab.select_option(".run.open .method", "msp")
    tab.locator(".run.open .roc").focus()
    tab.keyboard.press("Home")
    for score in np.sort(shown)[::-1]:
        told = re.search(r"score (\S+)\. .* accepts (.*?) of .* and (.*?) of",
                         seen(tab, ".look"))  # fmt: skip
        assert float(told[1]) == score
        assert told[2] == percent((ind >= score).sum(), len(ind))
        assert told[3] == percent((ood >= score).sum(), len(ood))
        tab.keyboard.press("ArrowRight")


@pytest.mark.usefixtures("undrawn")
def test_own_images_that_score_scored_are_explored(opened, tmp_path):
    """The page that `score` leaves: rates by the slider, and each image by keys."""
    assert scored.main(scored.write(tmp_path), tmp_path) == 0
    (folder,) = (tmp_path / "score").iterdir()
    scores, kept = (read_npz(folder / f"{name}.npz") for name in ("scores", "explorer"))
    tab = opened("", page=(folder / "report.html").as_uri())
    assert tab.input_value(".run.open .method") == "fssd tiles"
    name = "fssd deep"
    tab.select_option(".run.open .method", name)
    ind, ood = scores[f"{name}/ind"], scores[f"{name}/ood"]
    for level in (20, 100, 190):
        set_slider(tab, level)
        rate = metrics.fpr_at(ind, ood, level / explored.LEVELS).value
        told = f"{percent(rate * len(ood), len(ood))} {round(rate * len(ood))} of 60"
        assert seen(tab, ".false") == told
    shown = [
        s[kept[f"index/{of}"]] for s, of in zip((ind, ood), explored.SETS, strict=True)
    ]
    order = np.argsort(-np.concatenate(shown), kind="stable")
    tab.locator(".run.open .roc").focus()
    tab.keyboard.press("Home")
    columns = explored.COLUMNS
    for image in order[:3]:
        at = image if image < len(shown[0]) else image - len(shown[0])
        of = explored.SETS[int(image >= len(shown[0]))]
        told = f"{of} {kept[f'index/{of}'][at]}"
        if of == explored.SETS[0]:  # of a folder; the others are of one array
            name = kept[f"names/{of}"][at]
            pixels = np.asarray(Image.open(tmp_path / "digits" / name))
            np.testing.assert_array_equal(pixels, kept[f"images/{of}"][at, ..., 0])
            told += f", {name}"
        assert seen(tab, ".look").strip().startswith(f"{told}: score ")
        assert tab.get_attribute(".run.open .look .tile", "title") == told
        style = tab.locator(".run.open .look .tile").get_attribute("style")
        (place,) = re.findall(r"background-position: (\S+)%", style)
        assert float(place) == pytest.approx(100 * (image % columns) / (columns - 1))
        tab.keyboard.press("ArrowRight")


def test_the_slider_moves_by_keys(opened):
    tab = opened("run-0")
    tab.locator(".run.open .slider").focus()
    tab.keyboard.press("ArrowLeft")
    assert seen(tab, "output") == "94.5 %"
    tab.keyboard.press("Home")
    assert seen(tab, "output") == "0.5 %"


def test_tables_sort_by_number_and_filter(opened):
    tab = opened("overview")
    heading = tab.locator(".runs th", has_text="AUROC")

    def column():
        rows = tab.locator(".runs tbody tr:visible td:nth-child(6)").all_inner_texts()
        return [float(text.split()[0]) for text in rows]

    values = [100 * pages.facts(i)["methods"]["fssd"]["auroc"] for i in (0, 2)]
    expected = [float(f"{v:.1f}") for v in (values[0], 9.5, values[1])]
    assert column() == expected
    orders = []
    for press in (heading.click, lambda: heading.press("Enter")):
        press()
        orders.append(column())
    assert sorted(orders) == sorted([sorted(expected), sorted(expected)[::-1]])
    tab.locator(".runs input").fill("fmnist-paper-1")
    assert column() == [expected[1]]
    tab.locator(".runs input").fill("")
    assert len(column()) == 3


def test_training_moves_by_the_slider_its_keys_and_by_itself(opened):
    tab = opened("run-1")
    slider = tab.locator(".run.open .movie .slider")
    slider.focus()
    for moment, step in enumerate(STEPS):
        told = [float(np.median(v[moment])) for v in movie().speeds.values()]
        each = zip(movie().speeds, told, strict=True)
        expected = ", ".join(f"{name} {value:g}" for name, value in each)
        assert seen(tab, ".movie .readout") == f"Step {step}, median speed: {expected}."
        assert seen(tab, ".movie output") == str(step)
        tab.keyboard.press("ArrowRight")
    tab.locator(".run.open .play").click()  # from the end it begins anew
    assert seen(tab, ".movie output") == "0"
    assert seen(tab, ".play") == "Pause"
    tab.locator(".run.open .play", has_text="Play").wait_for()
    assert seen(tab, ".movie output") == str(STEPS[-1])


def test_a_run_is_opened_by_tab_and_enter_and_left_again(opened):
    tab = opened("overview")
    tab.locator(".runs input").focus()
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.runs td a')"):
            break
    tab.keyboard.press("Enter")
    assert tab.locator(".run.open").count() == 1
    assert seen(tab, "dd >> text=fmnist-paper-0").startswith("fmnist-paper-0")
    assert not tab.locator("#overview").is_visible()
    tab.go_back()
    assert tab.locator("#overview").is_visible()
    assert not tab.locator(".run").first.is_visible()


@pytest.mark.parametrize("section", ["overview", "run-0", "run-1"])
def test_a_narrow_screen_holds_the_page(opened, section):
    """Wide tables scroll within themselves."""
    tab = opened(section, NARROW)
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= NARROW
    canvases = tab.locator("canvas:visible")
    assert canvases.count() == (0 if section == "overview" else 3)
