"""The page of one results folder, and of many."""

from collections.abc import Sequence
from pathlib import Path

from analysis import pages
from experiments.harness import gathered, markup
from experiments.harness.gathered import Run


def write(path: Path, title: str, overview: str, runs: Sequence[Run]) -> int:
    """Write the page of many; return its bytes.

    Args:
      path: of the file.
      title: of the page.
      overview: HTML of what is seen first.
      runs: each is a section of its own, `identifier` its address.
    """
    first = pages.section("overview", overview, "overview")
    sections = [markup.detail(run, identifier(i)) for i, run in enumerate(runs)]
    return pages.write(path, title, "\n".join([first, *sections]), one=False)


def identifier(place: int) -> str:
    """Of the run at a place, which `#…` leads to."""
    return f"run-{place}"


def of_folder(folder: Path, name: str) -> None:
    """report.html of a results folder: what the page of many shows of it."""
    run = gathered.read(folder, name)
    section = markup.detail(run, identifier(0))
    pages.write(folder / "report.html", markup.title_of(run), section, one=True)
