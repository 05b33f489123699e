"""Reads of genomes: a folder of sequence files, one class per species.

    ROOT/<species>/<strain file>

What is tested on is never trained on: other strains where a species has three or more,
else another stretch of the genome.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int64

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.data.folders import located
from fssd_jax.data.image_files import check_once, check_target
from fssd_jax.data.sequence_files import (
    COMPRESSED,
    OTHER,
    Genome,
    bases_digest,
    read,
)
from fssd_jax.data.sources import ArrayDataset, digest
from fssd_jax.data.strain_forms import ENDINGS, not_read, strain_of

LENGTH = 250  # bases of a read (Ren et al. 2019)
SPLITS = ("train", "validation", "test")
SHARES = (0.8, 0.1, 0.1)  # of a genome that is split by position, in this order
STRAINS = 3  # of a species, from which on it is split by strain


# Of the files that were read: the other splits' are read by calls of their own.
_DIGESTS: dict[Path, str] = {}


class Part(NamedTuple):
    """What one split may take of one strain: bases from `begin` to `end` of all."""

    path: Path
    begin: float  # shares of the genome
    end: float


def load_reads(
    root: str | Path,
    split: str,
    count: int,
    *,
    species: Sequence[str] | None = None,
    length: int = LENGTH,
    seed: int = 0,
    shares: tuple[float, float, float] = SHARES,
) -> ArrayDataset:
    """Draw reads of one split, equally many of each species and of its strains.

    A species with three strains or more is split by strain: the last by name is the
    test set, the one before it validation, all others training. Else each genome is
    cut into three stretches, with a gap of one read between them. Of fewer than three
    strains a stretch may well be in the other strain, elsewhere.

    A read is a window of one record without any ambiguous base, each equally likely,
    on either strand. The reads are in random order. They are the same for the same
    files, seed and arguments; of a species they do not depend on the others.

    No two files may have the same bases, or one may be trained and the other tested on.
    All that one process has read below `root` are compared, whatever their splits.

    Args:
      root: holds a folder for each species, with a file (FASTA or GenBank, plain or
        compressed) for each strain.
      split: "train", "validation" or "test".
      count: reads of all species together; those that come first have one more where
        it cannot be divided.
      species: names of folders: the classes 0, 1, …; by default all, sorted.
      length: bases of a read.
      seed: of the draws.
      shares: of a genome that is split by position: training, validation, test.

    Returns:
      x [count, length] int8, A C G T = 0 1 2 3 (uint8 would be taken for pixels); y the
      species.

    Raises:
      InputError: an unknown split or species, a layout that does not say what is meant,
        a file that cannot be read, is there twice or has no such window, bad numbers.
    """
    _check(split, count, length, shares)
    path = located(root)
    strains = find(path)
    names = sorted(strains) if species is None else list(species)
    unknown = [name for name in names if name not in strains]
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(
            f"{path}: species {unknown or names}, each once of {sorted(strains)} "
            "expected"
        )
    drawn, y = [], []
    for label, name in enumerate(names):
        parts = divide(strains[name], split, shares)
        of_species = _equal(count, len(names))[label]
        for part, number in zip(parts, _equal(of_species, len(parts)), strict=True):
            rng = _generator(seed, name, part.path.name, split)
            genome = read(part.path)
            _check_twins(path, part.path, genome)
            drawn.append(reads(genome, number, rng, length, part))
            y += [label] * number
    order = _generator(seed, "order", split).permutation(count)
    x, labels = np.concatenate(drawn)[order], np.array(y, np.int32)[order]
    return ArrayDataset(x, labels, path.name, split, str(path), digest(x, labels))


def find(root: Path) -> dict[str, list[Path]]:
    """The strain files of each species, sorted by name.

    What is hidden is passed over, and in the folders of species what has other endings
    than `ENDINGS`, alone or before one of `COMPRESSED`, and looks like no strain, by
    its name and by what it begins with.

    Raises:
      InputError: there is no such folder, no species in it, a species without a file,
        sequences beside the species' folders, folders inside, two files of a strain, a
        file or folder reached twice by a link, a link to nothing, or a strain in a
        form, or under a name, that is not read.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder; it is to hold one a species"
        )
    found = {}
    for entry in _entries(root):
        if entry.is_dir():
            found[entry.name] = _strains(entry)
        elif strain_of(entry.name):
            raise InputError(
                f"{entry}: lies beside the folders of species; put it into that of its "
                "own"
            )
    if not found:
        raise InputError(f"{root}: holds no folders; make one for each species")
    files = (file for of_species in found.values() for file in of_species)
    check_once(root, [*(root / name for name in found), *files])
    return found


