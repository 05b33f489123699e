"""A command whose reader goes away, as of `fssd data --list | head`."""

import os
import sys
from collections.abc import Callable


def until_closed(command: Callable[..., int], *args) -> int:
    """`command(*args)`; where nobody reads stdout any more, the status of SIGPIPE."""
    try:
        status = command(*args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Or Python would flush it again at its end, and tell of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status
