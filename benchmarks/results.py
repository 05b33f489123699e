"""What every benchmark leaves: its numbers as JSON, its tables as Markdown."""

from pathlib import Path
from typing import Any

from experiments.harness import files, provenance, sheets


def machine() -> dict[str, Any]:
    """Versions, device and cores, to stand beside the numbers."""
    return {
        "versions": provenance.versions(),
        "device": [provenance.device(), provenance.available_cores()],
    }


def leave(folder: Path, name: str, found: dict[str, Any], *tables: sheets.Sheet):
    """Writes NAME.json and NAME.md into the folder, and prints the tables."""
    files.write_json(folder / f"{name}.json", found)
    (folder / f"{name}.md").write_text("\n".join(map(sheets.to_markdown, tables)))
    sheets.show(list(tables))
