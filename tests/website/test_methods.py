"""A page for each method."""

import re

import pytest

from fssd_jax import detectors
from website import failures, measured, methods

PAGES = methods.pages()


def test_each_detector_has_its_page_with_all_parts():
    assert {f"methods/{name}.md" for name in detectors.__all__} < set(PAGES)
    for name in detectors.__all__:
        page = PAGES[f"methods/{name}.md"]
        for part in ("## What it needs", "## When it fails", "## In Python"):
            assert page.count(part) == 1, name
        for function in ("fit", "score"):
            assert f"::: fssd_jax.detectors.{name}.{function}\n" in page


def test_the_lowest_and_the_highest_stand_on_it():
    page = PAGES["methods/msp.md"]
    assert "Lowest: **61.7 (1 seed) on `genomes`, row `msp`**" in page
    assert "Highest: 99.6 ± 0.2 on `digits_far`, row `msp`" in page


def test_what_was_not_run_says_so(monkeypatch):
    assert "**Not run**" not in PAGES["methods/vim.md"]
    rows = measured.of_detectors() | {"vim": []}
    monkeypatch.setattr(measured, "of_detectors", lambda: rows)
    pages = methods.pages()
    assert "**Not run**" in pages["methods/vim.md"]
    assert "Lowest" not in pages["methods/vim.md"]
    row = next(
        line for line in pages["methods/index.md"].split("\n") if "vim.md" in line
    )
    assert row.count("not run") == 2


def test_the_table_of_a_level_has_its_rows_alone():
    table = methods.of_level("noise")
    assert "[fssd logits](methods/fssd.md)" in table
    assert "msp" not in table
    assert "OoD" not in table
    assert "control: raw pixels" in methods.of_level("controls")


def test_each_method_has_its_cost_from_a_file():
    """Where it was not timed on one core, by the table of a run of all methods."""
    for name in detectors.__all__:
        needs = PAGES[f"methods/{name}.md"].partition("## When it fails")[0]
        assert re.search(r"`[\w ,+]+` \d+\.\d\d( to \d+\.\d\d)? s", needs), name
    assert measured.seconds_once()["gram"] == [1.74]
    assert "`gram` 1.74 s." in PAGES["methods/gram.md"]
    assert "`knn` 0.55 to 0.62 s." in PAGES["methods/knn.md"]


def test_a_cost_that_was_not_measured_says_so_with_the_passes():
    told = methods.cost(["of my own"], measured.seconds(), {}, "2, 1 gradient")
    expected = (
        "Cost: not measured; forward passes and gradients an image: 2, 1 gradient."
    )
    assert told == expected


def test_each_method_has_a_sentence_on_when_it_fails_with_numbers_of_a_file():
    assert set(failures.SENTENCES) == set(detectors.__all__)
    for name, (text, stem) in failures.SENTENCES.items():
        page = PAGES[f"methods/{name}.md"].partition("## When it fails")[2]
        told = page.strip().partition("\n")[0]
        assert told == failures.sentence(name)
        assert (measured.RESULTS / f"{stem}-0.json").exists()
        _, cells = failures.cells_of(stem)
        for row in re.findall(r"\{(.*?)\}", text):
            assert str(cells[row]) in told
    told = failures.sentence("ash")
    assert "51.0 ± 1.3, where SCALE, which keeps them, has 67.2 ± 0.1" in told


@pytest.mark.parametrize("name", failures.SENTENCES)
def test_what_it_is_compared_with_does_better(name):
    """Of two numbers the first is the method's; ReAct and ODIN gain nothing."""
    text, stem = failures.SENTENCES[name]
    _, cells = failures.cells_of(stem)
    own, *others = (cells[row].mean for row in re.findall(r"\{(.*?)\}", text))
    if "chance" in text:
        assert own < 0.515
    if "the wrong way" in text:
        assert own < 0.2
    for other in others:
        assert own < other + 0.005
