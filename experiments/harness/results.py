"""The one exit of every experiment: a results folder, whole or not there at all.

`place` names it by all that decides its numbers; `leave` fills it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from analysis import plots
from experiments.harness import page, provenance, records, sheets
from experiments.harness.files import plain, results_folder, writable, write_json
from experiments.harness.records import Record
from experiments.harness.sheets import Sheet
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.processes import agreed, check_same

# Options that change no number, a batch but the rounding.
PLACES = ("out", "data_dir", "rerun", "batch_size")
TOLD = "results: "  # begins the line that names what was left; `whole.parts` reads it


class Identity(NamedTuple):
    """A results folder's path, and what decides the numbers in it: config.json."""

    path: Path
    facts: dict[str, Any]


def place(
    out: Path,
    experiment: str,
    name: str,
    options: Mapping[str, Any],
    data: Sequence[ArrayDataset] | Mapping[str, ArrayDataset],
    measured_by: ModuleType,
) -> Identity:
    """Where the results of these options, data and code go: OUT/EXPERIMENT/NAME-DIGEST.

    Args:
      out: the folder of all results.
      experiment: such as "table2".
      name: for the reader, such as "digits_near-paper-0".
      options: of the command line, and what they stand for: presets, grids.
      data: every set that was read; a mapping where names are not enough.
      measured_by: the module whose import closure decides the numbers. The entry
        script, which words the tables, is none.

    Raises:
      InputError: the folder could not be written.
    """
    facts = {
        "experiment": experiment,
        "name": name,
        "options": {k: v for k, v in options.items() if k not in PLACES},
        "data": provenance.sources(data),
        "code": provenance.code_digest(measured_by.__name__),
        "versions": provenance.versions(),
        "numerics": provenance.numerics(),
        "device": provenance.device(),
        "cores": provenance.cores_of_sums(),
    }
    # The name is told beside the digest, so that seeds of one configuration share it;
    # and the same set from another place is the same set.
    known = {k: v["sha256"] for k, v in facts["data"].items()}
    digest = provenance.config_digest(plain({**facts, "name": None, "data": known}))
    folder = writable(out / experiment)
    check_same(f"options, data, code or versions of {experiment}", digest)
    return Identity(folder / f"{name}-{digest}", facts)


def leave(
    config: Identity,
    facts: Mapping[str, Any],
    numbers: Sequence[Record],
    tables: Sequence[Sheet],
    figures: Mapping[str, Figure],
    arrays: Mapping[str, np.ndarray],
    *,
    csv: Sheet | None = None,
    timing: Mapping[str, Any] | None = None,
    extras: Mapping[str, Callable[[Path], Any]] | None = None,
    show: bool = True,
) -> Path:
    """Write all files of a results folder, and print what a reader needs.

    Args:
      config: see `place`; config.json.
      facts: metrics.json, with where the data came from, versions and device.
      numbers: the same as flat rows: "records" of metrics.json, a line each.
      tables: metrics.md and .tex, report.html, and the screen.
      figures: by name; PNG and PDF.
      arrays: scores.npz, every number behind tables and figures.
      csv: metrics.csv, if not all of `tables`.
      timing: timing.json. Seconds stand nowhere else, so that the same run leaves the
        same metrics.json.
      extras: further files, name → a function that writes it.
      show: whether to print the tables; the folder's name is printed in any case.
    """
    origin = {k: config.facts[k] for k in ("data", "versions", "device")}

    def write_all() -> None:
        with results_folder(config.path) as folder:
            write_json(folder / "config.json", config.facts)
            text = as_json({**facts, **origin, "interval": records.INTERVAL}, numbers)
            (folder / "metrics.json").write_text(text)
            write_tables(folder / "metrics", tables)
            if csv is not None:
                (folder / "metrics.csv").write_text(sheets.to_csv(csv))
            np.savez_compressed(folder / "scores.npz", allow_pickle=False, **arrays)
            if timing is not None:
                write_json(folder / "timing.json", timing)
            for name, figure in figures.items():
                plots.save(figure, folder / name)
            for name, write in (extras or {}).items():
                write(folder / name)
            page.of_folder(folder, config.path.name)

    agreed(write_all)
    if show:
        sheets.show(tables)
    tell(config.path)
    return config.path


def leave_together(
    folder: Path,
    name: str,
    of_seeds: Sequence[Mapping[str, Any]],
    numbers: Sequence[Record],
    sheet: Sheet,
    figures: Mapping[str, Figure],
) -> None:
    """One table, the records and the pictures of all seeds, above their folders.

    Args:
      folder: where those are.
      name: begins the files' names.
      of_seeds: what `leave` was given of each; "runs" in the file.
      numbers: of all of them.
      sheet: the table, which is shown, too.
      figures: by name.
    """
    stem = folder / f"{name}-{provenance.config_digest(plain(of_seeds))}"

    def write_all() -> None:
        text = as_json({"runs": of_seeds}, numbers)
        stem.with_name(f"{stem.name}.json").write_text(text, encoding="utf-8")
        write_tables(stem, [sheet])
        for kind, figure in figures.items():
            plots.save(figure, stem.with_name(f"{stem.name}-{kind}"))

    agreed(write_all)
    sheets.show([sheet])
    print(f"all of them: {stem}.md, .csv, .tex, .json; pictures: {', '.join(figures)}")


def tell(folder: Path) -> None:
    """Print where the results are."""
    print(f"{TOLD}{folder / 'report.html'}")


def told(log: str, out: Path) -> list[str]:
    """The folders that `tell` named in these lines, each once; below `out` if there."""
    lines = [line for line in log.splitlines() if line.startswith(TOLD)]
    found = [Path(line.removeprefix(TOLD)).parent for line in lines]
    below = [f.relative_to(out) if f.is_relative_to(out) else f for f in found]
    return list(dict.fromkeys(map(str, below)))


def as_json(facts: Mapping[str, Any], numbers: Sequence[Record]) -> str:
    """`facts` with "records", each of them on a line; a NaN is an error."""
    lines = ",\n    ".join(
        json.dumps(plain(row), allow_nan=False) for row in records.rows(numbers)
    )
    whole = json.dumps(plain(facts), indent=2, allow_nan=False).removesuffix("\n}")
    return f'{whole},\n  "records": [\n    {lines}\n  ]\n}}\n'


def write_tables(stem: Path, tables: Sequence[Sheet]) -> None:
    """Sheets below each other, as Markdown, CSV and LaTeX."""
    for ending, as_text in sheets.FORMATS.items():
        text = "\n".join(as_text(sheet) for sheet in tables)
        stem.with_name(f"{stem.name}.{ending}").write_text(text, encoding="utf-8")
