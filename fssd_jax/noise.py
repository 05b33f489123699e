"""Noise for F* beside `fssd.uniform_noise`: where inputs are no pixels in [0, 1]."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fssd_jax.checks import InputError
from fssd_jax.data.inputs import SLICE, rows
from fssd_jax.fssd import samples


def normal_noise(
    key: PRNGKeyArray,
    n: int,
    shape: tuple[int, ...],
    start: int = 0,
    *,
    mean: float = 0.0,
    std: float = 1.0,
) -> Float[Array, "n ..."]:
    """The like of N(mean, std²), for data that are standardised."""
    return samples(lambda k: mean + std * jax.random.normal(k, shape), key, n, start)


def random_tokens(
    key: PRNGKeyArray,
    n: int,
    shape: tuple[int, ...],
    vocabulary: int,
    start: int = 0,
) -> Int[Array, "n ..."]:
    """Token ids [n, *shape], each of 0 … vocabulary − 1 equally likely, int32."""
    draw = partial(jax.random.randint, shape=shape, minval=0, maxval=vocabulary)
    return samples(draw, key, n, start)


def noise_like(key: PRNGKeyArray, n: int, data: Any, start: int = 0) -> Any:
    """Uniform noise [n, ...] of the shape and in the range of the given data.

    Args:
      key: each sample folds its own number into it.
      n: how many samples.
      data: as of `pipeline.batches`; gone through once. uint8 images have noise in
        [0, 1] × their range, and ids have ids. Of a pytree, each array has its own.
      start: number of the first sample.

    Raises:
      InputError: an array in which all numbers are the same, beside the others of
        `pipeline.batches`.
    """
    found: list[tuple] = []
    structure = None
    for part in rows(data, SLICE, unit_range=False):
        leaves, structure = jax.tree.flatten(part.x)
        ranges = [(a.min(), a.max()) for a in leaves]
        before = found or ranges
        found = [
            (min(a, c), max(b, d))
            for (a, b), (c, d) in zip(before, ranges, strict=True)
        ]
    drawn = []
    for i, (leaf, (low, high)) in enumerate(zip(leaves, found, strict=True)):
        if low == high and leaf.dtype != bool:
            raise InputError(f"noise_like: all numbers of the data are {low}")
        own = jax.random.fold_in(key, i) if len(leaves) > 1 else key
        drawn.append(samples(_uniform_in(leaf, low, high), own, n, start))
    return jax.tree.unflatten(structure, drawn)


def _uniform_in(leaf: np.ndarray, low, high) -> Callable:
    shape = leaf.shape[1:]
    if leaf.dtype == bool:
        return partial(jax.random.bernoulli, shape=shape)
    if np.issubdtype(leaf.dtype, np.integer):
        limits = {"minval": int(low), "maxval": int(high) + 1}
        return partial(jax.random.randint, shape=shape, **limits)
    return partial(
        jax.random.uniform, shape=shape, minval=float(low), maxval=float(high)
    )
