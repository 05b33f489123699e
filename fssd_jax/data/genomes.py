"""Whole genomes of eight species of bacteria, from Debian packages that hold examples.

Nothing is installed, and no root is needed: the packages are downloaded and unpacked.
Of each species with several strains all that are named and assembled are taken; S.
aureus RN4220 is left out, which descends from NCTC 8325.
"""

import gzip
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fssd_jax import bounded
from fssd_jax.checks import InputError
from fssd_jax.data import debian
from fssd_jax.data.sequence_files import (
    SYMBOLS,
    Genome,
    bases_digest,
    read,
    records,
)
from fssd_jax.data.strains import SPECIES, Package

COMMAND = "fssd fetch genomes"
COLUMNS = 80  # bases of a line


def fetch(folder: Path, run: Callable[..., str | None]) -> int:
    """Make `folder/<species>/<strain>.fna.gz` of all, if they are not there yet.

    All or nothing: what is not there whole is got and verified before it is renamed.

    Args:
      folder: of the species.
      run: runs a command in a folder; None if it went well, else what it said.

    Returns:
      The number of strains.

    Raises:
      InputError: no apt-get or dpkg-deb, a package could not be had, or holds other
        sequences; one that is there already is damaged.
    """
    if folder.exists():
        return verify(folder)
    if not debian.available():
        raise InputError(
            "genomes: no apt-get and dpkg-deb on this machine; on one with Debian run "
            f"`{COMMAND}` and copy {folder}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            run("apt-get", "update")
            for package in dict.fromkeys(
                s.package for of in SPECIES.values() for s in of
            ):
                _write_all(
                    package, _unpacked(package, Path(temporary), run), unfinished
                )
        count = verify(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return count


def verify(folder: Path) -> int:
    """The number of strains in `folder`, if all are there as they are published here.

    Raises:
      InputError: one is missing, cannot be read, or is another.
    """
    count, mend = 0, f"remove {folder} and run `{COMMAND}`"
    for species, strains in SPECIES.items():
        for strain in strains:
            path = folder / species / f"{strain.name}.fna.gz"
            try:
                found = bases_digest(read(path))
            except InputError as error:
                raise InputError(f"{error}; {mend}") from error
            if found != strain.sha256:
                raise InputError(
                    f"{path}: the bases have digest {found}, expected {strain.sha256}; "
                    f"{mend}"
                )
            count += 1
    return count


def _unpacked(package: Package, temporary: Path, run) -> dict[str, Path]:
    """The wanted files of a package, by their name in its folder."""
    wanted = {s.file for of in SPECIES.values() for s in of if s.package == package}
    told = f"apt-get download {package.name}"
    if failed := run(*told.split(), cwd=str(temporary)):
        raise InputError(f"genomes: {told}: {failed}")
    (deb,) = temporary.glob(f"{package.name}_*.deb")
    found, total = {}, 0
    try:
        for path, size, content in debian.files(deb):
            name = path.removeprefix(f"{package.folder}/")
            if name not in wanted:
                continue
            total += size
            bounded.check_size(deb, deb.stat().st_size, total)
            found[name] = temporary / f"{package.name}-{len(found)}"
            with found[name].open("wb") as file:
                shutil.copyfileobj(content, file)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"genomes: {told}: {error}") from error
    if missing := wanted - found.keys():
        raise InputError(f"genomes: {deb.name} does not hold {sorted(missing)}")
    return found


def _write_all(package: Package, files: dict[str, Path], folder: Path) -> None:
    for species, strains in SPECIES.items():
        for strain in strains:
            if strain.package == package:
                path = folder / species / f"{strain.name}.fna.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, read(files[strain.file]), strain.record)


def write(path: Path, genome: Genome, record: str = "") -> None:
    """Write the records whose names contain `record`, as FASTA (.gz)."""
    letters = np.frombuffer(f"{SYMBOLS}N".encode(), np.uint8)
    with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
        for name, codes in zip(genome.names, records(genome), strict=True):
            if record in name:
                file.write(f">{name}\n".encode())
                text = letters[codes].tobytes()
                for start in range(0, len(text), COLUMNS):
                    file.write(text[start : start + COLUMNS] + b"\n")
