"""Images that two sets have in common: no set may stand in for another."""

import hashlib
from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from fssd_jax.checks import InputError, warn
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.folders import ImageFolder
from fssd_jax.data.sources import ArrayDataset


def refuse_own(outliers: ArrayDataset, benchmark: Benchmark, name: str) -> None:
    """Raise `InputError` if an outlier is an image of any set of the benchmark.

    Arrays are compared by their content, files by what they are on the disk, records of
    TFDS by their number. An image that was resized, or stored anew, is another one.
    """
    theirs = identities(outliers.x)
    for data in (benchmark.train, benchmark.test, *benchmark.ood.values()):
        shared = len(theirs & identities(data.x))
        if shared:
            raise InputError(
                f"--outliers {name}: {shared:,} of its {len(outliers.x):,} images are "
                f"images of {benchmark.name}, too, in {data.name}/{data.split}; leave "
                "them out, or choose others"
            )


def tell_shared(
    sets: Mapping[str, ArrayDataset], names: Mapping[str, Any]
) -> list[str]:
    """Warn of images, or rows of features, that two sets have in common.

    Args:
      sets: what is compared, two by two.
      names: of each, for the reader.

    Returns:
      The warnings, for the table.

    Raises:
      InputError: all of the smaller set, or of both, are images of the other.
    """
    found = {of: identities(data.x) for of, data in sets.items()}
    told = []
    for a, b in combinations(found, 2):
        shared = len(found[a] & found[b])
        if not shared:
            continue
        which = f"{names[a]} and {names[b]}"
        if shared == min(len(found[a]), len(found[b])):
            raise InputError(
                f"{which} hold the same {shared:,} rows; give sets that have none in "
                "common: in-distribution images that were not trained on, OoD images, "
                "and training images"
            )
        told.append(
            f"{which} have {shared:,} rows in common, of {len(sets[a].x):,} and "
            f"{len(sets[b].x):,}: what is fitted on one of them is no test of the other"
        )
        warn(told[-1])
    return told


def identities(x: Any) -> set[Hashable]:
    if not isinstance(x, Decoded):
        return {hashlib.blake2b(_bytes(row)).digest() for row in np.asarray(x)}
    if isinstance(x.source, ImageFolder):
        stats = (x.source.files[number].stat() for number in x.numbers)
        return {(at.st_dev, at.st_ino) for at in stats}
    return {(x.source.digest, int(number)) for number in x.numbers}


def _bytes(image: np.ndarray) -> bytes:
    """The same of an image in 8 bits and in floats in [0, 1]; features have no axes."""
    if image.ndim < 2:
        return np.ascontiguousarray(image).tobytes()
    if image.dtype != np.uint8:
        image = (255 * image).round().astype(np.uint8)
    return image.tobytes()
