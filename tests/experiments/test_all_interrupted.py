"""`fssd all` interrupted: the part that ran keeps what it has, and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.whole import parts
from tests.experiments.whole import FAKE, state

ROOT = Path(__file__).parents[2]

RUN = """
import sys
from importlib import import_module
from experiments.whole import parts, plan
from experiments.whole.presets import Part
parts.PROGRAM = (sys.executable, sys.argv[1])
plan.PRESETS["tiny"] = (Part("e", "endless", "", 1), Part("last", "good", "", 1))
plan.ENDS = ()
sys.exit(import_module("experiments.all").main(sys.argv[2:]))
"""


# Whether or not these tests are a background job, which hears neither.
HEARD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""


@pytest.mark.parametrize(
    ("number", "before"),
    [
        *((signal.SIGINT, HEARD), (signal.SIGHUP, HEARD)),
        (signal.SIGTERM, "import signal; signal.signal(2, signal.SIG_IGN)"),
    ],
)
def test_an_interruption_ends_the_part_and_the_same_command_goes_on(
    number, before, tmp_path
):
    """In a background job of a shell, too, which ignores SIGINT."""
    (tmp_path / "fake.py").write_text(FAKE)
    out = tmp_path / "out"
    words = [sys.executable, "-c", before + RUN, str(tmp_path / "fake.py")]
    words += ["--preset", "tiny", "--out", str(out)]
    environment = {**os.environ, "CALLS": str(tmp_path / "calls")}
    environment["PYTHONPATH"] = str(ROOT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as process:
        waited = time.monotonic() + 60
        while not (out / "endless").exists() or not (out / "endless").read_text():
            assert process.poll() is None
            assert time.monotonic() < waited
            time.sleep(0.05)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[1:] == [
        "interrupted; the same command goes on from what was kept (see --help)"
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(int((out / "endless").read_text()), 0)
    assert (out / "all" / "e.log").read_text().endswith("kept what there was\n")
    kept = state(tmp_path)
    assert {k: v["status"] for k, v in kept.items()} == {"tiny/e": "interrupted"}
    done = subprocess.run(
        words, env={**environment, "MENDED": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "2 done" in done.stdout
    assert state(tmp_path)["tiny/e"]["seconds"] >= kept["tiny/e"]["seconds"]
    assert (tmp_path / "calls").read_text().split().count("endless") == 2


def test_what_does_not_listen_is_ended_by_force(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PATIENCE", 0.2)
    deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); print(1, flush=True)"
    words = [sys.executable, "-c", f"{deaf}; time.sleep(100)"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        parts._end(process)
    assert process.returncode == -signal.SIGTERM
