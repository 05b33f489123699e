"""A page for each method."""

from fssd_jax import detectors
from website import measured, methods

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
