"""A quantile of any number of float32, in one pass and 8 MiB: counts by leading bits.

Read as whole numbers, the bits of floats ascend as they do, once the sign is mended.
The first 20 are a bin, 2⁻¹¹ of its numbers wide.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

BITS = 20
SIGN = np.uint32(1 << 31)


class Counts(NamedTuple):
    """Of each bin; `add` changes them."""

    of_bin: Int[np.ndarray, " bins"]


def nothing() -> Counts:
    return Counts(np.zeros(1 << BITS, np.int64))


def add(counts: Counts, values: np.ndarray) -> None:
    """Count values of any shape; they are finite."""
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    # Negative numbers descend; all their bits are turned, of others only the sign.
    ordered = np.where(bits & SIGN, ~bits, bits | SIGN)
    bins, number = np.unique(ordered >> np.uint32(32 - BITS), return_counts=True)
    counts.of_bin[bins] += number


def at(counts: Counts, share: float) -> float:
    """The value below which that share lies, to 2⁻¹¹ of itself or the next value's gap.

    Args:
      counts: of one value or more.
      share: in [0, 1]; of n sorted values, the one of rank share · (n − 1).
    """
    upto = np.cumsum(counts.of_bin)
    rank = share * (upto[-1] - 1)
    found = int(np.searchsorted(upto, rank, side="right"))
    before = upto[found] - counts.of_bin[found]
    low, high = _edge(found), _edge(found + 1)
    if found in (0, (1 << BITS) - 1) or not np.isfinite([low, high]).all():
        return low
    within = (rank - before) / counts.of_bin[found]
    return low + within * (high - low)


def _edge(number: int) -> float:
    """The least float of a bin."""
    ordered = np.uint32(min(number << (32 - BITS), (1 << 32) - 1))
    bits = ordered ^ SIGN if ordered & SIGN else ~ordered
    return float(np.array(bits, np.uint32).view(np.float32))
