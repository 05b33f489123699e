"""Results folders as they lie on disk, whole or damaged, of whatever version."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from analysis import animation
from experiments.harness import records, sheets
from experiments.harness.files import load_json, load_left
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError

DAMAGED = "delete it, and run the experiment again"
ARRAYS = ("scores.npz", "explorer.npz", animation.FILE)  # what runs leave
BELOW = 0.5  # an AUROC under which a layer separates the wrong way round
SHOWN = 200  # records that are shown of a run without tables
COLUMNS = ("benchmark", "network", "method", "condition", "layer", "set", "quantity")


class Run(NamedTuple):
    """What a results folder holds; empty where a file is missing."""

    name: str  # of the folder, under that of all results
    folder: Path
    experiment: str
    facts: dict[str, Any]  # metrics.json
    config: dict[str, Any]
    timing: dict[str, Any]
    sheets: list[Sheet]
    pictures: list[Path]
    date: str  # of metrics.json, UTC
    problems: list[str]  # what could not be read, and why

    @property
    def whole(self) -> bool:
        return not self.problems


def gather(where: Path) -> list[Run]:
    """Every folder with a metrics.json at any depth, by name.

    Raises:
      InputError: there is no such folder, or none in it holds a metrics.json.
    """
    if not where.is_dir():
        raise InputError(
            f"--results: there is no folder {where}; give what --out of an experiment "
            "named, by default results"
        )
    folders = [path.parent for path in records.metrics_files(where)]
    names = [str(folder.relative_to(where)) for folder in folders]
    own = where.resolve().name  # of a folder that is itself a run
    return [
        read(folder, own if name == "." else name)
        for folder, name in zip(folders, names, strict=True)
    ]


def read(folder: Path, name: str | None = None) -> Run:
    """One folder; what is damaged in it is a problem that is told, not an error."""
    problems: list[str] = []
    metrics = folder / "metrics.json"
    facts = _load(metrics, problems)
    config = _load(folder / "config.json", problems)
    timing = _load(folder / "timing.json", problems)
    if not problems and not _is_ours(facts, config):
        problems.append(f"{metrics} holds no result of ours")
    _try_arrays(folder, problems)
    return Run(
        name or folder.name,
        folder,
        str(config.get("experiment") or ""),
        facts,
        config,
        timing,
        _sheets(folder / "metrics.md", facts, problems),
        sorted(folder.glob("*.png")),
        _date(metrics),
        problems,
    )


def _load(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = load_json(path, DAMAGED)
    except InputError as error:
        problems.append(str(error))
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path} holds no mapping, and none of our results; {DAMAGED}")
        return {}
    return found


def _try_arrays(folder: Path, problems: list[str]) -> None:
    """Read what there is to its end: that is where a file is cut off."""
    for path in (folder / name for name in ARRAYS):
        try:
            if path.exists():
                load_left(path)
        except InputError as error:
            problems.append(str(error))


def _is_ours(facts: Mapping, config: Mapping) -> bool:
    """All versions told where numbers came from."""
    return "experiment" in config or {"versions", "device"} <= set(facts)


def _sheets(path: Path, facts: Mapping, problems: list[str]) -> list[Sheet]:
    """Those of metrics.md; without it, the records themselves."""
    try:
        if path.exists():
            return sheets.of_markdown(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({error}); {DAMAGED}")
    return [of_records(rows)] if (rows := records_of(facts)) else []


def records_of(facts: Mapping) -> list[dict[str, Any]]:
    """The rows under "records" that hold a number."""
    found = facts.get("records")
    rows = found if isinstance(found, list) else []
    return [
        row
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("value"), int | float)
    ]


def of_records(rows: list[dict[str, Any]]) -> Sheet:
    """A line a record, of the columns that any of them fills."""
    used = [name for name in COLUMNS if any(row.get(name) for row in rows)]
    cells = [
        [*(str(row.get(name) or "") for name in used), _number(row)]
        for row in rows[:SHOWN]
    ]
    more = len(rows) - len(cells)
    notes = [f"{more:,} further records stand in metrics.json."] if more else []
    return Sheet("Records", [*used, "value"], cells, notes)


def _number(row: Mapping) -> str:
    ends = row.get("low"), row.get("high")
    known = all(isinstance(end, int | float) for end in ends)
    return f"{row['value']:.4g}" + (f" [{ends[0]:.4g}, {ends[1]:.4g}]" if known else "")


def inverted(facts: Mapping) -> list[str]:
    """A line for each layer alone whose AUROC is below one half, by its records."""
    lines = []
    for row in records_of(facts):
        auroc = str(row.get("quantity")).startswith("AUROC")
        if auroc and row.get("layer") and row["value"] < BELOW:
            of = [row["layer"], row.get("method"), row.get("condition")]
            of += [f"seed {row['seed']}"] if row.get("seed") is not None else []
            told = ", ".join(str(part) for part in of if part)
            lines.append(f"{told}: {row['quantity']} {_number(row)}")
    return list(dict.fromkeys(lines))


def options_of(run: Run) -> dict[str, Any]:
    found = run.config.get("options")
    return found if isinstance(found, dict) else {}


def seed_of(run: Run) -> str:
    """Of one run or several; empty if it has none."""
    for facts in (run.facts, options_of(run)):
        for key in ("seed", "seeds"):
            value = facts.get(key)
            if isinstance(value, list):
                return _in_words(value)
            if value is not None:
                return str(value)
    named = re.search(r"-(\d+)(-[0-9a-f]{8})?$", run.name)
    return named[1] if named and run.whole else ""


def _in_words(seeds: list) -> str:
    if len(seeds) > 2 and seeds == list(range(len(seeds))):
        return f"0 to {len(seeds) - 1}"
    return ", ".join(map(str, seeds))


def benchmark_of(run: Run) -> str:
    for facts in (run.facts, options_of(run)):
        if value := facts.get("benchmark") or facts.get("benchmarks"):
            return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return ""


def _date(path: Path) -> str:
    try:
        written = path.stat().st_mtime
    except OSError:
        return ""
    return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")
