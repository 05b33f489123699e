"""Files of Debian packages, read as a stream: without root, and without unpacking."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def available() -> bool:
    """Whether packages can be got and read on this machine."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def files(deb: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(path below the root, size in bytes, content) of each regular file, in order.

    A content can be read until the next one is asked for.

    Raises:
      OSError, tarfile.TarError: the package cannot be read.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                yield member.name.removeprefix("./"), member.size, content
            # Not in its stubs. Else it keeps the headers of 111,000 files.
            tar.members.clear()  # pyright: ignore
