"""HTML files that need no other: no server, no network.

What looks and moves lies in `page_files`: the page's own style and scripts, and bundled
libraries, with their licences.
"""

import html
import json
from pathlib import Path
from string import Template
from typing import Any

FILES = Path(__file__).parent / "page_files"
TABLES = ("vendor/tablesort.min.js", "page.js")
CHARTS = ("vendor/chart.umd.min.js", "charts.js")
# What moves, by the class of the element that holds its data: its scripts, and the
# template of its parts.
MOVING = {"explorer": "explorer", "movie": "movie"}


def write(path: Path, title: str, main: str, *, one: bool) -> int:
    """Write a page, all or nothing; return its bytes.

    Args:
      path: of the file.
      title: of the page.
      main: HTML of its sections, of which one is seen at a time; see `page.js`.
      one: whether there is one only, with a heading of its own.
    """
    moving = [name for name, of in MOVING.items() if f'<div class="{of}">' in main]
    own = [f"{name}.js" for name in moving]
    names = [*(CHARTS if moving else ()), *own, *TABLES]
    page = Template(_file("page.html")).substitute(
        title=html.escape(title),
        style=_file("page.css"),
        main=main,
        templates="".join(_file(f"{name}.html") for name in moving),
        scripts="\n".join(f"<script>{_script(name)}</script>" for name in names),
        kind="one" if one else "many",
    )
    # A file's name need not be text, and what it is of must not stop the page.
    content = page.encode(errors="backslashreplace")
    temporary = path.with_name(f".{path.name}.unfinished")
    temporary.write_bytes(content)
    temporary.rename(path)
    return len(content)


def holding(kind: str, heading: str, value: Any) -> str:
    """An element of `MOVING` with its data, which a script fills when it is seen."""
    data = f'<script type="application/json">{as_json(value)}</script>'
    return f'<div class="{kind}"><h3>{html.escape(heading)}</h3>{data}</div>\n'


def section(identifier: str, inner: str, kind: str = "run") -> str:
    """A part of a page that `#identifier` leads to."""
    opening = f'<section class="{kind}" id="{identifier}" tabindex="-1">'
    return f"{opening}\n{inner}\n</section>"


def as_json(value: Any) -> str:
    """For a script element, in which a "<" may begin its end, or that of another."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _file(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """Without the address of a source map, which lies nowhere."""
    lines = _file(name).splitlines()
    return "\n".join(x for x in lines if not x.startswith("//# sourceMappingURL"))
