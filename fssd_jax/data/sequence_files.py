"""Read nucleotide sequences: FASTA and GenBank files, plain or compressed.

What a file is, is told by its content and not by its name. Nothing is kept but the
bases, a byte each, so that memory is bounded by what a file may unpack to.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from fssd_jax import bounded
from fssd_jax.checks import InputError
from fssd_jax.data.folders import located

SYMBOLS = "ACGT"  # the codes 0 to 3
OTHER = 4  # a base that is not known: N, the other ambiguity codes of IUPAC, a gap
RECORDS = 2**20  # of a file, at most
BLOCK = 2**20  # bytes that are looked at together
START = 2**12  # bytes by which a file is told, if its name does not tell
CERTAIN = 0.5  # of the bases that are no N: with fewer A, C, G, T, it is a protein

_UNPACKED: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
COMPRESSED = [".gz", ".bz2", ".xz"]
_DAMAGED: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError)
if sys.version_info >= (3, 14):
    from compression import zstd

    _UNPACKED[b"\x28\xb5\x2f\xfd"] = zstd.open
    COMPRESSED.append(".zst")
    _DAMAGED += (zstd.ZstdError,)
_FOREIGN = {
    b"@": "FASTQ; convert it to FASTA",
    b"ID  ": "EMBL; convert it to FASTA",
    b"##gff": "GFF; give the FASTA file beside it",
    b"PK": "a zip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "zstd; unpack it",
}
_LENGTH = re.compile(rb"\s(\d+) (bp|aa)\b")
_ANY = 5  # while reading: N and its like, of which a genome may have many


def _codes() -> bytes:
    """Byte → code; of what is no nucleotide, the byte with its highest bit set."""
    table = bytearray(byte | 0x80 for byte in range(256))
    known = [*enumerate(SYMBOLS), (3, "U"), (OTHER, "RYSWKMBDHV"), (_ANY, "NX-.")]
    for code, letters in known:
        for letter in letters:
            table[ord(letter)] = table[ord(letter.lower())] = code
    return bytes(table)


CODES = _codes()


class Genome(NamedTuple):
    codes: UInt8[np.ndarray, " bases"]  # A, C, G, T (or U) = 0, 1, 2, 3; `OTHER`
    starts: Int64[np.ndarray, " ends"]  # [records + 1], where each begins; all bases
    names: list[str]  # of the records: FASTA's whole header, GenBank's LOCUS


def records(genome: Genome) -> list[UInt8[np.ndarray, " bases"]]:
    """The codes of each record."""
    return np.split(genome.codes, genome.starts[1:-1])


def bases_digest(genome: Genome) -> str:
    """SHA-256 of the records' bases, whatever the lines and the names.

    Each record's codes, and 255 after each.
    """
    total = hashlib.sha256()
    for codes in records(genome):
        total.update(codes.tobytes() + b"\xff")
    return total.hexdigest()


def read(path: str | Path) -> Genome:
    """All records of one file, plain, .gz, .bz2 or .xz; .zst from Python 3.14 on.

    Lower case is as upper case, U as T; wrapped lines of any length, line ends of any
    system, and comments (;) of FASTA are understood. A GenBank file must hold the
    sequences themselves, as many bases as it announces.

    Raises:
      InputError: no such file; it is damaged, truncated, empty, binary, a protein, of
        another format or a decompression bomb.
    """
    path = located(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give one of FASTA or GenBank")
    try:
        with path.open("rb") as raw:
            lines = _lines(_blocks(path, raw))
            first = next((line for _, line in lines if line.strip()), b"")
            first = first.removeprefix(b"\xef\xbb\xbf")  # of Windows' editors
            kind = _kind(path, first)
            return _checked(path, *kind(path, _after(first, lines)))
    except InputError:
        raise
    except (OSError, EOFError, ValueError, MemoryError, *_DAMAGED) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read ({type(error).__name__}: {error}): truncated or "
        "damaged; get it again"
    )


def beginning(path: Path) -> bytes:
    """The first bytes of a file, unpacked; none if it is no file or cannot be read."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            return b""
        with path.open("rb") as raw:
            return _unpacked(raw).read1(START)  # `read` would fail if it is cut
    except (OSError, EOFError, ValueError, *_DAMAGED):
        return b""


# ---- bytes, lines -------------------------------------------------------------------

# Of a line that is longer than a block, parts: whether the part begins it.
Lines = Iterator[tuple[bool, bytes]]


def _unpacked(raw: io.BufferedReader) -> Any:
    start = raw.read(6)
    raw.seek(0)
    opened = [f for magic, f in _UNPACKED.items() if start.startswith(magic)]
    return opened[0](raw) if opened else raw


def _blocks(path: Path, raw: io.BufferedReader) -> Iterator[bytes]:
    packed, file, total = os.fstat(raw.fileno()).st_size, _unpacked(raw), 0
    while block := file.read(BLOCK):
        total += len(block)
        bounded.check_size(path, packed, total)
        if b"\0" in block:
            inside = "" if file is raw else " inside"
            raise InputError(
                f"{path}: is binary{inside}, expected the text of FASTA or GenBank; "
                "unpack an archive, convert another format"
            )
        yield block


