"""Parts one after another, each in a process of its own; what ended well is kept."""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from experiments.harness import files, provenance, results
from experiments.whole import needed, plan
from experiments.whole.presets import Part
from fssd_jax.checks import InputError

Status = Literal[
    "to do", "running", "done", "done before", "failed", "interrupted", "not run here"
]
# -P: of the same code as this process, wherever it was started.
PROGRAM = (sys.executable, "-P", "-m", "fssd_jax")
PATIENCE = 30.0  # seconds that an interrupted part has to end by itself
DAMAGED = "delete it, and every part is begun again"
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclasses.dataclass
class Row:
    """A part, and what has become of it."""

    part: Part
    words: list[str]  # the command, without `fssd`
    digest: str
    log: Path
    status: Status = "to do"
    seconds: float = 0.0  # of all tries with this digest
    lacks: tuple[needed.Lack, ...] = ()  # what is not here; without some it does less
    # Why it is not run here, or is again, or the last line of a log that failed.
    told: str = ""
    left: tuple[str, ...] = ()  # results folders, below OUT

    @property
    def command(self) -> str:
        return shlex.join(["fssd", *self.words])


def rows(parts: Sequence[Part], preset: str, out: Path, data_dir: Path | None):
    """What is to be done, what was done before, and what cannot be done here."""
    folder = out / "all"
    kept = read(folder)
    there = data_dir and data_dir.resolve()  # wherever it is called from
    found = []
    for part in parts:
        taken = any(map(needed.is_data, part.needs))  # whether it is told the folder
        answer = needed.check(part.needs, there)
        more = needed.check(part.takes, there if taken else None)
        words = plan.words(part, out, data_dir)
        row = Row(
            part,
            words,
            digest(part, answer.found + more.found),
            folder / f"{part.name}.log",
        )
        row.lacks = (*answer.missing, *more.missing)
        before = kept.get(f"{preset}/{part.name}", {})
        if answer.missing:
            row.status, row.told = "not run here", told(answer.missing)
        elif before.get("digest") == row.digest and not part.reads:
            done, row.left = before["status"] == "done", before["left"]
            gone = [name for name in row.left if not _is_there(out / name)]
            if done and gone:
                row.told = f"its results are gone: {', '.join(gone)}"
            else:
                row.seconds = before["seconds"]
                row.status = "done before" if done else "to do"
        found.append(row)
    return found


def _is_there(folder: Path) -> bool:
    """Whether it holds what the page of all results reads."""
    return (folder / "metrics.json").is_file()


def told(lacks: Sequence[needed.Lack]) -> str:
    return ", ".join(dict.fromkeys(lack.what for lack in lacks))


