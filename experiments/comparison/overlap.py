"""Images that two sets have in common: outliers to train on must be in no other set."""

import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.folders import ImageFolder
from fssd_jax.data.sources import ArrayDataset


def refuse_own(outliers: ArrayDataset, benchmark: Benchmark, name: str) -> None:
    """Raise `InputError` if an outlier is an image of any set of the benchmark.

    Arrays are compared by their content, files by what they are on the disk, records of
    TFDS by their number. An image that was resized, or stored anew, is another one.
    """
    theirs = _identities(outliers.x)
    for data in (benchmark.train, benchmark.test, *benchmark.ood.values()):
        shared = len(theirs & _identities(data.x))
        if shared:
            raise InputError(
                f"--outliers {name}: {shared:,} of its {len(outliers.x):,} images are "
                f"images of {benchmark.name}, too, in {data.name}/{data.split}; leave "
                "them out, or choose others"
            )


def _identities(x: Any) -> set[Hashable]:
    if not isinstance(x, Decoded):
        return {hashlib.blake2b(_bytes(row)).digest() for row in np.asarray(x)}
    if isinstance(x.source, ImageFolder):
        stats = (x.source.files[number].stat() for number in x.numbers)
        return {(at.st_dev, at.st_ino) for at in stats}
    return {(x.source.digest, int(number)) for number in x.numbers}


def _bytes(image: np.ndarray) -> bytes:
    """The same of 8 bits and of floats in [0, 1]."""
    if image.dtype != np.uint8:
        image = (255 * image).round().astype(np.uint8)
    return image.tobytes()