def _lines(blocks: Iterator[bytes]) -> Lines:
    rest, begins = b"", True
    for block in blocks:
        *lines, rest = (rest + block.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            yield begins, line
            begins = True
        if len(rest) > BLOCK:  # a chromosome on one line
            yield begins, rest
            rest, begins = b"", False
    yield begins, rest


def _after(first: bytes, lines: Lines) -> Lines:
    yield True, first
    yield from lines


# ---- formats ------------------------------------------------------------------------

Parsed = tuple[bytearray, list[int], list[str]]  # codes, starts and names


def _kind(path: Path, first: bytes):
    if not first:
        raise InputError(f"{path}: is empty; get it again, or remove it")
    if first[:1] in (b">", b";"):
        return _fasta
    if first.startswith(b"LOCUS"):
        return _genbank
    told = [what for magic, what in _FOREIGN.items() if first.startswith(magic)]
    raise InputError(
        f"{path}: begins with {first[:20]!r}, expected FASTA (>) or GenBank (LOCUS)"
        + (f"; it is {told[0]}" if told else "; convert it, or get it again")
    )


def _fasta(path: Path, lines: Lines) -> Parsed:
    codes, starts, names = bytearray(), [], []
    for begins, line in lines:
        if begins and line[:1] == b">":
            _check_header(path, line, names)
            starts.append(len(codes))
            names.append(line[1:].decode("latin-1").strip())
        elif begins and line[:1] == b";":
            continue
        elif names:
            codes += line.translate(CODES, b" \t")
        elif line.strip():
            raise InputError(f"{path}: bases before the first header (>); get it again")
    return codes, starts, names


def _genbank(path: Path, lines: Lines) -> Parsed:
    codes, starts, names = bytearray(), [], []
    announced: int | None = None
    is_open = inside = False
    for begins, line in lines:
        if begins and line.startswith(b"LOCUS"):
            _check_header(path, line, names)
            if is_open:
                break
            found = _LENGTH.search(line)
            if found and found[2] == b"aa":
                raise _protein(path, [line[5:30].strip().decode("latin-1")])
            announced = int(found[1]) if found else None
            starts.append(len(codes))
            names.append(b" ".join(line.split()[1:2]).decode("latin-1"))
            is_open, inside = True, False
        elif begins and line.startswith(b"ORIGIN"):
            inside = True
        elif begins and line.startswith(b"//"):
            if is_open:
                _check_length(path, names[-1], announced, len(codes) - starts[-1])
            is_open = inside = False
        elif is_open and inside:
            codes += line.translate(CODES, b" \t0123456789")
    if is_open:
        raise InputError(
            f"{path}: record {names[-1]} does not end (//): truncated; get it again"
        )
    return codes, starts, names


def _check_header(path: Path, line: bytes, names: list[str]) -> None:
    if len(line) > BLOCK:
        raise InputError(
            f"{path}: a header of more than {BLOCK} bytes: damaged, or line ends are "
            "missing; get it again"
        )
    if len(names) == RECORDS:
        raise InputError(
            f"{path}: more than {RECORDS} records; give an assembled genome, no reads"
        )


def _check_length(path: Path, name: str, announced: int | None, found: int) -> None:
    if not found:
        raise InputError(
            f"{path}: record {name} has no bases (ORIGIN); get it in the form "
            '"GenBank (full)", or as FASTA'
        )
    if announced is not None and found != announced:
        raise InputError(
            f"{path}: record {name} announces {announced} bases and has {found}: "
            "truncated or damaged; get it again"
        )


def _checked(path: Path, found: bytearray, starts: list[int], names: list[str]):
    ends = np.array([*starts, len(found)], np.int64)
    empty = np.flatnonzero(np.diff(ends) == 0)
    if not names or len(empty):
        which = f"record {names[empty[0]]!r} has" if names else "has no records and"
        raise InputError(
            f"{path}: {which} no bases: truncated? Get it again, or remove the header"
        )
    codes = np.frombuffer(found, np.uint8)
    if codes.max() > _ANY:
        at = int(np.argmax(codes > _ANY))
        record = int(np.searchsorted(ends, at, side="right")) - 1
        raise InputError(
            f"{path}: record {names[record]!r}, position {at - ends[record] + 1}: "
            f"{chr(codes[at] & 0x7F)!r} is no nucleotide (ACGTU, or an ambiguity code "
            "of IUPAC): a protein, or damaged? Give nucleotide sequences"
        )
    certain, ambiguous = (int((codes < OTHER).sum()), int((codes == OTHER).sum()))
    if certain < CERTAIN * (certain + ambiguous):
        raise _protein(path, names)
    return Genome(np.minimum(codes, np.uint8(OTHER), out=codes), ends, names)


def _protein(path: Path, names: list[str]) -> InputError:
    return InputError(
        f"{path}: record {names[0]!r} looks like a protein; give nucleotide sequences, "
        "such as the file .fna beside an .faa"
    )
