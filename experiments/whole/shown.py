"""What `fssd all` shows: the plan, progress and the time left, the last table."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.harness.sheets import WIDTH
from experiments.whole import plan
from experiments.whole.parts import Row, last_line, told

STYLES = {"done": "green", "failed": "red", "not run here": "yellow"}
COUNTED = ("done", "running", "failed", "not run here", "to do")


# ---- the time left ------------------------------------------------------------------


class Left(NamedTuple):
    seconds: float
    share: float  # of the work, that is done
    word: str  # how surely that is known


def left(rows: Sequence[Row], running: float = 0.0) -> Left:
    """Seconds left, by the plan's minutes and how long parts took, relative to these.

    Args:
      rows: parts; what is done before tells of this machine, too.
      running: seconds that the part that runs has had in this try.
    """
    done = [row for row in rows if row.status in ("done", "done before")]
    planned = sum(60 * row.part.minutes for row in done)
    rate = sum(row.seconds for row in done) / planned if planned else 1.0
    ahead, behind = 0.0, sum(row.seconds for row in done)
    word = "about" if done else "by the plan about"
    for row in rows:
        if row.status not in ("to do", "running", "interrupted"):
            continue
        spent = row.seconds + (running if row.status == "running" else 0.0)
        expected = rate * 60 * row.part.minutes
        if row.status == "running" and spent >= expected:
            word = "at least"
        ahead += max(0.0, expected - spent)
        behind += spent
    whole = ahead + behind
    return Left(ahead, behind / whole if whole else 1.0, word)


def duration(seconds: float) -> str:
    """To two parts: 3 h 20 min, 12 min, 8 s."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.0f} days"


# ---- while it runs ------------------------------------------------------------------


@contextmanager
def progress(
    rows: Sequence[Row], title: str, console: Console | None = None
) -> Iterator[Callable[[Row], None]]:
    """On a terminal a bar that stays below a line an event; elsewhere the lines alone.

    Yields:
      What is to be called with each row that begins or ends.
    """
    console = console or Console(stderr=True)
    start = time.monotonic()
    began = start  # of the part that runs

    def shown() -> RenderableType:
        return picture(rows, title, time.monotonic() - start, time.monotonic() - began)

    def tell(row: Row) -> None:
        nonlocal began
        began = time.monotonic()
        if row.status == "running" and console.is_terminal and not row.told:
            return  # the bar says so
        line = Text(event(rows, row), STYLES.get(row.status, ""))
        console.print(line, soft_wrap=True)

    if not console.is_terminal:
        yield tell
        return
    with Live(
        get_renderable=shown, console=console, refresh_per_second=2, transient=True
    ):
        yield tell


def event(rows: Sequence[Row], row: Row) -> str:
    """12:05:40 [3 of 20] figure1: done in 4 min; about 2 h 10 min left."""
    at = f"[{1 + [r is row for r in rows].index(True)} of {len(rows)}] {row.part.name}"
    took, more = duration(row.seconds), ""
    if row.status in ("running", "done", "failed"):
        ahead = left(rows)
        more = f"; {ahead.word} {duration(ahead.seconds)} left" * (ahead.seconds > 0)
    again = f" again ({row.told})" if row.told else ""
    words = {
        "running": f"begun{again}, log {row.log}{more}",
        "done": f"done in {took}{more}",
        "done before": f"done before, in {took}",
        "failed": f"failed after {took}: {row.told}; log {row.log}{more}",
        "not run here": f"not run here: {row.told}",
    }
    return f"{datetime.now():%H:%M:%S} {at}: {words.get(row.status, row.status)}"


def picture(
    rows: Sequence[Row], title: str, elapsed: float, running: float
) -> RenderableType:
    """The lines that stay: counts, the bar, the part that runs with its log's end."""
    ahead = left(rows, running)
    gone = f"{duration(elapsed)} gone"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=1, completed=ahead.share, width=40),
        f"{100 * ahead.share:.0f} %",
        f"{gone}, {ahead.word} {duration(ahead.seconds)} left",
    )
    lines: list[RenderableType] = [Text(f"{title}: {counts(rows)}"), bar]
    for row in rows:
        if row.status == "running":
            at = duration(row.seconds + running)
            line = f"{row.part.name}, {at}: {last_line(row.log)}"
            lines.append(Text(line, "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def counts(rows: Sequence[Row]) -> str:
    """3 done, 1 running, 16 to do."""
    number = Counter("done" if r.status == "done before" else r.status for r in rows)
    return ", ".join(f"{number[s]} {s}" for s in COUNTED if number[s])


# ---- before and after ---------------------------------------------------------------


def print_plan(rows: Sequence[Row], preset: str) -> None:
    """What would be run, with its command, and what would not, and why."""
    ahead = left(rows)
    on = f"{ahead.word} {duration(ahead.seconds)} on {plan.MACHINE[preset]}"
    print(f"preset {preset}: {counts(rows)}; {on}\n")
    for row in rows:
        about = f"about {duration(60 * row.part.minutes)}"
        done = f"done before, in {duration(row.seconds)}"
        status = {"to do": about, "done before": done}.get(row.status, row.status)
        print(f"{row.part.name}: {status}\n    {row.command}")
        if row.told:
            print(f"    {row.told}")
        elif row.lacks:
            print(f"    in part: {told(row.lacks)}")
    if mends(rows):
        print("\nWhat is not here:", *mends(rows), sep="\n  ")
    print("\nLeft out:")
    for name, why in plan.LEFT_OUT.items():
        print(f"  {name} {why}")


def mends(rows: Sequence[Row]) -> list[str]:
    """What is not here, each once, and what gets it."""
    lacks = dict.fromkeys(lack for row in rows for lack in row.lacks)
    return [f"{lack.what}: {lack.mend}" for lack in lacks]


def print_end(rows: Sequence[Row], title: str) -> None:
    """A table with a row a part."""
    console = Console()
    if not sys.stdout.isatty() or console.width > WIDTH:
        console = Console(width=WIDTH)
    table = Table(title=f"{title}: {counts(rows)}", title_justify="left")
    table.add_column("part", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("log, and what it says at its end", overflow="fold")
    for row in rows:
        ran = row.status in ("done", "done before", "failed")
        log = row.log.name if ran else ""
        cell = "\n".join(filter(None, (log, row.told)))
        took = duration(row.seconds) if ran else ""
        # Text: what a log says is no markup.
        cells = map(Text, (row.part.name, row.status, took, cell))
        table.add_row(*cells, style=STYLES.get(row.status))
    console.print(table)
    for line in mends([row for row in rows if row.status == "not run here"]):
        console.print(Text(line), soft_wrap=True)
    folders = sorted({str(row.log.parent) for row in rows})
    console.print(Text(f"Logs are in {', '.join(folders)}."), soft_wrap=True)
