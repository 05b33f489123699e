"""`fssd all`: its plans are of real commands; what they need; the time left."""

import io
import re
import time
from importlib import import_module
from pathlib import Path

import pytest
import tyro
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from experiments.centre_study.pairs import FAMILIES
from experiments.comparison import run_options, shifted
from experiments.kernel_study.phase_presets import PRESETS as PHASES
from experiments.whole import needed, plan, shown
from experiments.whole.parts import Row
from experiments.whole.presets import Part
from fssd_jax.__main__ import menu

GOOD = Part("first", "good", "--some 'two words'", 1)
LACKING = Part("lacking", "good", "", 1, ("fashion_mnist", "mnist"))
REPORT = Part("report", "gathers", "--out {out}", 0.1, reads="**/metrics.json")


# ---- the real plans -----------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/using.md", "experiments/all.py"])
def test_documents_say_how_long_the_plan_is(name):
    hours = round(sum(part.minutes for part in plan.PRESETS["small"]) / 60)
    assert f" {hours} hours" in (ROOT / name).read_text()


GREYS = ("digits", "fmnist", "fmnist6")  # which have the auxiliary sets in grey
EVERY = [(name, part) for name, of in plan.PRESETS.items() for part in of]
EVERY += [("end", part) for part in plan.ENDS]


@pytest.mark.parametrize(
    "part", [p for _, p in EVERY], ids=[f"{name}-{p.name}" for name, p in EVERY]
)
def test_every_command_is_one(part):
    """It parses, and takes the names that are checked after that."""
    module = import_module(f"experiments.{part.script}")
    words = plan.words(part, Path("out"), Path("data"))
    config = tyro.cli(module.Config, args=words[1:])
    if isinstance(config, run_options.Config):
        run_options.checked(config)
    elif part.script in ("figure4", "figure5"):
        shifted.checked_methods(config.methods)
    elif part.script == "label_free":
        assert set(config.families) <= set(FAMILIES)
    elif part.script == "kernel_phases":
        assert module.grid(config, PHASES[config.preset])
    assert {*part.needs, *part.takes} <= set(needed.CHECKS)
    asked = getattr(config, "methods", ())
    if part.script == "table2" and {"all", "outlier_exposure"} & set(asked):
        assert ("outliers" in part.takes) == (config.benchmark in GREYS)
    # What is read by a loader is needed.
    benchmarks = [getattr(config, "benchmark", "digits")]
    benchmarks = getattr(config, "benchmarks", benchmarks)
    assert (
        any(map(needed.is_data, part.needs))
        or part.reads
        or (set(benchmarks) == {"digits"})
    )


@pytest.mark.parametrize("preset", plan.PRESETS)
def test_every_script_of_the_menu_is_a_part_or_left_out_with_a_reason(preset):
    scripts = {n for n, of in menu().items() if of.module.startswith("experiments.")}
    found = plan.chosen(preset, (), ())
    assert {part.script for part in found} == scripts - set(plan.LEFT_OUT)
    assert set(plan.LEFT_OUT) < scripts
    assert len({part.name for part in found}) == len(found)
    assert [part.name for part in found[-2:]] == ["published", "report"]


# ---- what a part needs ------------------------------------------------------------


def test_embedded_sets_take_no_folder():
    out, folder = Path("out"), Path("data")
    assert plan.words(GOOD, out, folder) == [
        *("good", "--some", "two words", "--out", "out")
    ]
    assert plan.words(LACKING, out, folder)[-2:] == ["--data-dir", "data"]
    assert plan.words(REPORT, out, folder) == ["gathers", "--out", "out"]
    tangent = GOOD._replace(needs=("neural_tangents", "accelerator"))
    assert "--data-dir" not in plan.words(tangent, out, folder)


@pytest.mark.parametrize("name", needed.CHECKS)
def test_what_is_needed_is_found_or_told(name, tmp_path):
    answer = needed.check((name,), tmp_path)
    if needed.is_data(name):
        assert not answer.found
        assert all("--data-dir" in lack.mend for lack in answer.missing)
    else:
        assert bool(answer.found) != bool(answer.missing)


# ---- what is shown ------------------------------------------------------------------


def row(status, minutes, seconds=0.0, name="x"):
    part = Part(name, "x", "", minutes)
    return Row(part, ["x"], "", Path("x.log"), status, seconds)


