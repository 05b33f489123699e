"""Several processes on this machine that work as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 400  # that all of them may take


def run(
    count: int, *command: str, devices: int = 1
) -> list[subprocess.CompletedProcess]:
    """`python *command --distributed …` by so many processes, to their end.

    Args:
      devices: simulated, of each process.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}" * (devices > 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [
                *(sys.executable, *command, "--distributed"),
                *("--coordinator", f"127.0.0.1:{port}"),
                *("--num-processes", str(count), "--process-id", str(number)),
            ],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        # Read one after another: what one says is little.
        said = [process.communicate(timeout=SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, said, strict=True)
    ]
