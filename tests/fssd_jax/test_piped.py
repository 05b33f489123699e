"""`fssd data --list | head`: whoever reads goes away, and nothing is said of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fssd_jax.piped import until_closed

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from fssd_jax.piped import until_closed
def command(lines):
    print("a line\\n" * lines)
    return 0
sys.exit(until_closed(command, int(sys.argv[1])))
"""


@pytest.mark.parametrize("lines", [1, 100_000])  # fewer than a buffer holds, and more
def test_a_reader_that_goes_away_ends_the_command_in_silence(lines):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(lines)],
        stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_else_the_status_is_the_commands():
    assert until_closed(lambda status: status, 2) == 2
