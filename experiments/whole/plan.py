"""Which commands `fssd all` runs: of a preset, and at the end what gathers."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments.whole import needed
from experiments.whole.presets import PAPER, SMALL, TINY, Part
from fssd_jax.checks import InputError

PRESETS = {"tiny": TINY, "small": SMALL, "paper": PAPER}
MACHINE = {"tiny": "two cores", "small": "one core", "paper": "one accelerator"}

# Made at the end of every run, of whatever is there.
ENDS = (
    Part(
        "published",
        "published",
        "--newest --results {out}/table2 --out {out}/table2.md",
        0.1,
        reads="table2/*/metrics.json",
    ),
    Part(
        "report",
        "report",
        "--results {out} --out {out}/report.html",
        0.5,
        reads="**/metrics.json",
    ),
)

# Scripts of the menu that are no parts, and why.
LEFT_OUT = {
    "score": "wants a checkpoint and images of yours",
    "openood": "wants a checkout of OpenOOD, with its images and checkpoints: --root",
    "all": "is this command",
}


def chosen(preset: str, only: Sequence[str], skip: Sequence[str]) -> list[Part]:
    """The parts of a preset, in order, and at the end what gathers.

    Args:
      only: names of parts or of scripts; none: all of them.
      skip: likewise.

    Raises:
      InputError: an unknown name (it lists the right ones), or nothing is left.
    """
    parts = (*PRESETS[preset], *ENDS)
    known = {name for part in parts for name in (part.name, part.script)}
    for flag, names in (("--only", only), ("--skip", skip)):
        unknown = [name for name in names if name not in known]
        if unknown:
            left = {name: LEFT_OUT[name] for name in unknown if name in LEFT_OUT}
            told = "".join(f" ({name} {why})" for name, why in left.items())
            raise InputError(
                f"{flag}: {', '.join(unknown)} is no part of preset {preset}{told}; "
                f"choose from {', '.join(dict.fromkeys(p.name for p in parts))}"
            )

    def named(part: Part, names: Sequence[str]) -> bool:
        return part.name in names or part.script in names

    found = [
        part
        for part in parts
        if (not only or part.reads or named(part, only)) and not named(part, skip)
    ]
    if not found:
        raise InputError(f"--skip: no part of preset {preset} is left; name fewer")
    return found


def words(part: Part, out: Path, data_dir: Path | None) -> list[str]:
    """The command, without `fssd`."""
    args = [word.format(out=out) for word in shlex.split(part.args)]
    places = [] if part.reads else ["--out", str(out)]
    # Embedded sets take no folder of data.
    if data_dir is not None and any(map(needed.is_data, part.needs)):
        places += ["--data-dir", str(data_dir)]
    return [part.script, *args, *places]
