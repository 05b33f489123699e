"""`fssd all`: parts in processes of their own, on plans of tiny commands."""

import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from experiments.harness import provenance
from experiments.whole import needed, parts, plan
from experiments.whole.presets import Part
from tests.experiments.whole import FAKE, state

ROOT = Path(__file__).parents[2]
WHOLE = import_module("experiments.all")

NEVER = needed.Lack("no x", "wait for it")
GOOD, WRONG = Part("first", "good", "--some 'two words'", 1), Part("b", "wrong", "", 2)
LAST = Part("last", "good", "", 3)
REPORT = Part("report", "gathers", "--out {out}", 0.1, reads="**/metrics.json")
LACKING = Part("lacking", "good", "", 1, ("fashion_mnist", "mnist"))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A function that runs `fssd all` of these parts: exit status, new calls, rows."""
    (tmp_path / "fake.py").write_text(FAKE)
    calls = tmp_path / "calls.txt"
    monkeypatch.setenv("CALLS", str(calls))
    program = (sys.executable, str(tmp_path / "fake.py"))
    monkeypatch.setattr(parts, "PROGRAM", program)
    monkeypatch.setattr(plan, "ENDS", (REPORT,))
    monkeypatch.setitem(needed.CHECKS, "never", lambda _: needed.Answer((), (NEVER,)))

    def run(*of, args=()):
        monkeypatch.setitem(plan.PRESETS, "tiny", of)
        before = len(calls.read_text().splitlines()) if calls.exists() else 0
        given = ["--preset", "tiny", "--out", str(tmp_path / "out"), *args]
        status = WHOLE.main(given)
        lines = calls.read_text().splitlines()[before:] if calls.exists() else []
        return status, [line.split()[0] for line in lines]

    return run


# ---- running ------------------------------------------------------------------------


def test_all_that_can_run_runs_and_is_told(fake, tmp_path, capsys):
    assert fake(GOOD, LAST) == (0, ["good", "good", "gathers"])
    told = capsys.readouterr()
    log = (tmp_path / "out" / "all" / "first.log").read_text()
    assert log.splitlines()[1:] == [
        f"$ fssd good --some 'two words' --out {tmp_path / 'out'}",
        "this is good",
        f"results: {tmp_path / 'out' / 'good' / 'report.html'}",
    ]
    assert "fssd all --preset tiny: 3 done" in told.out
    events = [line.split(" ", 1)[1] for line in told.err.splitlines()]
    at = "[1 of 3] first: "
    assert events[0].startswith(f"{at}begun, log {tmp_path}/out/all/first.log; by the")
    assert re.fullmatch(re.escape(at) + r"done in \d s; about \d+ s left", events[1])
    assert len(events) == 6


def test_a_part_that_fails_stops_no_other_and_is_tried_again(
    fake, tmp_path, capsys, monkeypatch
):
    assert fake(GOOD, WRONG, LAST) == (1, ["good", "wrong", "good", "gathers"])
    told = capsys.readouterr()
    assert "error: failed: b;" in told.err
    assert "3 done, 1 failed" in told.out
    row = next(line for line in told.out.splitlines() if " b " in line)
    assert "failed" in row
    assert "b.log" in row
    assert "error: [red]went wrong" in told.out
    assert {k: v["status"] for k, v in state(tmp_path).items()} == {
        "tiny/first": "done",
        "tiny/b": "failed",
        "tiny/last": "done",
        "tiny/report": "done",
    }
    monkeypatch.setenv("MENDED", "1")
    assert fake(GOOD, WRONG, LAST) == (0, ["wrong", "gathers"])
    assert "done before" in capsys.readouterr().out
    log = (tmp_path / "out" / "all" / "b.log").read_text()
    assert log.count("$ fssd wrong") == 2  # the first try is not lost


def test_a_part_that_a_signal_ends_is_told_so(fake, capsys):
    killed = Part("killed", "killed", "", 1)
    assert fake(killed, GOOD) == (1, ["killed", "good", "gathers"])
    assert "ended by SIGKILL; was there too little memory?" in capsys.readouterr().err


def test_another_command_or_code_or_data_is_run_again(fake, monkeypatch, tmp_path):
    assert fake(GOOD, LAST)[1] == ["good", "good", "gathers"]
    other = GOOD._replace(args="--some other")
    assert fake(other, LAST) == (0, ["good", "gathers"])
    assert fake(other, LAST) == (0, ["gathers"])
    of = {"experiments.good": "new"}
    monkeypatch.setattr(provenance, "code_digest", lambda module: of.get(module, ""))
    assert fake(other, LAST) == (0, ["good", "good", "gathers"])
    for moved in ("here", "there"):
        answer = needed.Answer((moved,))
        monkeypatch.setitem(needed.CHECKS, "never", lambda _, a=answer: a)
        needing = LAST._replace(needs=("never",))
        assert fake(other, needing) == (0, ["good", "gathers"])
        assert fake(other, needing) == (0, ["gathers"])


def test_a_part_whose_results_were_deleted_is_done_again_and_told(
    fake, tmp_path, capsys
):
    assert fake(GOOD)[1] == ["good", "gathers"]
    assert state(tmp_path)["tiny/first"]["left"] == ["good"]
    assert fake(GOOD) == (0, ["gathers"])
    for delete in (Path.unlink, lambda path: shutil.rmtree(path.parent)):
        delete(tmp_path / "out" / "good" / "metrics.json")
        capsys.readouterr()
        assert fake(GOOD, args=("--plan",)) == (0, [])
        plan_of = capsys.readouterr().out
        assert "    its results are gone: good\n" in plan_of
        assert "first: about 60 s\n" in plan_of
        assert fake(GOOD) == (0, ["good", "gathers"])
        assert "begun again (its results are gone: good)" in capsys.readouterr().err
        assert fake(GOOD) == (0, ["gathers"])
    # The folder of all results may be another's by now, or moved.
    (tmp_path / "out").rename(tmp_path / "moved")
    args = ("--out", str(tmp_path / "moved"))
    assert fake(GOOD, args=args) == (0, ["gathers"])


def test_what_a_failed_part_left_is_not_missed(fake, tmp_path, capsys):
    """It is tried again in any case, and the seconds that it had count."""
    assert fake(GOOD, WRONG)[0] == 1
    path = tmp_path / "out" / "all" / "state.json"
    kept = json.loads(path.read_text())
    kept["parts"]["tiny/b"] |= {"left": ["lost"], "seconds": 5.0}
    path.write_text(json.dumps(kept))
    assert fake(GOOD, WRONG)[0] == 1
    assert "are gone" not in capsys.readouterr().err
    assert state(tmp_path)["tiny/b"]["seconds"] >= 5


def test_presets_do_not_forget_each_other(fake, monkeypatch, tmp_path):
    assert fake(GOOD)[1] == ["good", "gathers"]
    monkeypatch.setitem(plan.PRESETS, "small", (GOOD._replace(args="--much"),))
    for calls in (["good", "gathers"], ["gathers"]):
        assert fake(GOOD, args=("--preset", "small")) == (0, calls)
    assert fake(GOOD) == (0, ["gathers"])


def test_only_and_skip_take_parts_or_scripts(fake, capsys):
    of = (GOOD, WRONG, LAST)
    assert fake(*of, args=("--only", "last")) == (0, ["good", "gathers"])
    assert fake(*of, args=("--only", "good", "--skip", "last")) == (
        *(0, ["good", "gathers"]),
    )
    assert fake(*of, args=("--skip", "b", "report")) == (0, [])
    assert fake(*of, args=("--only", "lost")) == (1, [])
    assert "choose from first, b, last, report" in capsys.readouterr().err
    assert fake(*of, args=("--only", "score")) == (1, [])
    assert "(score wants a checkpoint" in capsys.readouterr().err
    assert fake(*of, args=("--skip", "good", "b", "report")) == (1, [])
    assert "no part of preset tiny is left" in capsys.readouterr().err


def test_without_any_result_nothing_is_gathered(fake, capsys):
    assert fake(WRONG) == (1, ["wrong"])
    assert "metrics.json to read" in capsys.readouterr().err


def test_a_state_that_is_damaged_is_told_and_the_advice_works(fake, tmp_path, capsys):
    path = tmp_path / "out" / "all" / "state.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"parts": {"tiny/first": {"seconds": "x"}}}'):
        path.write_text(text)
        assert fake(GOOD) == (1, [])
        assert f"{path}: " in (told := capsys.readouterr().err)
        assert "delete it, and every part is begun again" in told
    path.unlink()
    assert fake(GOOD) == (0, ["good", "gathers"])


def test_two_do_not_run_in_one_folder(fake, tmp_path, capsys):
    folder = tmp_path / "out" / "all"
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        assert fake(GOOD) == (1, [])
    assert f"another `fssd all` is at work in {folder}" in capsys.readouterr().err
    assert fake(GOOD)[0] == 0


# ---- what cannot run here -----------------------------------------------------------


def test_missing_data_is_no_failure_and_what_mends_it_is_told(fake, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    given = ("--data-dir", str(folder))
    assert fake(LACKING, GOOD, args=given) == (0, ["good", "gathers"])
    told = capsys.readouterr()
    assert "2 done, 1 not run here" in told.out
    layout = f"put it into {folder}/fashion_mnist/SPLIT/0/*.png to SPLIT/9/*.png, SPLIT"
    assert layout in told.out
    assert told.out.count(layout) == 1
    y = np.arange(20) % 10
    for number, name in enumerate(LACKING.needs):  # follow it
        (folder / name).mkdir()
        for split in ("train", "test"):
            x = np.full((20, 28, 28), 100 + number, np.uint8)
            np.savez(folder / name / f"{split}.npz", x=x, y=y)
    needed._of_set.cache_clear()
    assert fake(LACKING, GOOD, args=given) == (0, ["good", "gathers"])
    log = (tmp_path / "out" / "all" / "lacking.log").read_text()
    assert f"--data-dir {folder}" in log


def test_what_a_part_can_do_without_is_told_and_counts(fake, monkeypatch, capsys):
    more = GOOD._replace(takes=("never",))
    assert fake(more, args=("--plan",)) == (0, [])
    assert "\n    in part: no x\n" in capsys.readouterr().out
    assert fake(more) == (0, ["good", "gathers"])
    assert fake(more) == (0, ["gathers"])
    monkeypatch.setitem(needed.CHECKS, "never", lambda _: needed.Answer(("now",)))
    assert fake(more) == (0, ["good", "gathers"])


def test_the_plan_runs_nothing(fake, tmp_path, capsys):
    lacking = GOOD._replace(name="lacking", needs=("never",))
    assert fake(WRONG, lacking, args=("--plan",)) == (0, [])
    told = capsys.readouterr().out
    assert "1 not run here, 2 to do; by the plan about 2 min on two cores" in told
    assert f"b: about 2 min\n    fssd wrong --out {tmp_path}/out\n" in told
    assert "lacking: not run here\n    fssd good" in told
    assert "\n    no x\n" in told
    assert told.count("no x: wait for it") == 1
    assert "  score wants" in told
    assert not (tmp_path / "out").exists()


def test_a_real_part_and_the_page_of_it(tmp_path, capsys):
    args = ["--preset", "tiny", "--only", "figure3", "--out", str(tmp_path)]
    assert WHOLE.main(args) == 0, (tmp_path / "all" / "figure3.log").read_text()
    told = capsys.readouterr()
    assert "2 done, 1 not run here" in told.out  # published has nothing to read
    assert "digits_near" in (tmp_path / "report.html").read_text()
    args += ["--skip", "published", "report"]
    assert WHOLE.main(args) == 0
    assert "figure3: done before" in capsys.readouterr().err
    (folder,) = (tmp_path / "figure3").glob("digits*")
    shutil.rmtree(folder)
    assert WHOLE.main(args) == 0
    told = capsys.readouterr().err
    assert f"figure3: begun again (its results are gone: figure3/{folder.name})" in told
    assert (folder / "metrics.json").exists()