def test_the_time_left_is_by_what_is_done_relative_to_the_plan():
    """Two minutes took four: twice the plan, so that 3 and 5 minutes take 6 and 10."""
    done = [row("done", 1, 180.0), row("done before", 1, 60.0)]
    todo = [row("running", 3), row("to do", 5)]
    for running, expected in ((0.0, 16 * 60.0), (60.0, 15 * 60.0)):
        found = shown.left([*done, *todo], running)
        assert found.seconds == pytest.approx(expected)
        assert found.word == "about"
        assert found.share == pytest.approx(1 - expected / (20 * 60))
    late = shown.left([*done, *todo], 500.0)  # longer than 6 minutes
    assert (late.word, late.seconds) == ("at least", pytest.approx(600.0))
    began = [row("to do", 5, 120.0), row("failed", 1, 1.0), row("not run here", 9)]
    assert shown.left([*done, *began]).seconds == pytest.approx(480.0)
    assert shown.left(todo) == (480.0, 0.0, "by the plan about")
    assert shown.left(done).share == 1.0


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((8.4, "8 s"), (600, "10 min"), (5_400, "1 h 30 min"), (200_000, "2 days")),
        (7_199, "2 h 0 min"),
    ],
)
def test_durations(seconds, told):
    assert shown.duration(seconds) == told


def test_a_terminal_has_a_bar_and_the_end_of_the_log(tmp_path):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=90)
    rows = [row("to do", 1, name="now"), row("to do", 1, name="then")]
    rows[0].log = tmp_path / "now.log"
    rows[0].log.write_text("$ fssd x\nepoch 1\n\repoch 2 [bold]\n\n")
    with shown.progress(rows, "fssd all", console) as tell:
        rows[0].status = "running"
        tell(rows[0])
        time.sleep(0.7)  # two pictures a second
        rows[0].status, rows[0].seconds = "done", 30.0
        tell(rows[0])
    told = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "fssd all: 1 running, 1 to do" in told
    assert re.search(r"now, \d s: epoch 2 \[bold\]", told)
    assert "━" in told
    assert "[1 of 2] now: done in 30 s; about 30 s left" in told
    assert "begun" not in told


def test_the_bar_is_as_long_as_its_percents(tmp_path):
    """3 of 12 minutes are done, and 1 of the 3 that the next one takes."""
    rows = [row("done", 3, 180.0), row("running", 3, name="now"), row("to do", 6)]
    rows[1].log = tmp_path / "now.log"
    rows[1].log.write_text("epoch 7\n")
    console = Console(file=io.StringIO(), width=90, color_system=None)
    with console.capture() as found:
        console.print(shown.picture(rows, "fssd all", 4 * 60.0 + 75, 60.0))
    first, bar, last = found.get().splitlines()
    assert first == "fssd all: 1 done, 1 running, 1 to do"
    assert bar.split(maxsplit=1)[1].strip() == "33 % 5 min gone, about 8 min left"
    assert last.strip() == "now, 60 s: epoch 7"
    (table,) = (
        part
        for part in shown.picture(rows, "", 0, 60.0).renderables
        if isinstance(part, Table)
    )
    (drawn,) = table.columns[0].cells
    assert isinstance(drawn, ProgressBar)
    assert drawn.completed / drawn.total == pytest.approx(4 / 12)


EVENTS = {
    "running": (None, "begun, log x.log; about 60 s left"),
    "done": ("green", "done in 30 s; about 30 s left"),
    "failed": ("red", "failed after 30 s: went wrong; log x.log; about 30 s left"),
    "not run here": ("yellow", "not run here: no x"),
    "done before": (None, "done before, in 30 s"),
    "interrupted": (None, "interrupted"),
}


@pytest.mark.parametrize("status", EVENTS)
def test_what_is_told_of_a_part_has_its_colour_on_a_terminal(status):
    colour, told = EVENTS[status]
    of = row(status, 1, 0.0 if status == "running" else 30.0, name="this")
    of.told = {"failed": "went wrong", "not run here": "no x"}.get(status, "")
    rows = [row("done", 1, 30.0), of, row("to do", 1)]
    line = shown.event(rows, of)
    assert line.partition(" ")[2] == f"[2 of 3] this: {told}"
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=True, width=200, color_system="standard"
    )
    of.told = of.told or ("again" if status == "running" else "")  # else the bar tells
    with shown.progress(rows, "fssd all", console) as tell:
        tell(of)
    (written,) = re.findall(r"[^\r\n]*\[2 of 3\] this[^\n]*", screen.getvalue())
    codes = {"green": "32", "red": "31", "yellow": "33"}
    found = {c for c in codes.values() if f"\x1b[{c}m" in written}
    assert found == ({codes[colour]} if colour else set())


def test_the_last_table_has_a_row_a_part_with_time_and_log(capsys):
    failed, absent = row("failed", 1, 7.0, name="b"), row("not run here", 1, name="c")
    failed.told, absent.told = "error: no", "no x"
    absent.lacks = (needed.Lack("no x", "wait for it"),)
    shown.print_end([row("done", 1, 600.0, name="a"), failed, absent], "fssd all")
    told = capsys.readouterr().out
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in told.splitlines()
        if line.startswith("│")
    ]
    assert cells == [
        ["a", "done", "10 min", "x.log"],
        ["b", "failed", "7 s", "x.log"],
        ["", "", "", "error: no"],
        ["c", "not run here", "", "no x"],
    ]
    assert told.splitlines()[0].strip() == "fssd all: 1 done, 1 failed, 1 not run here"
    assert "\nno x: wait for it\n" in told
