"""A page for each method: its docstring, what it needs, and where it fails."""

import ast
from collections.abc import Iterable

from website import failures, measured
from website.measured import BENCHMARKS, ROOT, Row

# Where a document tells why.
REASONS = {
    "fssd": "[What `fit` takes](../using.md#what-fit-takes) and [a comparison of the"
    " protocols](../protocols.md) tell why, and which layers count; [rules"
    " without labels](../labelfree.md), where F* should be.",
    "displacement": "[The kernel regression](../kernel.md) tells what it is of.",
    "mahalanobis": "Dead units of a layer are [not the reason](../comparison.md#dead-"
    "units-and-the-covariance-of-mahalanobis).",
    "deep_ensemble": "[Beside the published number](../comparison.md#where-our-numbers-"
    "are-not-the-published-ones).",
    "mc_dropout": "[Mean or variance](../comparison.md#where-our-numbers-are-not-the-"
    "published-ones).",
    "odin": "[What was chosen](../comparison.md#where-our-numbers-are-not-the-"
    "published-ones).",
}
LEGEND = """AUROC in %, in-distribution positive: 50 is chance, and below it the score
orders the two sets the wrong way; – is not run. Mean ± standard deviation over seeds,
from docs/results when this page was built. """


def titles() -> dict[str, str]:
    """Detector → what its docstring calls it."""
    found = {}
    for name in measured.detectors():
        text = measured.docstring(ROOT / "fssd_jax" / "detectors" / f"{name}.py")
        found[name] = text.partition("\n")[0].partition(":")[0].partition(",")[0]
    return found


def pages() -> dict[str, str]:
    """Page → Markdown."""
    rows, needs = measured.of_detectors(), measured.needs()
    seconds, once = measured.seconds(), measured.seconds_once()
    made = {"methods/index.md": index(rows, needs)}
    for name, title in titles().items():
        parts = [f"# {title}", docstring(name), "## What it needs", needed(needs[name])]
        own = [row.name for row in rows[name]]
        parts += [cost(own, seconds, once, passes=needs[name][2]), "## When it fails"]
        parts += [failures.sentence(name), fails(rows[name], name)]
        parts += ["## In Python", *members(name)]
        made[f"methods/{name}.md"] = "\n\n".join(part for part in parts if part) + "\n"
    return made


def docstring(name: str) -> str:
    return (
        f"::: fssd_jax.detectors.{name}\n    options:\n      members: false\n"
        "      show_root_heading: false\n      show_root_toc_entry: false"
    )


def members(name: str) -> list[str]:
    """What the module defines, in its order."""
    path = ROOT / "fssd_jax" / "detectors" / f"{name}.py"
    found = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    options = "\n    options: {heading_level: 3, show_root_full_path: false}"
    return [f"::: fssd_jax.detectors.{name}.{of}{options}" for of in found]


def needed(cells: list[str]) -> str:
    fitted_on, beside, passes = cells
    return (
        "| fitted on | beside | passes, gradients an image |\n| --- | --- | --- |\n"
        f"| {fitted_on} | {beside} | {passes} |\n\n"
        "“By OoD”: protocols other than `clean` choose by labelled OoD images ([all"
        " methods](../contributing.md#what-each-method-needs))."
    )


def cost(
    rows: list[str],
    seconds: dict[str, list[float]],
    once: dict[str, list[float]],
    passes: str,
) -> str:
    """Of its rows, by `measured.seconds`; else by `seconds_once`; else its passes."""
    for times, where in (
        (seconds, "on one core ([all costs](../speed.md#whole-experiments))"),
        (once, f"on a CPU, once ([all of that run](../results/{measured.ONCE}))"),
    ):
        if told := [f"`{row}` {_span(times[row])} s" for row in rows if row in times]:
            return (
                "Scoring 1,000 images of `fmnist` with LeNet took, "
                f"{where}: {'; '.join(told)}."
            )
    return f"Cost: not measured; forward passes and gradients an image: {passes}."


def _span(of: list[float]) -> str:
    low, high = f"{min(of):.2f}", f"{max(of):.2f}"
    return low if low == high else f"{low} to {high}"


def fails(rows: list[Row], name: str) -> str:
    found = measured.ends(rows)
    if found is None:
        return (
            "**Not run** in any result that is kept: no number of it is known here. "
            "`fssd table2 --methods all` runs it."
        )
    lowest, highest = ("{} on `{}`, row `{}`".format(*told(end)) for end in found)
    lines = [f"- Lowest: **{lowest}**.", f"- Highest: {highest}."]
    text = "\n".join(lines) + f"\n\n{table(rows)}\n\n{LEGEND}" + kinds()
    return f"{text}\n\n{REASONS[name]}" if name in REASONS else text


def told(end: tuple[Row, str]) -> tuple[str, str, str]:
    row, benchmark = end
    return str(row.cells[benchmark]), benchmark, row.name


def kinds() -> str:
    return "; ".join(f"`{name}`: {what}" for name, what in BENCHMARKS.items()) + "."


def table(rows: Iterable[Row], pages: dict[str, str] | None = None) -> str:
    """Rows by benchmark; `pages`: of a row's name."""
    head = ["", "fitted on", *(f"`{name}`" for name in BENCHMARKS)]
    lines = [_line(head), _line(["---", "---", *("---:" for _ in BENCHMARKS)])]
    for row in rows:
        page = (pages or {}).get(row.name)
        name = f"[{row.name}]({page})" if page else row.name
        cells = [str(row.cells.get(b, "–")) for b in BENCHMARKS]
        lines.append(_line([name.replace("*", r"\*"), row.fitted_on, *cells]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def index(rows: dict[str, list[Row]], needs: dict[str, list[str]]) -> str:
    """All methods in one table."""
    lines = [
        "# Methods",
        "What each method is fitted on, and the lowest and the highest AUROC of its "
        "rows in the results that are kept. [Which detector?](../choosing.md) tells "
        "which to take.",
        _line(["method", "fitted on", "beside", "lowest", "highest"])
        + "\n"
        + _line(["---"] * 5),
    ]
    for name, title in titles().items():
        found = measured.ends(rows[name])
        ends = ["not run"] * 2
        if found:
            ends = ["{}, `{}`".format(*told(end)) for end in found]
        fitted_on, beside, _ = needs[name]
        line = _line([f"[{title}]({name}.md)", fitted_on, beside, *ends])
        lines[-1] += f"\n{line}"
    return "\n\n".join([*lines, LEGEND + kinds()]) + "\n"


def of_level(level: str) -> str:
    """The table of the rows fitted on this, or of "controls", beside methods/."""
    names, kind = measured.detectors(), "methods"
    if level == "controls":
        level, kind = "OoD", "controls"
    found = [row for row in measured.rows(kind) if row.level == level]
    of = {row.name: measured.detector_of(row.name, names) for row in found}
    pages = {row: f"methods/{name}.md" for row, name in of.items() if name}
    pages |= {row: "reference/training.md" for row in of if row.startswith("outlier")}
    return table(found, pages)