def _strains(folder: Path) -> list[Path]:
    names: dict[str, Path] = {}
    others: list[Path] = []
    for entry in _entries(folder):
        strain = strain_of(entry.name)
        if entry.is_dir():
            raise InputError(
                f"{entry}: is a folder in that of a species; put the file of each "
                f"strain into {folder} itself"
            )
        if strain is None:
            others.append(entry)
        elif strain in names:
            raise InputError(
                f"{folder}: {names[strain].name} and {entry.name} are of one strain; "
                "remove one, for one may be trained and the other tested on"
            )
        else:
            names[strain] = entry
    for entry in others:
        if told := not_read(entry, names):
            raise InputError(f"{entry}: {told}")
    if not names:
        told = f"; there are {[e.name for e in others[:3]]}" if others else ""
        raise InputError(
            f"{folder}: no sequences in it; looked for {' '.join(ENDINGS)}, also "
            f"with {' '.join(COMPRESSED)}{told}"
        )
    return [names[strain] for strain in sorted(names)]


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be searched ({error})") from error
    for entry in entries:
        if entry.is_symlink():
            check_target(entry)
    return entries


def _check_twins(root: Path, path: Path, genome: Genome) -> None:
    """Raise `InputError` where another file that was read has the same bases."""
    _DIGESTS[path] = digest = bases_digest(genome)
    for other, known in [*_DIGESTS.items()]:
        if known != digest or other == path or not other.is_relative_to(root):
            continue
        # As it is now: perhaps it is the one that was replaced.
        if other.is_file() and bases_digest(read(other)) == digest:
            one, two = sorted(str(p.relative_to(root)) for p in (other, path))
            raise InputError(
                f"{root}: {one} and {two} have the same bases, so that one genome may "
                "be trained and tested on; leave one of them out"
            )


def divide(strains: list[Path], split: str, shares=SHARES) -> list[Part]:
    """What a split has of the strains of one species."""
    if len(strains) >= STRAINS:
        whole = {"train": strains[:-2], "validation": strains[-2:-1]}
        return [Part(path, 0.0, 1.0) for path in whole.get(split, strains[-1:])]
    which = SPLITS.index(split)
    begin = sum(shares[:which])
    end = 1.0 if which == 2 else begin + shares[which]
    return [Part(path, begin, end) for path in strains]


def reads(
    genome: Genome,
    count: int,
    rng: np.random.Generator,
    length: int = LENGTH,
    part: Part | None = None,
) -> Int8[np.ndarray, "{count} {length}"]:
    """Windows without ambiguous bases, each equally likely, on a random strand.

    Args:
      genome: of which none but A, C, G, T is read, and nothing across its records.
      count: how many.
      rng: draws which.
      length: bases of a window.
      part: within which all windows lie; what begins inside the genome begins a
        window's length later, so that there is a gap before it.

    Raises:
      InputError: there is no such window.
    """
    begin, end = bounds(genome, length, part)
    runs = np.clip(_runs(genome), begin, end)
    possible = np.maximum(runs[:, 1] - runs[:, 0] - length + 1, 0)
    total = np.cumsum(possible)
    if count and not total[-1]:
        where = "" if part is None else f"{part.path}: "
        raise InputError(
            f"{where}no {length} bases in a row without an ambiguous one between "
            f"{begin} and {end} of {len(genome.codes)}; give a longer genome, or "
            "shorter reads"
        )
    drawn = rng.integers(0, max(total[-1], 1), count)
    run = np.searchsorted(total, drawn, side="right")
    first = runs[run, 0] + drawn - (total[run] - possible[run])
    x = genome.codes[first[:, None] + np.arange(length)[None]].astype(np.int8)
    turned = rng.random(count) < 0.5
    x[turned] = reverse_complement(x[turned])
    return x


def reverse_complement(
    x: Int8[np.ndarray, "*batch length"],
) -> Int8[np.ndarray, "*batch length"]:
    """The same piece of DNA, read from its other strand: A ↔ T, C ↔ G, backwards."""
    return np.int8(3) - x[..., ::-1]


def bounds(genome: Genome, length: int, part: Part | None) -> tuple[int, int]:
    """The first base of a part of a genome, and the one behind its last."""
    if part is None:
        return 0, len(genome.codes)
    begin, end = (round(len(genome.codes) * share) for share in part[1:])
    return (min(begin + length, end) if begin else 0), end


def _runs(genome: Genome) -> Int64[np.ndarray, "runs 2"]:
    """[first, behind the last) of all stretches of known bases within one record."""
    breaks = np.flatnonzero(genome.codes == OTHER)
    firsts = np.sort(np.concatenate([genome.starts[:-1], breaks + 1]))
    behind = np.sort(np.concatenate([genome.starts[1:], breaks]))
    return np.stack([firsts, behind], axis=1)


def _equal(count: int, shares: int) -> list[int]:
    return [count // shares + (i < count % shares) for i in range(shares)]


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Of its own for each species, strain and split, whatever others there are."""
    # Names of files may be no UTF-8.
    name = hashlib.sha256(os.fsencode("/".join(names))).digest()
    return np.random.default_rng([seed, *np.frombuffer(name, np.uint32).tolist()])


def _check(split: str, count: int, length: int, shares) -> None:
    if split not in SPLITS:
        raise InputError(f"split: {split!r}; choose from {', '.join(SPLITS)}")
    checks.at_least_one("count", count)
    checks.at_least_one("length", length)
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"shares: {shares}; give three that sum to 1, as {SHARES}")
