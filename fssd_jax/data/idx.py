"""Read the IDX format of MNIST and its relatives (yann.lecun.com/exdb/mnist)."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from fssd_jax import bounded, checks
from fssd_jax.checks import InputError

# Magic number: two zero bytes, 0x08 for unsigned bytes, then the rank.
_KINDS = {0x801: "labels", 0x803: "images"}
_STEMS = {"train": "train", "test": "t10k"}


def find(folder: Path, split: str) -> tuple[Path, Path] | None:
    """(images, labels) of a split in `folder`, plain or .gz; None if one is missing."""
    found = []
    for kind, rank in (("images", 3), ("labels", 1)):
        names = [
            f"{_STEMS[split]}-{kind}{dash}idx{rank}-ubyte{end}"
            for dash in "-."
            for end in ("", ".gz")
        ]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if not paths:
            return None
        found.append(paths[0])
    return found[0], found[1]


def read(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, height, width, 1] uint8 and labels [n] int32.

    Raises:
      InputError: a file is truncated, corrupt, of the other kind, the two do not
        belong together, or images are of 0 and 1; the message names the file.
    """
    x, y = _read(images, "images"), _read(labels, "labels")
    if len(x) != len(y):
        raise InputError(
            f"{images} holds {len(x)} images but {labels} {len(y)} labels: they are "
            "not of one split; get both again"
        )
    checks.not_bits(x, str(images))
    return x[..., None], y.astype(np.int32)


def _read(path: Path, kind: str) -> np.ndarray:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            packed = len(data)
            most = max(bounded.FREE, bounded.RATIO * packed)
            with gzip.open(path) as file:
                data = file.read(most + 1)
            bounded.check_size(path, packed, len(data))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}): truncated or corrupt; get it again"
        ) from error
    magic = int.from_bytes(data[:4], "big")
    if _KINDS.get(magic) != kind:
        what = (
            f"holds {_KINDS[magic]}, expected {kind}: were the files swapped?"
            if magic in _KINDS
            else f"is not an IDX file of {kind} (it begins with {data[:4].hex()!r})"
        )
        raise InputError(f"{path}: {what}")
    header = 4 + 4 * (magic & 0xFF)
    if len(data) < header:
        raise InputError(f"{path}: truncated: {len(data)} bytes; get it again")
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    wanted = header + math.prod(shape)  # in Python's integers, which do not overflow
    if len(data) != wanted or wanted == header:
        raise InputError(
            f"{path}: truncated or corrupt, or empty: it announces shape {shape}, "
            f"which needs {wanted} bytes, and has {len(data)}; get it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
