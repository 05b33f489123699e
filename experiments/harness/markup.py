"""HTML of a results folder and of its parts; every text is escaped here."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from analysis import animation, pages
from experiments.harness import explored, gathered
from experiments.harness.files import STRANGE, load_left
from experiments.harness.gathered import Run
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError

# A date is none, nor is "100 in".
NUMBER = re.compile(r"([-+−]?\d[\d,]*\.?\d*(e[-+]?\d+)?)(?=$|\s*([%\[±(/]|to ))")
WIDE = 1000  # pixels, more than the pictures have that are a column wide
UNFOLDED = 3  # notes below a table, beside warnings
SECONDS = {
    "seconds": Sheet("Seconds of this run, by part", ["part", "s"], [], []),
    "scoring_seconds_per_1000_images": Sheet(
        "Seconds of scoring, without compilation",
        ["method", "s per 1,000 images"],
        [],
        [],
    ),
}


def escape(text: Any) -> str:
    return html.escape(str(text))


def number_of(cell: str) -> float | None:
    """That a cell begins with, behind which an interval or a unit may stand."""
    found = NUMBER.match(cell.strip())
    if found is None:
        return None
    return float(found[0].replace("−", "-").replace(",", ""))


def table(sheet: Sheet, level: int = 3, links: Mapping[str, str] | None = None) -> str:
    """A sheet; columns that are mostly numbers sort by these, what is none last.

    Args:
      sheet: of text cells.
      level: of its heading; without a title there is none.
      links: cell of the first column → where it leads.
    """
    numeric = [
        _mostly(number_of(row[i]) is not None for row in sheet.rows if row[i])
        for i in range(len(sheet.headings))
    ]
    heads = "".join(
        f'<th scope="col"{_method(is_number)}>{escape(heading)}</th>'
        for heading, is_number in zip(sheet.headings, numeric, strict=True)
    )
    lines = "\n".join(_line(row, numeric, links or {}) for row in sheet.rows)
    title = f"<h{level}>{escape(sheet.title)}</h{level}>\n" if sheet.title else ""
    label = escape(sheet.title or "table")
    return (
        f'<div class="sheet">{title}'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody></table></div>\n{notes(sheet.notes)}</div>\n"
    )


def _mostly(flags: Iterable[bool]) -> bool:
    found = list(flags)
    return 2 * sum(found) > len(found)


def _method(is_number: bool) -> str:
    return ' class="number" data-sort-method="number"' if is_number else ""


def _line(row: list[str], numeric: list[bool], links: Mapping[str, str]) -> str:
    cells = []
    for i, cell in enumerate(row):
        value = number_of(cell) if numeric[i] else None
        known = f' data-sort="{value}"' if value is not None else ""
        kind = ' class="number"' if numeric[i] else ""
        text = escape(cell)
        if i == 0 and cell in links:
            text = f'<a href="{escape(links[cell])}">{text}</a>'
        cells.append(f"<td{kind}{known}>{text}</td>")
    control = ' class="control"' if row and row[0].startswith("control") else ""
    return f"<tr{control}>{''.join(cells)}</tr>"


def notes(lines: Iterable[str]) -> str:
    def kind(line):
        return "note warning" if line.startswith("warning") else "note"

    told = {x: f'<p class="{kind(x)}">{escape(x)}</p>' for x in lines}
    warnings = [text for x, text in told.items() if x.startswith("warning")]
    others = [text for x, text in told.items() if not x.startswith("warning")]
    first, rest = others[:UNFOLDED], others[UNFOLDED:]
    more = folded(f"{len(rest)} further notes", "\n".join(rest)) if rest else ""
    return "\n".join([*warnings, *first, *filter(None, [more])])


def alert(title: str, lines: Iterable[str]) -> str:
    rows = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="alert" role="note"><b>{escape(title)}</b><ul>{rows}</ul></div>'


def folded(title: str, inner: str, *, opened: bool = False) -> str:
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(title)}</summary>\n{inner}\n</details>\n"


# ---- a run --------------------------------------------------------------------------


def title_of(run: Run) -> str:
    return run.sheets[0].title if run.sheets and run.sheets[0].title else run.name


def detail(run: Run, identifier: str) -> str:
    """All that a results folder holds, as one section: the one layout of a run."""
    facts = {
        "script": run.experiment,
        "benchmark": gathered.benchmark_of(run),
        "seed": gathered.seed_of(run),
        "device": str(run.facts.get("device") or run.config.get("device") or ""),
        "written": f"{run.date} UTC" if run.date else "",
        "folder": run.name,
    }
    told = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
        if value
    )
    problems = list(run.problems)
    moving = _explorer(run, problems) + _training(run, problems)
    problems = list(dict.fromkeys(problems))  # of a file that was tried before
    wrong = gathered.inverted(run.facts)
    parts = [
        f"<h2>{escape(title_of(run))}</h2>\n<dl class='facts'>{told}</dl>",
        alert("Could not be read", problems) if problems else "",
        alert(
            "Inverted layers: alone they take OoD for in-distribution (AUROC < 0.5)",
            wrong,
        )
        if wrong
        else "",
        "".join(table(sheet) for sheet in run.sheets),
        moving,
        _pictures(run),
        _cost(run.timing),
        _provenance(run),
        _raw(run),
    ]
    body = "\n".join(part for part in parts if part)
    return pages.section(identifier, body)


def _explorer(run: Run, problems: list[str]) -> str:
    try:
        found = explored.read(run.folder)
    except InputError as error:
        problems.append(str(error))
        return ""
    return pages.holding("explorer", "Explorer", found) if found else ""


def _training(run: Run, problems: list[str]) -> str:
    path = run.folder / animation.FILE
    if not path.exists():
        return ""
    try:
        return animation.as_part(animation.of_arrays(load_left(path)))
    except InputError as error:
        problems.append(str(error))
    except STRANGE as error:
        problems.append(f"{path}: cannot be shown ({type(error).__name__}: {error})")
    return ""


def _pictures(run: Run) -> str:
    shown = "\n".join(_picture(path) for path in run.pictures)
    return f'<h3>Pictures</h3>\n<div class="pictures">{shown}</div>' if shown else ""


def _picture(path: Path) -> str:
    name = escape(path.stem)
    try:
        with Image.open(path) as picture:
            width, height = picture.size
        text = base64.b64encode(path.read_bytes()).decode()
    except (OSError, Image.DecompressionBombError) as error:
        return f'<p class="note warning">{name}: {escape(error)}</p>'
    wide = ' class="wide"' if width > WIDE else ""
    return (
        f'<figure{wide}><img alt="{name}" loading="lazy" decoding="async" '
        f'width="{width}" height="{height}" src="data:image/png;base64,{text}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _cost(timing: Mapping[str, Any]) -> str:
    found = ""
    for key, sheet in SECONDS.items():
        seconds = timing.get(key)
        if not isinstance(seconds, dict):
            continue
        known = {k: v for k, v in seconds.items() if isinstance(v, int | float)}
        if known:
            rows = [[str(name), f"{value:.3g}"] for name, value in known.items()]
            found += table(sheet._replace(rows=rows), 4)
    return f"<h3>Cost</h3>\n<div class='beside'>{found}</div>" if found else ""


def _provenance(run: Run) -> str:
    whole = {**run.facts, **run.config}
    sets = whole.get("data")
    rows = [
        [name, str(of.get("version") or of.get("path") or ""), str(of.get("sha256"))]
        for name, of in (sets.items() if isinstance(sets, dict) else ())
        if isinstance(of, dict)
    ]
    data = table(Sheet("Data", ["set", "from", "sha256"], rows, []), 4) if rows else ""
    told = {k: whole[k] for k in ("options", "versions", "numerics") if k in whole}
    lists = [
        [f"{group}: {key}", value if isinstance(value, str) else json.dumps(value)]
        for group, of in told.items()
        if isinstance(of, dict)
        for key, value in of.items()
    ]
    lists += [[k, str(whole[k])] for k in ("code", "device", "cores") if k in whole]
    more = (
        table(Sheet("", ["what decided the numbers", ""], lists, [])) if lists else ""
    )
    inner = data + (folded("Options, versions, code", more) if more else "")
    return f"<h3>Provenance</h3>\n{inner}" if inner else ""


def _raw(run: Run) -> str:
    names = ("metrics.json", "config.json", "timing.json")
    found = [
        folded(n, _text(run.folder / n)) for n in names if _is_text(run.folder / n)
    ]
    return f"<h3>Files</h3>\n{''.join(found)}" if found else ""


def _is_text(path: Path) -> bool:
    return path.is_file()


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return f"<pre tabindex='0'>{html.escape(text, quote=False)}</pre>"
