"""What training is fed: images in any order, of arrays or of records."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from itertools import repeat
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from fssd_jax import checks
from fssd_jax.checks import InputError, as_input
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import Rows, pair
from fssd_jax.data.pipeline import cut
from fssd_jax.data.records import (
    Reading,
    Records,
    as_records,
    check_classes,
    fingerprint,
)

OTHERWISE = "and let the model itself map [0, 1] to the inputs that it takes"
Order = Int[np.ndarray, "steps batch"]  # numbers of images

NONE = Rows(None, None)  # where there are no outliers
Pair = tuple[Rows, Rows]  # a batch, and the outliers beside it
# What the key of a training is for; each use folds its own number into it.
INIT, SHUFFLE, DROPOUT, OUTLIERS = range(4)


class Feed(NamedTuple):
    """Images, and perhaps labels, by number."""

    count: int
    first: np.ndarray  # [1, ...] as the network takes them
    # (order, epoch) → x [batch, ...] and y [batch] int32 of each step
    batches: Callable[[Order, int], Generator[Rows, None, None]]
    stand_for: tuple[Any, Any]  # what stands for them in the record of a run


def feed(
    x: Any, y: Any, num_classes: int | None, name: str, draws: tuple[int, ...]
) -> Feed:
    """Take the images of a training, or its outliers, whatever they are.

    Args:
      x: an array; `records.Records`, or a source of records, which have their labels.
      y: class indices [n] of an array.
      num_classes: labels run from 0 to num_classes − 1; None: there are none, or none
        are looked at.
      name: what they are, for errors.
      draws: what a record's transform draws is of these, the epoch and its number.

    Raises:
      InputError: unusable images or labels.
    """
    if y is None and isinstance(x, tuple | Mapping):
        x, y = pair(x, name)
    if num_classes is None:
        y = None
    records = as_records(x)
    if records is not None:
        if y is not None:
            raise InputError(
                f"{name}: records have their labels, so leave y out; of two arrays "
                "make one source: records.Pairs(x, y)"
            )
        return _of_records(records, name, num_classes, draws)
    checks.images(x, name, otherwise=OTHERWISE)
    checks.not_bits(x, name)
    labels = None
    if num_classes is not None:
        of = name.replace("images", "labels")
        labels = checks.labels(y, len(x), num_classes, of)

    def batches(order, epoch):
        for chosen in order:
            beside = None if labels is None else labels[chosen]
            yield Rows(as_input(x[chosen]), beside)

    return Feed(len(x), as_input(x[:1]), batches, (x, labels))


def _of_records(
    records: Records, name: str, num_classes: int | None, draws: tuple[int, ...]
) -> Feed:
    def reading(epoch):
        # NumPy's seeds are not negative.
        own = *(number % 2**64 for number in draws), epoch
        return Reading(records, name, own, True, OTHERWISE, num_classes)

    def batches(order, epoch):
        size = order.shape[1]
        parts = reading(epoch).parts(order.ravel(), ahead=2 * size)
        for part in cut((Rows(*part) for part in parts), size):
            yield part if num_classes is not None else part._replace(y=None)

    count = reading(0).count()
    first, _ = reading(0).one(0)
    found = fingerprint(reading(0))
    if num_classes is not None:
        check_classes(reading(0), found["drawn"])
    return Feed(count, first[None], batches, (found, None))


class Feeds(NamedTuple):
    """Images, and perhaps outliers beside them, in a new order in every epoch."""

    images: Feed
    outliers: Feed | None
    key: PRNGKeyArray
    steps: int  # an epoch
    batch_size: int
    own: slice  # rows of each batch that this process reads

    def orders(self, epoch: int) -> tuple[Order, Any]:
        """Which images, and which outliers if any, make each batch."""
        images = self._order(SHUFFLE, self.images.count, epoch)
        if self.outliers is None:
            return images, [None] * self.steps
        return images, self._order(OUTLIERS, self.outliers.count, epoch)

    def batches(self, epoch: int, start: int) -> Generator[Pair, None, None]:
        """Of an epoch, from a step on."""
        order, beside = self.orders(epoch)
        with ExitStack() as stack:
            images = self.images.batches(order[start:, self.own], epoch)
            outliers = repeat(NONE, self.steps - start)
            if self.outliers is not None:
                outliers = self.outliers.batches(beside[start:, self.own], epoch)
                stack.enter_context(closing(outliers))
            stack.enter_context(closing(images))
            yield from zip(images, outliers, strict=True)

    def like(self) -> Pair:
        """Of the shapes and types of a batch."""

        def of(feed: Feed) -> Rows:
            count = len(range(self.batch_size)[self.own])
            x = np.broadcast_to(feed.first, (count, *feed.first.shape[1:]))
            return Rows(x, np.zeros(count, np.int32))

        return of(self.images), NONE if self.outliers is None else of(self.outliers)

    def stand_for(self) -> dict[str, Any]:
        """What stands for the data in the record of a run."""
        return {
            "images": self.images.stand_for[0],
            "labels": self.images.stand_for[1],
            "outliers": None if self.outliers is None else self.outliers.stand_for[0],
            "the first order of the images": self.orders(0),
        }

    def _order(self, use: int, count: int, epoch: int) -> Order:
        """Numbers below `count` in random order, and anew if they are too few."""
        order = np.asarray(_permutation(count, fold(self.key, use, epoch)))
        return np.resize(order, (self.steps, self.batch_size))


def fold(key: PRNGKeyArray, use: int, number: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(key, use), number)


_permutation = compiled(static=1)(lambda count, key: jax.random.permutation(key, count))
