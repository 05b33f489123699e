"""A method that fails loses its own rows, and nobody else's."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.harness.files import CANNOT_WRITE
from fssd_jax.checks import DivergedError, InputError
from fssd_jax.processes import several

LONGEST = 300  # characters of a reason: XLA's have pages


@contextmanager
def fails_alone(failed: dict[str, str], name: str) -> Iterator[None]:
    """Note under `name` why the block failed, and go on behind it.

    A disk that cannot be written fails all, and an interruption is none of its own. Of
    several processes perhaps one alone has failed, and the others wait for it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            raise
        if several():
            raise
        ours = isinstance(error, InputError | DivergedError)
        if not ours:  # what a reason of one line leaves out
            traceback.print_exception(error)
        kind = "" if ours else f"{type(error).__name__}: "
        failed[name] = f"{kind}{in_a_line(error)}".removesuffix(": ")
        print(f"{name} failed: {failed[name]}", file=sys.stderr, flush=True)


def in_a_line(error: Exception) -> str:
    """The first line; where that announces a traceback, as XLA's do, its last, too."""
    lines = str(error).strip().splitlines() or [""]
    first = lines[0].removesuffix("Traceback (most recent call last):")
    text = first if first == lines[0] else first + lines[-1]
    return text[:LONGEST] + "…" * (len(text) > LONGEST)
