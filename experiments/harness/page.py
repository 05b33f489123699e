"""One file that shows results: no server, no network, no other file.

What looks and moves is in `page_files`: the page's own style and scripts, and bundled
libraries; the charts' only where something is to be explored.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from experiments.harness import gathered, markup
from experiments.harness.gathered import Run

FILES = Path(__file__).parent / "page_files"
ALWAYS = ("vendor/tablesort.min.js", "page.js")
EXPLORER = ("vendor/chart.umd.min.js", "charts.js", "explorer.js")


def write(path: Path, title: str, overview: str, runs: Sequence[Run]) -> int:
    """Write the page, all or nothing; return its bytes.

    Args:
      path: of the file.
      title: of the page.
      overview: HTML of what is seen first; with "" and one run that run is.
      runs: each is a section of its own, `identifier` its address.
    """
    sections = [markup.detail(run, identifier(i)) for i, run in enumerate(runs)]
    body = "\n".join(sections)
    first = f'<section id="overview" tabindex="-1">\n{overview}\n</section>\n'
    explores = '<div class="explorer">' in body
    scripts = (*(EXPLORER if explores else ()), *ALWAYS)
    page = Template(_file("page.html")).substitute(
        title=markup.escape(title),
        style=_file("page.css"),
        main=(first if overview else "") + body,
        templates=_file("explorer.html") if explores else "",
        scripts="\n".join(f"<script>{_script(name)}</script>" for name in scripts),
        kind="many" if overview else "one",
    )
    content = page.encode()
    temporary = path.with_name(f".{path.name}.unfinished")
    temporary.write_bytes(content)
    temporary.rename(path)
    return len(content)


def identifier(place: int) -> str:
    """Of the run at a place, which `#…` leads to."""
    return f"run-{place}"


def of_folder(folder: Path, name: str) -> None:
    """report.html of a results folder: what the page of all results shows of it."""
    run = gathered.read(folder, name)
    write(folder / "report.html", markup.title_of(run), "", [run])


def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """Without the address of a source map, which lies nowhere."""
    lines = _file(name).splitlines()
    return "\n".join(x for x in lines if not x.startswith("//# sourceMappingURL"))
