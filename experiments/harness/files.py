"""Files and folders that are whole or not there at all.

Of several processes the first reads and writes, and all know what it found.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from fssd_jax.bounded import read_arrays
from fssd_jax.checks import InputError
from fssd_jax.processes import agreed, all_of

# What a run cannot help: a full disk, a quota, a read-only or foreign folder.
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# What reading raises of content that no version wrote.
STRANGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
ATTEMPTS = 100  # to put a results folder in its place


def writable(folder: Path) -> Path:
    """Create the folder, or say at once that nothing could be written there."""

    def tried() -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-probe-{os.getpid()}"
            probe.touch()
        except OSError as error:
            raise InputError(
                f"cannot write to {folder.absolute()}: {error.strerror}; choose "
                "another folder with --out"
            ) from error
        return probe

    probe = agreed(tried)
    seen = all_of(probe.exists())
    agreed(probe.unlink)
    if not seen:
        raise InputError(
            f"{folder.absolute()}: not all processes see what the first writes there; "
            "give a folder on a disk that they share with --out"
        )
    return folder


def is_there(path: Path) -> bool:
    """Whether it exists, for all processes alike: what they do next depends on it."""
    return agreed(path.exists)


@contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has ended well.

    Two runs of one name do not mix: the one that ends last stays.
    """
    writable(path.parent)
    unique = f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished"
    temporary = path.with_name(unique)
    # Held while this run lives, which tells a later one not to remove the folder.
    with _owned(temporary):
        for left in path.parent.glob(f".{path.name}.*.unfinished"):
            if left != temporary:
                _remove_if_left(left)
        temporary.mkdir()
        try:
            yield temporary
            # Others may end at the same moment: the last one stays.
            for attempt in range(ATTEMPTS):
                shutil.rmtree(path, ignore_errors=True)
                try:
                    temporary.rename(path)
                    break
                except OSError:
                    if attempt == ATTEMPTS - 1:
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, a file beside it; `Timeout` if another run does."""
    with FileLock(f"{folder}.lock").acquire(blocking=False) as lock:
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)


def _remove_if_left(folder: Path) -> None:
    """Remove an unfinished folder if the run that made it is dead."""
    with suppress(Timeout), _owned(folder):
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """All or nothing; a NaN is an error, because not every reader takes it."""
    text = json.dumps(plain(value), indent=2, allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")

    def write() -> None:
        temporary.write_text(text + "\n")
        temporary.rename(path)

    agreed(write)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz, all or nothing: what a killed run finds again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")

    def write() -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        temporary.rename(path)

    agreed(write)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises `InputError` for a damaged file."""
    mend = "delete it, and what it held is computed again"
    return agreed(partial(read_arrays, path, mend))


def load_left(path: Path) -> dict[str, np.ndarray]:
    """Of a results folder, which no run mends; `InputError` for a damaged file."""
    return read_arrays(path, f"delete {path.parent}, and run the experiment again")


def load_json(path: Path, mend: str) -> Any:
    """Raises `InputError` for a file that is missing or damaged."""
    try:
        return agreed(lambda: json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); {mend}"
        ) from error


def plain(value: Any) -> Any:
    """What JSON can hold; an infinite option, such as a time, becomes text."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value in (float("inf"), -float("inf")):
        return f"{value:g}"
    return value


class Stopwatch:
    """Seconds spent under each name; they go into timing.json, not metrics.json."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
