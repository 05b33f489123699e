"""Files from elsewhere, read within bounds: nothing is run, and memory is limited."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from fssd_jax.checks import InputError

FREE = 2**30  # bytes that any file may unpack to
RATIO = 100  # and how many times its own size: deflate itself reaches 1,032
PIXELS = 89_478_485  # of one image, stored or resized: where Pillow begins to warn
ONLY = "the array"  # what a .npy holds


def check_size(path, packed: int, unpacked: int) -> None:
    """Raise `InputError` where a file is a decompression bomb, or might be one."""
    limit = max(FREE, RATIO * packed)
    if unpacked > limit:
        raise InputError(
            f"{path}: {packed} bytes would unpack to {unpacked} or more, over the "
            f"limit of {limit} ({RATIO} times its size, or 1 GiB): a decompression "
            "bomb? If it is none, store it uncompressed"
        )


def read_arrays(
    path: Path, mend: str, content: bytes | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name, or that of a .npy, whatever the file is called.

    `np.load` passes over what lies behind an array whose header is damaged, and gives
    bytes where an entry is no array.

    Args:
      path: the file.
      mend: what the reader of an error is to do.
      content: of the file, if it is in memory already.

    Raises:
      InputError: it cannot be read, is truncated, damaged or pickled, or is a bomb.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return {ONLY: _read_array(file, size)}
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                # A damaged directory may skip some, and only its end tells how many.
                file.seek(size - len(archive.comment) - 12)
                announced = int.from_bytes(file.read(2), "little")
                if announced != min(len(entries), 0xFFFF):
                    raise ValueError(f"{len(entries)} entries of {announced}")
                check_size(path, size, sum(e.file_size for e in entries))
                found = {}
                for entry in entries:
                    with archive.open(entry) as member:
                        name = entry.filename.removesuffix(".npy")
                        found[name] = _read_array(member, entry.file_size)
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}): truncated, "
            f"corrupt or pickled; {mend}"
        ) from error
    if len(found) < len(entries):
        raise InputError(f"{path}: two entries of one name; {mend}")
    return found


def _read_array(file, size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    of_version = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = of_version[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    left = size - file.tell()
    if dtype.itemsize == 0 or left != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{left} bytes for an array {dtype}{list(shape)}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
