"""Tutorials: scripts of examples/ in cells (`# %%`), as pages and as notebooks.

    python -m website.tutorials [NAME ...]

runs them (all, if none is named) and keeps in docs/tutorials/ what each cell printed,
the picture that the script ends in, and the notebooks of `NOTEBOOKS`. A page of the
site is the script with these. `make tutorials` calls it.
"""

import ast
import contextlib
import io
import json
import os
import re
import sys
from base64 import b64encode
from typing import Any

from website import links
from website.measured import ROOT

EXAMPLES, KEPT = ROOT / "examples", ROOT / "docs" / "tutorials"
# Name → what the menu calls it.
NAMES = {
    "own_network": "Your own network",
    "any_function": "NNX, or no library",
    "torch_checkpoint": "A PyTorch checkpoint",
    "text_and_signals": "Text and signals",
    "follow_training": "Your training loop",
    "kernel_regression": "A kernel regression?",
}
NOTEBOOKS = ("own_network", "kernel_regression")
# The last line of a script; a notebook shows the figure instead.
SAVED = re.compile(r"^(\w+)\.savefig\((.*)\)$", re.MULTILINE)
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)


def script(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def title(text: str) -> str:
    """The first line of the script's docstring."""
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].rstrip(".")


def cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source), after the docstring."""
    _, *parts = CELL.split(text)
    found = []
    for head, source in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in head:
            lines = [
                line.removeprefix("#").removeprefix(" ") for line in source.splitlines()
            ]
            found.append(("markdown", "\n".join(lines).strip()))
        else:
            found.append(("code", source.strip()))
    return found


def run(text: str, file: str = "tutorial") -> tuple[list[str], dict[str, Any]]:
    """What each code cell prints, and the names that they leave."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    printed = []
    for kind, source in cells(text):
        if kind == "code":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(source, file, "exec"), names)
            printed.append(out.getvalue())
    return printed, names


def printed(name: str) -> list[str]:
    """What each code cell printed when the script was run."""
    path = KEPT / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    count = sum(kind == "code" for kind, _ in cells(script(name)))
    if len(found) != count:
        raise ValueError(
            f"{path} is of {len(found)} cells, but examples/{name}.py has {count}; "
            f"run `python -m website.tutorials {name}`"
        )
    return found


def opening(text: str) -> str:
    """The docstring as Markdown, its first line a heading."""
    first, _, rest = (ast.get_docstring(ast.parse(text)) or "").partition("\n")
    rest = re.sub(r"^(python .*)$", r"`\1`", rest, flags=re.MULTILINE)
    return f"# {first.rstrip('.')}\n{rest}"


def page(name: str) -> str:
    """Markdown of a tutorial, in tutorials/."""
    text, outputs = script(name), iter(printed(name))
    parts = [opening(text)]
    for kind, source in cells(text):
        if kind == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        out = next(outputs).rstrip()
        if out:
            parts.append(f'```{{.text .output title="prints"}}\n{out}\n```')
    text = links.linked("\n\n".join(parts), "examples", f"tutorials/{name}.md")
    return text + f"\n\n{ending(name)}\n"


def ending(name: str) -> str:
    """The picture, and the notebook if there is one."""
    shown = f"![{title(script(name))}]({name}.png)"
    if name not in NOTEBOOKS:
        return shown
    return f"{shown}\n\nThe same as a [notebook]({name}.ipynb)."


def pages() -> dict[str, str]:
    made = {f"tutorials/{name}.md": page(name) for name in NAMES}
    made["tutorials/index.md"] = "\n".join(
        [
            "# Tutorials",
            "",
            "Each is a script of `examples/` that a test runs, shown with what it "
            "printed and the picture that it left. None needs a download.",
            "",
            *(
                f"- [{title(script(name))}]({name}.md), `python examples/{name}.py`"
                for name in NAMES
            ),
            "",
        ]
    )
    return made


def notebook(name: str, outputs: bool = True) -> dict[str, Any]:
    """The script as a notebook (nbformat 4), by jupytext, with what was printed."""
    import jupytext

    text = script(name)
    _, start, body = text.partition("# %%")
    found = jupytext.reads(start + body, fmt="py:percent")
    shown = iter(printed(name)) if outputs else None
    opened = [("markdown", opening(text)), ("code", "%matplotlib inline")]
    cells: list[dict[str, Any]] = [_cell(kind, source, "") for kind, source in opened]
    for cell in found.cells:
        code = cell.cell_type == "code"
        out = next(shown) if shown and code else ""
        source = SAVED.sub(r"display(\1)", cell.source)
        if not code:
            source = links.moved(source, "examples", "docs/tutorials")
        cells.append(_cell(cell.cell_type, source, out))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    if outputs:
        cells[-1]["outputs"].append(_picture(name))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, source: str, out: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "metadata": {}, "source": source.splitlines(True)}
    if kind == "code":
        stream = {
            "name": "stdout",
            "output_type": "stream",
            "text": out.splitlines(True),
        }
        cell |= {"execution_count": None, "outputs": [stream] if out else []}
    return cell


def _picture(name: str) -> dict[str, Any]:
    encoded = b64encode((KEPT / f"{name}.png").read_bytes()).decode("ascii")
    data = {"image/png": encoded}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def stored(name: str) -> str:
    """The text of the notebook's file."""
    return json.dumps(notebook(name), indent=1, ensure_ascii=False) + "\n"


def main(names: list[str]) -> None:
    for name in names or NAMES:
        KEPT.mkdir(exist_ok=True)
        os.chdir(KEPT)  # where the picture goes
        outputs, _ = run(script(name), f"examples/{name}.py")
        text = json.dumps(outputs, indent=1, ensure_ascii=False) + "\n"
        (KEPT / f"{name}.json").write_text(text, encoding="utf-8")
        if name in NOTEBOOKS:
            (KEPT / f"{name}.ipynb").write_text(stored(name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
