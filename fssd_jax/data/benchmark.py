"""What a benchmark is: an in-distribution set, its OoD sets, and how long to train."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset


class Benchmark(NamedTuple):
    name: str
    train: ArrayDataset  # in-distribution
    test: ArrayDataset  # in-distribution, never trained on
    ood: Mapping[str, ArrayDataset]  # name of the pair → OoD set
    num_classes: int
    mean: tuple[float, ...]  # by which images are normalised, per channel
    std: tuple[float, ...]
    epochs: int
    save_every: int  # epochs between checkpoints
    validation: int  # images drawn from each of `test` and `ood`, for α and ε
    # Published results, of the pair that is called as the benchmark is: where → method
    # → metric → fraction.
    paper: Mapping[str, Mapping[str, Mapping[str, float]]] | None
    # How many token ids there are, 0, 1, …, if inputs are such, without mean and std.
    symbols: int | None = None
    # Validation sets that are not parts of `test` and `ood`: "test" or pair → set.
    held: Mapping[str, ArrayDataset] | None = None
    # Pairs that there would be, and why their OoD sets cannot be had.
    missing: Mapping[str, str] = MappingProxyType({})
    # Whether OoD image i is the in-distribution test image i, changed: then the same
    # numbers are drawn of both for validation.
    twins: bool = False
    # Which networks are for it, where the inputs alone do not tell.
    family: Literal["imagenet", "faces"] | None = None


def divided(
    train: ArrayDataset, test: ArrayDataset, known: tuple[int, ...]
) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Images to train and to test on, and OoD test images: those of other classes.

    Of the former the classes become 0, 1, 2, … in the order of `known`, ascending.
    """
    ind = [part.select(np.isin(part.y, known)) for part in (train, test)]
    trained, tested = (
        part._replace(
            y=np.searchsorted(known, part.y).astype(np.int32),
            classes=tuple(
                part.classes[i] if part.classes else f"class {i}" for i in known
            ),
        )
        for part in ind
    )
    return trained, tested, test.select(~np.isin(test.y, known))


def channel_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1] units, to four places."""
    x = as_input(x).reshape(-1, x.shape[-1]).astype(np.float64)
    mean, std = x.mean(0).round(4), x.std(0).round(4)
    return tuple(mean.tolist()), tuple(std.tolist())
