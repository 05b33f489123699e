"""What every benchmark leaves: its numbers as JSON, its tables as Markdown."""

import subprocess
from pathlib import Path
from typing import Any

from experiments.harness import files, provenance, sheets


def machine() -> dict[str, Any]:
    """Versions, device and cores, to stand beside the numbers."""
    return {
        "versions": provenance.versions(),
        "device": [provenance.device(), provenance.available_cores()],
    }


def commit() -> str | None:
    """Git's name of this code, and whether files differ from it; None without Git."""
    command = "git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"
    try:
        asked = subprocess.run(
            command, cwd=provenance.ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return asked.stdout.strip()


def leave(folder: Path, name: str, found: dict[str, Any], *tables: sheets.Sheet):
    """Writes NAME.json and NAME.md into the folder, and prints the tables."""
    files.write_json(folder / f"{name}.json", found)
    (folder / f"{name}.md").write_text("\n".join(map(sheets.to_markdown, tables)))
    sheets.show(list(tables))
