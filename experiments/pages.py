"""What an experiment leaves: facts, a table in all formats, pictures, and one page."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis import plots
from experiments import common, tables
from experiments.tables import Sheet

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; color: #222;
max-width: 70em; margin: 2em auto; padding: 0 1em } table { border-collapse: collapse }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } img { max-width: 100% }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto }"""


def leave(
    folder: Path,
    options: Mapping[str, Any],
    facts: Mapping[str, Any],
    sheet: Sheet,
    figures: Mapping[str, Figure],
    *,
    provenance: Sequence[str] = ("data", "versions", "device"),
) -> None:
    """Fill a results folder.

    Args:
      options: the command line's, for config.json.
      facts: for metrics.json.
      sheet: for metrics.md, .csv and .tex.
      figures: by name; PNG and PDF.
      provenance: those of `facts` that the page shows as they are.
    """
    common.write_json(folder / "config.json", options)
    common.write_json(folder / "metrics.json", facts)
    for ending, as_text in tables.FORMATS.items():
        (folder / f"metrics.{ending}").write_text(as_text(sheet))
    for name, figure in figures.items():
        plots.save(figure, folder / name)
    known = {name: facts[name] for name in provenance}
    write_page(folder, sheet.title, [sheet], list(figures), {**options, **known})


def write_page(
    folder: Path,
    title: str,
    sheets: Sequence[Sheet],
    pictures: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """report.html: tables, the folder's PNGs and `facts` in a file that needs no other.

    Args:
      pictures: names without ending.
    """
    images = "\n".join(
        f'<p><img alt="{name}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / f"{name}.png").read_bytes()).decode()}"></p>'
        for name in pictures
    )
    known = json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{html.escape(title)}</h1>\n"
        + "".join(tables.to_html(sheet) for sheet in sheets)
        + f"{images}\n<h2>Provenance</h2>\n<pre>{html.escape(known)}</pre>\n"
        "</body></html>\n"
    )
    (folder / "report.html").write_text(text, encoding="utf-8")
