"""Tables of text cells: for the terminal, Markdown, CSV and LaTeX."""

import csv
import io
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

WIDTH = 100  # columns, at most; in a file or a pipe there is no terminal to ask


class Sheet(NamedTuple):
    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]
    # The headings that the screen shows: what a reader needs, within its width. None:
    # all of them. Files hold every column.
    screen: tuple[str, ...] | None = None


def show(tables: Sequence[Sheet]) -> None:
    """Print the tables, in the columns of `Sheet.screen`."""
    console = Console()
    if not sys.stdout.isatty() or console.width > WIDTH:
        console = Console(width=WIDTH)
    for sheet in tables:
        print_sheet(console, sheet)


def print_sheet(console: Console, sheet: Sheet) -> None:
    table = Table(title=sheet.title, title_justify="left")
    shown = [sheet.headings.index(h) for h in sheet.screen or sheet.headings]
    columns = {i: [sheet.headings[i], *(row[i] for row in sheet.rows)] for i in shown}
    natural = sum(max(map(len, cells)) for cells in columns.values())
    fits = natural + 3 * len(shown) + 1 <= console.width
    for i, (heading, *cells) in columns.items():
        # Headings and text may be broken between words, numbers may not.
        whole = i > 0 and not fits and all(map(_is_number, cells))
        width = max(map(len, [*cells, *heading.split()])) if whole else None
        justify = "right" if i else "left"
        table.add_column(heading, justify=justify, overflow="fold", width=width)
    for row in sheet.rows:
        style = "dim" if row[0].startswith("control") else None
        table.add_row(*(row[i].replace("[", "\\[") for i in shown), style=style)
    console.print(table)
    for note in sheet.notes:
        style = "yellow" if note.startswith("warning") else None
        console.print(note, style=style, markup=False, highlight=False)
    if len(shown) < len(sheet.headings):
        hidden = [h for h in sheet.headings if sheet.headings.index(h) not in shown]
        told = f"In the files also: {'; '.join(hidden)}."
        console.print(told, style="dim", markup=False, highlight=False)
    console.print()


def _is_number(cell: str) -> bool:
    """Or its interval, its deviation, or nothing."""
    return re.fullmatch(r"[-+−±\d.,e\[\] ]*|[-+]?inf", cell) is not None


def to_markdown(sheet: Sheet) -> str:
    def row(cells):
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = row(["---", *["---:"] * (len(sheet.headings) - 1)])
    lines = [f"### {sheet.title}", "", row(sheet.headings), rule]
    lines += [row(cells) for cells in sheet.rows]
    lines += [line for note in sheet.notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def of_markdown(text: str) -> list[Sheet]:
    """The sheets that `to_markdown` wrote below each other; `screen` is not told.

    What is none of a sheet is passed over.
    """
    found: list[Sheet] = []
    for line in text.splitlines():
        if line.startswith("### "):
            found.append(Sheet(line.removeprefix("### "), [], [], []))
        elif not found or not line.strip():
            continue
        elif not line.startswith("|"):
            found[-1].notes.append(line)
        elif not found[-1].headings:
            found[-1].headings.extend(_cells(line))
        elif re.fullmatch(r"[|: -]+", line) is None or "---" not in line:
            wide = len(found[-1].headings)
            cells = _cells(line) + [""] * wide
            found[-1].rows.append(cells[:wide])
    return found


def _cells(line: str) -> list[str]:
    inner = re.split(r"(?<!\\)\|", line)[1:-1]
    return [c.removeprefix(" ").removesuffix(" ").replace("\\|", "|") for c in inner]


def to_csv(sheet: Sheet) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    title = [[f"# {sheet.title}"]] if sheet.title else []
    writer.writerows([*title, sheet.headings, *sheet.rows])
    return text.getvalue()


_LATEX = {
    **{c: f"\\{c}" for c in "%&#_${}"},
    "\\": r"\textbackslash{}",
    **{c: rf"\{c}{{}}" for c in "~^"},
    **{
        "±": r"$\pm$",
        "ε": r"$\epsilon$",
        "α": r"$\alpha$",
        "−": "$-$",
        "×": r"$\times$",
    },
    "<": "$<$",
}


def to_latex(sheet: Sheet) -> str:
    """A table for \\usepackage{booktabs}."""

    def row(cells):
        shown = (re.sub(".", lambda c: _LATEX.get(c[0], c[0]), cell) for cell in cells)
        return " & ".join(shown) + r" \\"

    columns = "l" + "r" * (len(sheet.headings) - 1)
    lines = [
        f"% {sheet.title}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        row(sheet.headings),
        r"\midrule",
        *(row(cells) for cells in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


FORMATS = {"md": to_markdown, "csv": to_csv, "tex": to_latex}


def mean_cell(values: Sequence[float], form: str) -> str:
    """Mean ± sample standard deviation over seeds; one value stands alone."""
    mean = f"{np.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):{form}}"