def digest(part: Part, found: tuple[str, ...]) -> str:
    """Of all that decides what a part leaves: command, code, versions, data."""
    code = provenance.code_digest(f"experiments.{part.script}")
    return provenance.config_digest(
        [part.script, part.args, code, provenance.versions(), found]
    )


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """state.json: "PRESET/PART" → digest, status, seconds, left, command, log, ended.

    Raises:
      InputError: it is damaged.
    """
    path = folder / "state.json"
    if not path.exists():
        return {}
    found = files.load_json(path, DAMAGED)
    try:
        known = {
            name: {
                **of,
                "seconds": float(of["seconds"]),
                "status": str(of["status"]),
                "left": tuple(map(str, of.get("left", ()))),
            }
            for name, of in found["parts"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: is none of ours ({why}); {DAMAGED}") from error
    return known


def keep(folder: Path, preset: str, row: Row) -> None:
    parts = read(folder)
    parts[f"{preset}/{row.part.name}"] = {
        "status": row.status,
        "seconds": round(row.seconds, 1),
        "digest": row.digest,
        "left": row.left,
        "command": row.command,
        "log": str(row.log),
        "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    files.write_json(folder / "state.json", {"parts": parts})


# ---- running ------------------------------------------------------------------------


def go(todo: Sequence[Row], preset: str, out: Path, tell: Callable[[Row], None]):
    """Run every row that is to do; a row that fails does not stop the others.

    Args:
      todo: rows, which are changed as they are run.
      tell: is called with each row that begins or ends.

    Raises:
      InputError: another process does the same in this folder.
      KeyboardInterrupt: or at a SIGTERM; the part that ran has ended, and goes on when
        the same is run again.
    """
    folder = files.writable(out / "all")
    with _alone(folder), _signals_interrupt():
        for row in todo:
            if row.status == "to do":
                if row.part.reads and not any(out.glob(row.part.reads)):
                    row.status = "not run here"
                    row.told = f"there is no {out / row.part.reads} to read"
                else:
                    _run(row, out, preset, tell)
            tell(row)


def _run(row: Row, out: Path, preset: str, tell: Callable[[Row], None]) -> None:
    """One part, to its end."""
    folder, said = out / "all", _size(row.log)
    row.left, row.status = (), "interrupted"  # as a killed process leaves it
    keep(folder, preset, row)
    row.status = "running"
    tell(row)
    start, spent = time.monotonic(), row.seconds
    try:
        code = _process(row)
        row.status = "done" if code == 0 else "failed"
        row.told = "" if code == 0 else _why(row.log, code)
        row.left = _left(row.log, said, out)
    except BaseException:
        row.status = "interrupted"
        raise
    finally:
        row.seconds = spent + time.monotonic() - start
        keep(folder, preset, row)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _left(log: Path, start: int, out: Path) -> tuple[str, ...]:
    """The results folders that a log tells of from this byte on."""
    text = log.read_bytes()[start:].decode(errors="replace")
    return tuple(results.told(text, out))


def _process(row: Row) -> int:
    """Run it, output into its log; the exit status, negative if a signal ended it."""
    process = None
    with row.log.open("ab") as log:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        log.write(f"# {now}\n$ {row.command}\n".encode())
        log.flush()
        try:
            # In a session of its own: at Ctrl-C it is we who end it, once.
            process = subprocess.Popen(
                [*PROGRAM, *row.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
            return process.wait()
        except BaseException:
            if process is not None:
                _end(process)
            raise


def _environment() -> dict[str, str]:
    """A log that is written line by line, and a checkout's own code."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if (provenance.ROOT / "pyproject.toml").is_file():
        paths = [str(provenance.ROOT), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, so that it keeps what it has; if that does not help, by force."""
    for number, patience in (
        (signal.SIGINT, PATIENCE),
        (signal.SIGTERM, 5),
        (signal.SIGKILL, None),
    ):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            process.wait()
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue  # a second Ctrl-C does not wait


def _why(log: Path, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        memory = "; was there too little memory?" if name == "SIGKILL" else ""
        return f"ended by {name}{memory}"
    return last_line(log) or f"exit status {code}"


def last_line(log: Path) -> str:
    """The last one that says something; "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    said = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    last = next((line for line in reversed(said) if line), "")
    return "" if last.startswith("$ ") else last


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / "lock").acquire(blocking=False):
            yield
    except Timeout as error:
        raise InputError(
            f"another `fssd all` is at work in {folder}; wait until it has ended, or "
            "choose another folder with --out"
        ) from error


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """What else ends a process does as Ctrl-C; what is ignored stays so.

    A shell lets its background jobs ignore SIGINT, and `nohup` SIGHUP. A part would
    ignore them, too, and could not be asked to end; it does not inherit a function.
    """

    def interrupt(number, frame):
        del number, frame
        raise KeyboardInterrupt

    def ignore(number, frame):
        del number, frame

    numbers = [getattr(signal, name) for name in STOPS]
    before = {n: signal.getsignal(n) for n in numbers}
    for number in numbers:
        ignored = before[number] is signal.SIG_IGN
        signal.signal(number, ignore if ignored else interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
