"""A measurement in a process of its own, stopped when it takes too much."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fssd_jax.checks import InputError

OVER, LATE = "memory", "time"  # why a measurement was stopped


def watched(
    worker: str, arguments: list, memory: float, seconds: float
) -> dict[str, Any]:
    """What the worker prints as JSON, and its peak memory; or why it was stopped.

    Args:
      worker: Python code; its `sys.argv[1]` is `arguments` as JSON.
      arguments: for it.
      memory: GiB that the process may hold.
      seconds: that it may take, compilation included.

    Raises:
      RuntimeError: the worker failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", worker, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    start, peak, stopped = time.perf_counter(), 0.0, None
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        late = time.perf_counter() - start > seconds
        stopped = OVER if peak > memory else LATE if late else None
        if stopped:
            process.kill()
            break
        time.sleep(0.05)
    printed, _ = process.communicate()
    if stopped:
        return {"stopped": stopped, "peak_gib": peak}
    if process.returncode:
        raise RuntimeError(f"{arguments} failed; its error is above")
    return {**json.loads(printed.splitlines()[-1]), "peak_gib": peak}


def resident(pid: int) -> float:
    """GiB of memory that a process holds now."""
    if not Path("/proc/self/statm").exists():
        raise InputError("memory is measured by /proc, which only Linux has")
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, IndexError, ProcessLookupError):  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
