"""Files as nobody should write them, read in a process that may be lost.

`judge` has one reader read a good file and then mutations of it, in a child process
with bounded memory and time. What may come of it is our `InputError` or a right answer.
"""

import contextlib
import faulthandler
import gzip
import hashlib
import io
import json
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS = 10  # for one file
MORE_MEMORY = 4 * 2**30  # of addresses, beyond those of the good file
RESIDENT = 3 * 2**29  # of which one file may fill so many: the limits, and copies
LOST = 20  # children at most; then what is left is left
GOOD = ("refused", "right")


class Judged(NamedTuple):
    counts: Counter  # of "refused", "right", "foreign", "wrong", "hang", "crash", …
    failures: list[str]  # what went wrong, and at which mutation


# ---- mutations ----------------------------------------------------------------------

_EXTREME = (0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1, -(2**63))
_NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"a"', b"9" * 30)
_WORDS = (b"true", b"float64", b"<i8", b"|O", b"<U4", b"|V0", b"bfloat16", b"F8_E4M3")
_TOKENS = re.compile(rb"-?\d+(\.\d+)?|[A-Za-z_<>|]\w+")


def mutate(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One to three changes of `data`; `others` are files of other kinds."""
    if rng.random() < 0.02:
        return others[rng.integers(len(others))]
    if rng.random() < 0.3:  # little enough to be passed over
        return bytes(_flip(bytearray(data), rng))
    for _ in range(rng.integers(1, 4)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        data = change(bytearray(data), rng)
    return bytes(data)


def _place(data, rng) -> int:
    """Anywhere, or near either end, where headers and directories are."""
    n = max(len(data), 1)
    near = min(n, 256)
    return int([rng.integers(n), rng.integers(near), n - 1 - rng.integers(near)][
        rng.integers(3)
    ])  # fmt: skip


def _flip(data, rng):
    for _ in range(rng.integers(1, 9)):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _truncate(data, rng):
    return data[: _place(data, rng)]


def _insert(data, rng):
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(2 ** rng.uniform(0, 12))) + data[at:]


def _delete(data, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(2 ** rng.uniform(0, 10)) :]


def _repeat(data, rng):
    at, to = _place(data, rng), _place(data, rng)
    part = data[at : at + int(2 ** rng.uniform(0, 10))]
    return data[:to] + part + data[to:]


def _field(data, rng):
    """A binary field of a header: huge, negative or zero."""
    value, at = _EXTREME[rng.integers(len(_EXTREME))], _place(data, rng)
    size = int(rng.choice([1, 2, 4, 8]))
    order = "big" if rng.random() < 0.5 else "little"
    data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, order)
    return data


def _token(data, rng):
    """A number, name or type in a header that is text."""
    part = slice(0, 4096) if rng.random() < 0.5 else slice(-4096, None)
    first = max(0, len(data) - 4096) if part.start else 0
    found = list(_TOKENS.finditer(bytes(data[part])))
    if not found:
        return data
    token = found[rng.integers(len(found))]
    choices = (*_NUMBERS, *_WORDS, found[rng.integers(len(found))].group())
    new = choices[rng.integers(len(choices))]
    return data[: first + token.start()] + new + data[first + token.end() :]


_CHANGES = (_flip, _truncate, _insert, _delete, _repeat, _field, _token, _token)


# ---- what has a checksum is changed inside, and sealed again -------------------------

Change = Callable[[bytes], bytes]


def in_zip(data: bytes, change: Change, rng) -> bytes:
    """One entry changed, with a checksum that is right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(e, archive.read(e)) for e in archive.infolist()]
        comment = archive.comment
    chosen = rng.integers(len(entries))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, (entry, content) in enumerate(entries):
            archive.writestr(entry, change(content) if i == chosen else content)
        archive.comment = comment
    return buffer.getvalue()


def in_gzip(data: bytes, change: Change, rng) -> bytes:
    return gzip.compress(change(gzip.decompress(data)), mtime=0)


def in_png(data: bytes, change: Change, rng) -> bytes:
    chunks, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    i = rng.integers(len(chunks))
    chunks[i] = chunks[i][:4] + change(chunks[i][4:])
    return data[:8] + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in chunks
    )


def in_detector(data: bytes, change: Change, rng) -> bytes:
    inside = in_zip(data, change, rng)[:-64]
    return inside + hashlib.sha256(inside).hexdigest().encode()


# ---- the child ----------------------------------------------------------------------


