"""What a run survives: kills, a full disk, a read-only folder, and a second run.

    python -m tests.by_hand.kills --kills 20

Each trial trains, fits, scores and reports on digits (a smoke test's size), is
disturbed, and started again; its metrics.json must be that of an undisturbed run, byte
for byte. Prints a table for docs/reliability.md; exit status 1 if a trial failed.
"""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tyro
from tqdm import tqdm

RUN = [
    *(sys.executable, "-m", "experiments.table2", "--benchmark", "digits", "--tiny"),
    *("--epochs", "6", "--methods", "fssd_clean", "knn", "odin", "fssd"),
]


@dataclasses.dataclass(frozen=True)
class Config:
    kills: int = 20
    """How many runs are killed, each at a random moment."""
    sizes: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    """MiB of the disks that are too small. They are mounted, which needs root."""
    seed: int = 0
    """Of the moments."""


@dataclasses.dataclass
class Trial:
    what: str
    tried: int = 0
    disturbed: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [*RUN, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(out: Path) -> tuple[int, str]:
    """Run to the end: the exit status, and what was said on stderr but for bars."""
    with start(out) as process:
        _, errors = process.communicate()
        said = [line for line in errors.splitlines() if "it/s" not in line]
        return process.returncode, "\n".join(said)


def metrics(out: Path) -> bytes:
    """All metrics.json of a results folder, and that nothing else is left beside."""
    hidden = [p for p in (out / "table2").glob(".*")]
    if hidden:
        raise AssertionError(f"left behind: {hidden}")
    found = sorted((out / "table2").glob("*/metrics.json"))
    return b"".join(p.parent.name.encode() + p.read_bytes() for p in found)


def compare(trial: Trial, out: Path, expected: bytes, when: str) -> None:
    """Start again, to the end, and compare."""
    status, errors = finish(out)
    if status:
        trial.wrong.append(f"{when}: status {status}: {errors[-300:]}")
    elif metrics(out) != expected:
        trial.wrong.append(f"{when}: another metrics.json")


def killed(config: Config, folder: Path, expected: bytes, seconds: float) -> Trial:
    trial, rng = Trial("`kill -9` at a random moment"), random.Random(config.seed)
    for i in tqdm(range(config.kills), desc="kills", unit="run"):
        out, moment = folder / f"killed{i}", rng.uniform(0, seconds)
        with start(out) as process:
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                trial.disturbed += 1
                process.communicate()
        trial.tried += 1
        compare(trial, out, expected, f"killed after {moment:.1f} s")
        shutil.rmtree(out)
    return trial


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def refused(trial: Trial, out: Path, when: str) -> None:
    """It must end with one line that says what to do."""
    status, errors = finish(out)
    trial.tried += 1
    trial.disturbed += status != 0
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if status and (status != 1 or len(lines) != 1 or "Traceback" in errors):
        trial.wrong.append(f"{when}: status {status}: {errors[-500:]}")


def full_disk(config: Config, folder: Path, expected: bytes) -> Trial:
    trial, disk = Trial("a disk that becomes full"), folder / "disk"
    for size in tqdm(config.sizes, desc="full disks", unit="run"):
        with mounted(disk, f"size={size}m"):
            refused(trial, disk / "out", f"{size} MiB")
            remount = ["mount", "-o", "remount,size=1g", disk]
            subprocess.run(remount, check=True)
            compare(trial, disk / "out", expected, f"{size} MiB, then more")
    return trial


def read_only(config: Config, folder: Path, expected: bytes) -> Trial:
    trial, disk = Trial("a folder that cannot be written"), folder / "disk"
    with mounted(disk, "size=1g"):
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        refused(trial, disk / "out", "read-only")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        compare(trial, disk / "out", expected, "read-only, then not")
    return trial


def together(folder: Path, expected: bytes) -> Trial:
    trial = Trial("two runs in one folder at once")
    for pause in (0.0, 1.0, 5.0):
        out = folder / f"together{pause:g}"
        processes = []
        for _ in range(2):
            processes.append(start(out))
            time.sleep(pause)
        for process in processes:
            with process:
                _, errors = process.communicate()
            if process.returncode:
                trial.wrong.append(f"status {process.returncode}: {errors[-500:]}")
        trial.tried += 1
        trial.disturbed += 1
        if metrics(out) != expected:
            trial.wrong.append(f"{pause:g} s apart: another metrics.json")
    return trial


def main(config: Config) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finish(folder / "warm")  # fills the cache of compiled functions
        begin = time.perf_counter()
        status, errors = finish(folder / "reference")
        seconds = time.perf_counter() - begin
        if status:
            print(errors, file=sys.stderr)
            return 1
        expected = metrics(folder / "reference")
        trials = [killed(config, folder, expected, seconds), together(folder, expected)]
        if os.geteuid() == 0:
            trials.append(full_disk(config, folder, expected))
            trials.append(read_only(config, folder, expected))
    print(f"\nAn undisturbed run took {seconds:.0f} s.\n")
    print("| disturbed by | runs | disturbed | wrong afterwards |\n|---|--:|--:|--:|")
    for t in trials:
        print(f"| {t.what} | {t.tried} | {t.disturbed} | {len(t.wrong)} |")
    for t in trials:
        for text in t.wrong:
            print(f"\n{t.what}, {text}")
    return int(any(t.wrong for t in trials))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
