"""Everything that can run on this machine, part by part, with the time left.

Examples:

  fssd all --plan
  fssd all
  fssd all --preset tiny
  fssd all --only table2 figure1 --data-dir /data
  fssd all --preset paper --skip table2-imagenet

The parts are the commands of the menu, one after another, each in a process of its own;
its output goes to OUT/all/PART.log. A part that fails does not stop the others: it is
shown as failed, the exit status is 1, and the same command tries it again. A part whose
data, or whatever else it needs, is not on this machine is "not run here", which is no
failure; --plan says what would get it, and nothing is downloaded. At the end
`published` and `report` put what is there into OUT/table2.md and OUT/report.html.

Stopped, by Ctrl-C or a signal or a power cut, the same command goes on: what ended well
is in OUT/all/state.json and is not run again, unless its command, its code or its data
are others now, or a results folder that it left is gone; the part that was interrupted
goes on as far as it can. Without OUT/all/state.json all parts are run again, from what
they kept themselves.

The time left is what the plan says of each part, relative to what those that are done
took. A terminal shows a bar; a file or a pipe has a line for each part that begins or
ends. In the background: nohup fssd all > all.txt 2>&1 &
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments.harness import cli
from experiments.whole import parts, plan, shown
from experiments.whole.parts import Row


@dataclasses.dataclass(frozen=True)
class Config:
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: a smoke test of minutes on two cores, whose numbers mean nothing. small:
    what one core can do in 3 hours, of one seed and short trainings. paper: the
    paper's scale, for an accelerator."""
    only: tuple[str, ...] = ()
    """Run these parts alone, by their names (table2-fmnist) or their scripts (table2),
    and `published` and `report` after them."""
    skip: tuple[str, ...] = ()
    """Leave these out, likewise."""
    plan: bool = False
    """Only print the parts, their commands, and what cannot run here and why."""
    out: Path = Path("results")
    """Where results, logs and the state go."""
    data_dir: Path | None = None
    """Take the data from this folder's subfolders, and from nowhere else."""


def run(config: Config) -> Sequence[Row]:
    """The parts, each with what has become of it."""
    wanted = plan.chosen(config.preset, config.only, config.skip)
    rows = parts.rows(wanted, config.preset, config.out, config.data_dir)
    if config.plan:
        shown.print_plan(rows, config.preset)
        return rows
    title = f"fssd all --preset {config.preset}"
    with shown.progress(rows, title) as tell:
        parts.go(rows, config.preset, config.out, tell)
    shown.print_end(rows, title)
    return rows


def failed_names(rows: Sequence[Row]) -> list[str]:
    return [row.part.name for row in rows if row.status == "failed"]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=failed_names)


if __name__ == "__main__":
    sys.exit(main())