class Reader(NamedTuple):
    write: Callable[[Path], None]  # good files into a folder
    read: Callable[[Path], Any]
    # Whether an answer may be given, though the bytes were changed; the good one beside
    right: Callable[[Any, Any], bool]
    seal: Callable[[bytes, Change, np.random.Generator], bytes] | None = None


class Hang(BaseException):
    pass


def _alarm(*_):
    raise Hang


def outcomes(reader: Reader, seed: int, start: int, stop: int) -> Iterator[tuple]:
    """(outcome, details) of each mutation; files lie in a temporary folder."""
    from fssd_jax import InputError
    from tests.hostile_readers import foreign_files

    signal.signal(signal.SIGALRM, _alarm)
    others = foreign_files()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reader.write(folder)
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
        good = reader.read(folder)
        assert reader.right(good, good)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        yield "ready", ""
        limit = pages * resource.getpagesize() + MORE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for i in range(start, stop):
            rng = np.random.default_rng([seed, i])
            path = paths[rng.integers(len(paths))]
            whole = path.read_bytes()
            # Another good file of this kind would be read, and rightly so; so would
            # arrays (.npy) in an .npz's place, and other safetensors.
            foreign = [
                other
                for other in others
                if other[:2] not in (whole[:2], b"\x93N") and other[8:9] != b"{"
            ]
            change = lambda data: mutate(data, rng, foreign)  # noqa: B023, E731
            if reader.seal and rng.random() < 0.5:
                path.write_bytes(reader.seal(whole, change, rng))
            else:
                path.write_bytes(change(whole))
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # hung in C
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    answer = reader.read(folder)
                what = "right" if reader.right(answer, good) else "wrong"
                details = "" if what == "right" else repr(answer)
            except InputError as error:
                what, details = "refused", repr(error.__cause__)
                # Not `memory_kind`, of which JAX tells where an array lies.
                if re.search("memory(?!_kind)", details.lower()):
                    what = "memory"
            except Hang:
                what, details = "hang", f"over {SECONDS} s"
            except BaseException as error:
                what, details = "foreign", repr(error)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
            if 1024 * grown > RESIDENT:
                what, details = "memory", f"{grown // 1024} MiB more"
            path.write_bytes(whole)
            yield what, f"{path.relative_to(folder)}: {details[:300]}"


def main(seed: str, mutations: str, *starts: str) -> None:
    """What `judge` runs: a line of JSON for each mutation."""
    from tests.hostile_readers import READERS

    told = sys.stdout
    for name, start in (pair.split("=") for pair in starts):
        found = outcomes(READERS[name], int(seed), int(start), int(mutations))
        for what, details in found:
            told.write(json.dumps([name, what, details]) + "\n")
            told.flush()


# ---- the parent ---------------------------------------------------------------------


def judge(
    names: list[str],
    mutations: int,
    seed: int = 0,
    tick: Callable[[str], Any] = lambda name: None,
) -> dict[str, Judged]:
    """A child that is lost at one mutation is followed by another at the next."""
    judged = {name: Judged(Counter(), []) for name in names}
    root = Path(__file__).parent.parent

    def count(name, what, details):
        if what not in GOOD:
            done = judged[name].counts.total()
            judged[name].failures.append(f"{name} {done}: {what}: {details}")
        judged[name].counts[what] += 1
        tick(name)

    for _ in range(LOST):
        starts = {name: of.counts.total() for name, of in judged.items()}
        left = {name: start for name, start in starts.items() if start < mutations}
        if not left:
            break
        command = [sys.executable, "-W", "ignore", "-m", "tests.hostile"]
        pairs = [f"{name}={start}" for name, start in left.items()]
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                [*command, str(seed), str(mutations), *pairs],
                cwd=root,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
            assert child.stdout is not None
            ready = ""
            for line in child.stdout:
                name, what, details = json.loads(line)
                if what == "ready":
                    ready = name
                else:
                    count(name, what, details)
            child.stdout.close()
            code = child.wait()
            if code:
                said.seek(0)
                last = said.read()[-2000:]
                total = {n: of.counts.total() for n, of in judged.items()}
                name = next((n for n in names if total[n] < mutations), ready)
                if name != ready:
                    raise RuntimeError(
                        f"{name}: not even the good file is read: {last}"
                    )
                hung = "Timeout (" in last
                count(name, "hang" if hung else "crash", f"({code}) {last}")
    return judged


if __name__ == "__main__":
    main(*sys.argv[1:])
