"""Images that are decoded when they are asked for: to NumPy, an array [n, h, w, c].

What does not fit in memory goes by the same names as what does: a slice is read, cut
to one size and forgotten, a part is another view of the same source.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8

from fssd_jax.checks import InputError
from fssd_jax.data.crops import centre_crop
from fssd_jax.data.records import WORKERS, Records, Transform


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some images of a source, each cut to the centre.

    Attributes:
      source: records by number, `(image, label)` or TFDS's `{"image": …}`, of which
        the image is uint8 [height, width, channels] of any height and width.
      numbers: of its records, [n].
      side: of the square that is cut out.
      resize: to which length the shorter side is brought before; None: `side`.
      channels: 1 or 3, which the source's images have.
      workers: threads that decode what is asked for, and as of `Records`.
      processes: as of `Records`, of `records` alone.
    """

    source: Any
    numbers: Int[np.ndarray, " n"]
    side: int
    resize: int | None = None
    channels: int = 3
    workers: int = WORKERS
    processes: bool = False

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.numbers), self.side, self.side, self.channels

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, chosen) -> np.ndarray:
        """An image, or those of a slice, of numbers or of a mask, in one array."""
        if not isinstance(chosen, slice) and np.ndim(chosen) == 0:
            return self._one(int(self.numbers[chosen]))
        numbers = self.numbers[chosen].tolist()
        if not numbers:
            return np.empty((0, *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(
            max(1, self.workers)
        ) as pool:  # Pillow lets go of Python's lock
            return np.stack(list(pool.map(self._one, numbers)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of them, which are to fit in memory."""
        del copy
        return np.asarray(self[:], dtype)

    def part(self, chosen) -> "Decoded":
        """These images of it, not decoded yet."""
        return replace(self, numbers=self.numbers[chosen])

    def records(self, y: Integer[np.ndarray, " n"], transform: Transform) -> Records:
        """To train on: of any size, as the source has them, cut by `transform`."""
        source = Labelled(self.source, self.numbers, y)
        return Records(source, transform, self.workers, self.processes)

    def digest(self, y: Integer[np.ndarray, " n"]) -> str:
        """Of what they are with these labels, whatever size they are cut to."""
        return Labelled(self.source, self.numbers, y).digest

    def _one(self, number: int) -> UInt8[np.ndarray, "h w c"]:
        image = _image(self.source[number])
        if image.shape[2:] != (self.channels,):
            raise InputError(
                f"record {number}: its shape is {image.shape}, expected (height, "
                f"width, {self.channels})"
            )
        return centre_crop(image, size=self.side, resize=self.resize)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The source of some records of another, with other labels."""

    source: Any
    numbers: Int[np.ndarray, " n"]
    y: Integer[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: int) -> tuple[Any, int]:
        return _image(self.source[int(self.numbers[at])]), int(self.y[at])

    @cached_property
    def digest(self) -> str:
        """Of which records they are, of a source that is known by its own digest."""
        own = str(getattr(self.source, "digest", ""))
        found = hashlib.sha256(own.encode())
        found.update(self.numbers.astype(np.int64).tobytes())
        found.update(self.y.astype(np.int64).tobytes())
        return found.hexdigest()


def _image(record: Any) -> np.ndarray:
    return np.asarray(record["image"] if isinstance(record, Mapping) else record[0])
