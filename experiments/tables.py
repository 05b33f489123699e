"""Results as sheets of text cells, for the terminal and for report.html alike."""

import html
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

METRICS = ("auroc", "auprc", "fpr80", "fpr95")

Result = dict[str, Any]  # what metrics.json holds


class Sheet(NamedTuple):
    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]


def method_sheet(results: list[Result]) -> Sheet:
    """Methods and controls of one pair, over one or several seeds."""
    first = results[0]
    rows = []
    for kind in ("methods", "controls"):
        for name in first[kind]:
            of_seeds = [r[kind][name] for r in results]
            rows.append(
                [
                    name,
                    *(_cell(of_seeds, metric) for metric in METRICS),
                    of_seeds[0]["labels"],
                ]
            )
    accuracy = ", ".join(f"{100 * r['model']['accuracy']:.1f} %" for r in results)
    epsilon = ", ".join(str(r["epsilon"]) for r in results)
    labels_note = (
        ". A control knows nothing of the trained network: what it reaches, the labels "
        "alone are worth."
    )
    spread = "± standard deviation over seeds"
    return Sheet(
        f"{first['benchmark']}, protocol {first['protocol']}, seed "
        + ", ".join(str(r["seed"]) for r in results),
        ["method", *(m.upper() for m in METRICS), "fitted on"],
        rows,
        [
            "In %; in-distribution is positive; "
            + (spread if len(results) > 1 else "[95 % bootstrap interval]")
            + labels_note,
            f"Test accuracy of the network {accuracy}; chosen ε {epsilon}.",
        ],
    )


def published_sheet(results: list[Result]) -> Sheet:
    """Our means beside published numbers, with the differences in points."""
    first = results[0]
    rows = []
    for name in first["methods"]:
        for metric in METRICS:
            published = [of.get(name, {}).get(metric) for of in first["paper"].values()]
            if not any(value is not None for value in published):
                continue
            ours = 100 * float(np.mean([r["methods"][name][metric] for r in results]))
            row = [f"{name} {metric.upper()}", f"{ours:.1f}"]
            for value in published:
                gap = "-" if value is None else f"{ours - 100 * value:+.1f}"
                row += ["-" if value is None else f"{100 * value:.1f}", gap]
            rows.append(row)
    headings = ["", "here"]
    for where in first["paper"]:
        headings += [where, "difference"]
    title = f"{first['benchmark']}, protocol {first['protocol']}, against published"
    return Sheet(title, headings, rows, ["In %, differences in points."])


def layer_sheet(result: Result) -> Sheet:
    """FSSD of each layer of one seed, with warnings for inverted layers."""
    rows = []
    for layer in result["layers"]:
        low, high = layer["auroc_no_step_ci95"]
        rows.append(
            [
                layer["name"],
                str(layer["dim"]),
                f"{100 * layer['auroc_no_step']:.1f} "
                f"[{100 * low:.1f}, {100 * high:.1f}]",
                f"{100 * layer['auroc']:.1f}",
                f"{layer['alpha']:+.3g}",
                "yes" if layer["inverted"] else "",
            ]
        )
    return Sheet(
        f"{result['benchmark']}, FSSD by layer, seed {result['seed']}",
        ["layer", "dim", "AUROC, ε = 0, no labels", "AUROC at ε", "α", "inverted"],
        rows,
        [f"warning: {text}" for text in result["warnings"]],
    )


def sheets(results: list[Result]) -> list[Sheet]:
    """All that there is to say of one pair over its seeds."""
    return [
        method_sheet(results),
        *([published_sheet(results)] if results[0]["paper"] else []),
        *(layer_sheet(result) for result in results if result["layers"]),
    ]


def print_sheet(console: Console, sheet: Sheet) -> None:
    table = Table(title=sheet.title, title_justify="left")
    for i, heading in enumerate(sheet.headings):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    for row in sheet.rows:
        style = "dim" if row[0].startswith("control") else None
        table.add_row(*(cell.replace("[", "\\[") for cell in row), style=style)
    console.print(table)
    for note in sheet.notes:
        style = "yellow" if note.startswith("warning") else None
        console.print(note, style=style, markup=False, highlight=False)
    console.print()


def to_html(sheet: Sheet) -> str:
    def row(cells, tag):
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in sheet.rows)
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in sheet.notes)
    return (
        f"<h2>{html.escape(sheet.title)}</h2>\n<table>\n"
        f"<tr>{row(sheet.headings, 'th')}</tr>\n{body}\n</table>\n{notes}\n"
    )


def to_markdown(sheet: Sheet) -> str:
    def row(cells):
        return "| " + " | ".join(cells) + " |"

    rule = row(["---", *["---:"] * (len(sheet.headings) - 1)])
    lines = [f"### {sheet.title}", "", row(sheet.headings), rule]
    lines += [row(cells) for cells in sheet.rows]
    lines += [line for note in sheet.notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict[str, Any]], metric: str) -> str:
    values = [100 * row[metric] for row in rows]
    if len(values) > 1:
        return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    low, high = (100 * v for v in rows[0][f"{metric}_ci95"])
    return f"{values[0]:.1f} [{low:.1f}, {high:.1f}]"
