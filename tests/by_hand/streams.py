"""Peak memory of scoring a generator of few images, and of ten times as many.

python -m tests.by_hand.streams
"""

import resource
import subprocess
import sys
from collections import OrderedDict

import jax
import numpy as np

import fssd_jax
from fssd_jax.detectors import fssd

COUNTS = (20_000, 200_000)
SHAPE = (64, 64, 3)
PART = 100  # images that the generator gives at once


def peak(count: int) -> float:
    """MB that this process needed at most."""
    some = np.random.default_rng(0).integers(0, 256, (PART, *SHAPE), np.uint8)
    feature_fn = lambda variables, x: OrderedDict(mean=x.mean((1, 2)))  # noqa: E731
    noise = fssd_jax.uniform_noise(jax.random.key(0), 100, SHAPE)
    state = fssd.fit(feature_fn, {}, noise)
    stream = (some.copy() for _ in range(count // PART))
    scores = fssd_jax.map_batches(fssd.score, feature_fn, {}, state, stream)
    assert len(scores) == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        count = int(sys.argv[1])
        print(f"{count:,} images of {SHAPE}: peak {peak(count):.0f} MB")
    else:  # a process each, whose peak is its own
        for count in COUNTS:
            subprocess.run(
                [sys.executable, "-m", __spec__.name, str(count)], check=True
            )
