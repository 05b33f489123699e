"""Data sets of which single records are read by number, ahead and by several workers.

A source has `__len__` and `__getitem__`, as Grain, `tfds.data_source` and PyTorch's
datasets have them. A record is an image [h, w, c] or token ids [length], alone or with
its label: `(image, label)`, or TFDS's `{"image": …, "label": …}`.

Workers and reading ahead are Grain's. Which records come in which order, and what is
drawn for each, is decided here, and does not depend on the workers.
"""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from fssd_jax import checks, extras
from fssd_jax.checks import InputError

# (image, generator) → image: an augmentation, or a crop, on the host
Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
WORKERS = min(8, os.cpu_count() or 1)
PART = 16  # records that a worker reads at once
DRAWN = 16  # records that stand for all in a run's record
FORMS = (
    'give (image, label), or a dict of "image" and "label": write a class with '
    "__len__ and __getitem__ that does"
)


@dataclass(frozen=True, eq=False)
class Records:
    """How a source is read.

    Attributes:
      source: the records.
      transform: of each image, `(image, rng) -> image`, such as a crop of
        `fssd_jax.data.crops`. What `rng`, a NumPy generator, draws depends on the seed,
        the epoch and the number of the record, and on nothing else.
      workers: threads that read, ahead of what is computed; 0: none.
      processes: whether the workers are processes. They import anew, so what a script
        does belongs under `if __name__ == "__main__":`; and they start with each epoch.
    """

    source: Any
    transform: Transform | None = None
    workers: int = WORKERS
    processes: bool = False

    def __post_init__(self):
        checks.at_least(0, "workers", self.workers)

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Pairs:
    """The source of the rows of two arrays, which may be mapped from files."""

    x: Any  # [n, ...]
    y: Any  # [n]

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise InputError(f"Pairs: {len(self.x)} rows, and {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return self.x[number], self.y[number]


def as_records(data: Any) -> Records | None:
    """The records, if single ones can be had by number and nothing else is meant."""
    if isinstance(data, Records):
        return data
    others = str | bytes | os.PathLike | Mapping | tuple
    if isinstance(data, others) or hasattr(data, "shape"):
        return None
    by_number = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not by_number:
        return None
    return Records(data, workers=0) if isinstance(data, list) else Records(data)


def single_records(data: Any) -> Records | None:
    """The records, where batches of rows might be meant: by the first one's label."""
    found = as_records(data)
    if found is None or found is data or not len(found):
        return found if found is data else None
    try:
        label = _parted(found.source[0], "record 0")[1]
    except InputError:  # batches, perhaps; who reads it will tell
        return None
    except Exception as error:  # whatever a source may raise; `Reading.one` will tell
        # Without numbers, as PyTorch's IterableDataset, it may still give batches.
        other = isinstance(error, NotImplementedError | TypeError | LookupError)
        return None if other and hasattr(data, "__iter__") else found
    return found if label is not None and np.ndim(label) == 0 else None


class Reading(NamedTuple):
    """One pass over records, in an order, with what is drawn for each."""

    records: Records
    name: str  # what they are, for errors
    draws: tuple[int, ...] = (0,)  # with a record's number: what its generator is of
    unit_range: bool = True
    otherwise: str = "or pass unit_range=False if your network takes other inputs"
    num_classes: int | None = None  # None: labels may be anything, or missing

    def count(self) -> int:
        """How many records there are, or `InputError` for none or without an end."""
        count = len(self.records)
        if not count:
            raise InputError(f"{self.name}: the set is empty; it has no record")
        if count >= 2**31:  # Grain's .repeat() tells 2⁶³ − 1, or a part of it
            raise InputError(
                f"{self.name}: {count} records, as of a source without an end, where "
                "fewer than 2³¹ are expected; leave out .repeat(): training repeats "
                "records by epochs, and scoring reads each once"
            )
        return count

    def one(self, number: int) -> tuple[np.ndarray, Any]:
        """(what the network takes, label or None) of a record.

        Raises:
          InputError: it cannot be read, or is none.
        """
        of = f"{self.name}, record {number}"
        try:
            record = self.records.source[number]
        except InputError:  # which names the file, or says what was expected
            raise
        except Exception as error:  # whatever a source may raise
            raise InputError(
                f"{of}: cannot be read ({type(error).__name__}: {error}): damaged? Get "
                "it again, or leave it out"
            ) from error
        if record is None:
            raise InputError(
                f"{of}: is None, as where Grain's .filter left one out: a sparse "
                "source cannot be read by number; filter what it reads from, "
                "beforehand, so that every number has a record"
            )
        x, label = _parted(record, of)
        x = checks.to_numpy(x, of)
        if self.records.transform is not None:
            rng = np.random.default_rng([*self.draws, number])
            try:
                # A copy: what it changes in place would change the source.
                x = self.records.transform(x.copy(), rng)
            except Exception as error:
                raise InputError(
                    f"{of}: its transform failed ({type(error).__name__}: {error})"
                ) from error
            if x is None:
                raise InputError(f"{of}: its transform returned None, not the image")
            x = checks.to_numpy(x, f"{of}, transformed")
        advice = {"start": number, "otherwise": self.otherwise}
        checks.images(x[None], of, unit_range=self.unit_range, **advice)
        return checks.as_input(x[None], of)[0], self._label(label, of)

    def _label(self, label: Any, of: str) -> Any:
        if self.num_classes is None:
            return label
        if label is None or np.ndim(label):
            found = "no label" if label is None else f"a label {[*np.shape(label)]}"
            raise InputError(f"{of}: has {found}, not a class index; {FORMS}")
        y = checks.to_numpy(label, of)[None]
        return checks.classes(y, self.num_classes, f"{of}, label")[0]

    def parts(
        self, order: Int[np.ndarray, " n"], ahead: int
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield (x [rows, ...], labels [rows] or None), in order, in parts.

        Args:
          order: numbers of records.
          ahead: how many records may be read before they are asked for.

        Raises:
          InputError: records that cannot be read, or do not fit together.
          MissingExtraError: Grain is not installed.
        """
        starts = range(0, len(order), PART)
        x, label = self.one(0)
        like = x.dtype, x.shape, label is None
        parts = _Parts(self, [order[start : start + PART] for start in starts], like)
        with ExitStack() as stack:
            if self.records.processes:  # Grain's cycles hold memory that is shared
                stack.callback(gc.collect)
            ahead = max(1, -(-ahead // PART))
            yield from _by_workers(parts, self.records, ahead, stack)


@dataclass(frozen=True)
class _Parts:
    """Parts by number, as Grain's workers ask for them."""

    reading: Reading
    numbers: Sequence[np.ndarray]
    like: tuple  # dtype, shape and whether there is no label, of the first record

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: int) -> tuple[np.ndarray, np.ndarray | None]:
        found = [self._one(int(number)) for number in self.numbers[part]]
        x, y = zip(*found, strict=True)
        return np.stack(x), None if self.like[2] else _stacked(y)

    def _one(self, number: int) -> tuple[np.ndarray, Any]:
        x, label = self.reading.one(number)
        of, (dtype, shape, bare) = f"{self.reading.name}, record {number}", self.like
        if (x.dtype, x.shape) != (dtype, shape):
            raise InputError(
                f"{of}: is {x.dtype}{[*x.shape]}, record 0 is {dtype}{[*shape]}; bring "
                "them to one size, such as by Records(source, "
                "transform=partial(crops.centre_crop, size=224))"
            )
        if (label is None) != bare:
            has = ("a label, record 0 has none", "no label, record 0 has one")[not bare]
            raise InputError(f"{of}: has {has}; give all records one, or none")
        return x, label


def _stacked(labels: Sequence[Any]) -> np.ndarray:
    """[n] of numbers or text; of other labels, such as boxes, [n] objects."""
    if all(np.isscalar(y) or getattr(y, "shape", None) == () for y in labels):
        return np.asarray(labels)
    return np.fromiter(labels, object, len(labels))


def _by_workers(
    parts: _Parts, how: Records, ahead: int, stack: ExitStack
) -> Iterator[tuple[np.ndarray, Any]]:
    if not how.workers:
        yield from map(parts.__getitem__, range(len(parts)))
        return
    grain = extras.need("grain", "reading ahead (Records(workers=0) does without)")
    here = 0 if how.processes else min(how.workers, ahead)  # or Grain warns
    read = grain.ReadOptions(num_threads=here, prefetch_buffer_size=ahead * bool(here))
    data = grain.MapDataset.source(parts).to_iter_dataset(read)
    if how.processes:
        _parse_flags()
        # Twice as many are held: by the process, and on the way.
        each = max(1, ahead // (2 * how.workers))
        data = data.mp_prefetch(grain.MultiprocessingOptions(how.workers, each))
    found = iter(data)
    stack.callback(found.close)
    if not how.processes:
        yield from found
        return
    try:
        for x, y in found:  # in memory that is shared, and let go when it is copied
            yield np.array(x), None if y is None else np.array(y)
    except RuntimeError as error:  # what is wrong with a record is an `InputError`
        raise InputError(
            f"{parts.reading.name}: a process that reads died ({error}): out of "
            "memory, or ended by the source? Give fewer workers, or none: "
            "Records(source, workers=0)"
        ) from error


def _parse_flags() -> None:
    """Grain's processes read flags of absl, which only absl's own main parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def fingerprint(reading: Reading) -> dict[str, Any]:
    """What stands for records in the record of a run: not all of them are read.

    Their number, the source's own `digest` if it has one, and some records as the
    network sees them. A change in another record is not noticed.
    """
    count, source = len(reading.records), reading.records.source
    numbers = np.random.default_rng(0).choice(count, min(count, DRAWN), replace=False)
    own = getattr(source, "digest", None)
    drawn = [reading.one(int(number)) for number in numbers]
    if reading.num_classes is None:  # labels decide nothing
        drawn = [(x, None) for x, _ in drawn]
    own = own if isinstance(own, str) else ""
    return {"count": count, "digest": own, "drawn": drawn}


def check_classes(reading: Reading, drawn: Sequence[tuple[np.ndarray, Any]]) -> None:
    """Raise `InputError` if all labels are the same, as of an array.

    Args:
      reading: the records.
      drawn: some of them, with labels; others are read while these are of one class.
    """
    seen = {int(label) for _, label in drawn}
    for number in np.random.default_rng(0).permutation(len(reading.records)):
        if len(seen) > 1:
            return
        seen.add(int(reading.one(int(number))[1]))
    if len(seen) == 1:
        raise checks.one_class(reading.name.replace("images", "labels"), *seen)


def _parted(item: Any, of: str) -> tuple[Any, Any]:
    """(image, label or None) of a record."""
    if isinstance(item, Mapping):
        if "image" not in item:
            raise InputError(f"{of}: is a dict of {sorted(map(str, item))}; {FORMS}")
        return item["image"], item.get("label")
    if isinstance(item, tuple | list) and len(item) in (1, 2):
        return item[0], item[1] if len(item) == 2 else None
    if isinstance(item, tuple | list):
        raise InputError(f"{of}: is a {type(item).__name__} of {len(item)}; {FORMS}")
    return item, None
