"""Records by number: what is read, by whom, in which order, and what is told."""

import os
import sys
import threading
import time
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from fssd_jax import InputError, extras, make_feature_fn, make_logit_fn, map_batches
from fssd_jax.data import pipeline
from fssd_jax.data.crops import random_resized_crop
from fssd_jax.data.inputs import count_rows, rows
from fssd_jax.data.records import Pairs, Reading, Records, fingerprint
from fssd_jax.detectors import knn, mahalanobis, msp
from tests.conftest import Smooth

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 4, 4, 1), np.uint8)
Y = np.arange(50) % 3
equal = np.testing.assert_array_equal


class Source:
    """As PyTorch's and TFDS's: by number, and it knows who asked."""

    def __init__(self, broken=(), copies=1):
        self.copies, self.broken, self.read = copies, broken, []

    def __len__(self):
        return 50 * self.copies

    def __getitem__(self, number):
        self.read.append(number)
        if number in self.broken:
            raise OSError("truncated")
        return X[number % 50], Y[number % 50]


# ---- what comes in which order ------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "processes"), [(0, False), (1, False), (3, False), (1, True)]
)
def test_records_come_in_order_whoever_reads_them(workers, processes):
    order = np.random.default_rng(3).permutation(50)
    crop = partial(random_resized_crop, size=3)
    reading = Reading(
        Records(Pairs(X, Y), crop, workers, processes), "images", draws=(7, 0, 2)
    )
    parts = list(reading.parts(order, ahead=32))
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    equal(y, Y[order])
    # Drawn for each record, and the same whoever reads.
    drawn = [crop(X[n], np.random.default_rng([7, 0, 2, n])) for n in order]
    equal(x, np.stack(drawn) / np.float32(255))


def test_workers_read_ahead_but_not_far_and_stop():
    before, source = threading.active_count(), Source(copies=20)
    parts = Reading(Records(source, workers=2), "images").parts(np.arange(1000), 64)
    for taken in range(1, 4):
        next(parts)
        deadline = time.monotonic() + 5
        while len(source.read) < 1 + 64 + 16 * taken and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        # Once record 0, by itself; what was taken; and 64 ahead.
        assert len(source.read) == 1 + 64 + 16 * taken
    parts.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


# ---- what records are ---------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, int(y)],
        lambda x, y: {"image": x, "label": y, "id": "a"},
        lambda x, y: (Image.fromarray(x[..., 0]), y),
    ],
)
def test_sources_are_scored_as_their_arrays(record):
    source = [record(x, y) for x, y in zip(X, Y, strict=True)]
    assert count_rows(source) == 50
    (part,) = pipeline.batches(source, 64)
    shape = part.x.shape[1:]
    equal(part.x[:50], X.reshape(50, *shape) / np.float32(255))
    equal(part.y[:50], Y)


def test_detectors_take_sources():
    model, x = Smooth(), X / np.float32(255)
    variables = model.init(jax.random.key(0), x[:1])
    feature_fn, logit_fn = make_feature_fn(model), make_logit_fn(model)
    source = Records(Source(), workers=2)
    fits = [
        lambda data, y: mahalanobis.estimate_gaussians(
            feature_fn, variables, data, y, 3
        ),
        lambda data, y: knn.fit(feature_fn, variables, data, "second", k=3),
    ]
    for fit in fits:
        of_source, of_arrays = fit(source, None), fit(X, Y)
        jax.tree.map(equal, of_source, of_arrays)
    score = partial(map_batches, msp.score, logit_fn, variables, msp.fit())
    equal(score(source), score(X))
    equal(score(Source()), score(X))  # known by the label of its first record
    images = list(X)  # without labels: said to be records
    equal(score(Records(images)), score(X))


# ---- what is told -------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_record_names_itself(workers):
    how = Records(Source(broken=[37]), workers=workers)
    parts = Reading(how, "training images").parts(np.arange(50), 32)
    with pytest.raises(
        InputError, match=r"training images, record 37: cannot be read \(OSError: trunc"
    ):
        list(parts)


def test_a_damaged_first_record_names_itself_too():
    told = r"images, record 0: cannot be read \(OSError: truncated\)"
    with pytest.raises(InputError, match=told):
        next(rows(Source(broken=[0]), 64))
    grain = pytest.importorskip("grain")
    with pytest.raises(InputError, match=told):
        next(rows(grain.MapDataset.source(Source(broken=[0])), 64))


@pytest.mark.parametrize("error", [NotImplementedError, KeyError(0), TypeError])
def test_what_has_a_length_but_no_numbers_may_give_batches(error):
    """As PyTorch's IterableDataset, and what is found by keys."""

    class Batches(Source):
        def __getitem__(self, number):
            raise error

        def __iter__(self):
            return iter([(X, Y)])

    (part,) = rows(Batches(), 64)
    equal(part.y, Y)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ((X[0, :2], 0), r"record 3: is float32\[2, 4, 1\], record 0 is float32\[4, 4"),
        ((X[0],), r"record 3: has no label, record 0 has one; give"),
        ((X[0] * np.float32(np.nan), 0), r"record 3: image 3 holds NaN"),
        ((X[0] / np.float32(20), 0), r"record 3: float images must lie in \[0, 1\]"),
        ((X[0], 0, 1), "images, record 3: is a tuple of 3; give"),
        ({"pixels": X[0]}, r"images, record 3: is a dict of \['pixels'\]; give"),
        (("text", 0), "record 3: expected"),
        (None, r"images, record 3: is None, .*\.filter.*; filter what it reads from,"),
    ],
)
def test_records_that_are_none(record, told):
    source = list(zip(X, Y, strict=True))
    source[3] = record
    with pytest.raises(InputError, match=told):
        list(rows(Records(source, workers=0), 64))


def test_what_else_is_wrong():
    with pytest.raises(InputError, match="set is empty; it has no record"):
        list(rows(Records([], workers=0), 64))
    for workers in (-1, True):
        with pytest.raises(InputError, match=f"workers: expected 0 or .* {workers}"):
            Records(Source(), workers=workers)
    with pytest.raises(InputError, match="50 rows, and 3 labels"):
        Pairs(X, Y[:3])
    failing = Records(Source(), lambda image, rng: image[9, 9], workers=0)
    with pytest.raises(InputError, match=r"record 0: its transform failed \(IndexErr"):
        list(rows(failing, 64))
    nothing = Records(Source(), lambda image, rng: image.sort(), workers=0)
    with pytest.raises(InputError, match="record 0: its transform returned None, not"):
        list(rows(nothing, 64))


@pytest.mark.parametrize(
    "label",
    [lambda n: [0] * (n % 3), lambda n: [n, n], lambda n: {"box": n}, lambda n: "a"],
)
def test_labels_of_any_kind_stand_beside_what_is_scored(label):
    """Boxes and captions, of which each record has another number."""
    source = [(x, label(n)) for n, x in enumerate(X)]
    (part,) = pipeline.batches(Records(source, workers=0), 64)
    equal(part.x[:50], X / np.float32(255))
    assert part.y[:50].tolist() == [label(n) for n in range(50)]


def test_more_workers_than_are_wanted_ahead_are_not_warned_of(caplog):
    reading = Reading(Records(Pairs(X, Y), workers=4), "images")
    assert len(list(reading.parts(np.arange(50), ahead=2))) == 4
    assert not caplog.records


class Endless(Source):
    def __len__(self):
        return 2**63 - 1


def test_a_source_without_an_end_is_refused():
    told = r"images: 9223372036854775807 records, .* leave out \.repeat\(\): training"
    for source in (Endless(), Records(Endless(), workers=0)):
        with pytest.raises(InputError, match=told):
            next(rows(source, 64))


class Deadly(Source):
    def __getitem__(self, number):
        if number == 9:
            os._exit(3)  # as a process that is killed for its memory
        return super().__getitem__(number)


@pytest.mark.slow
def test_a_process_that_dies_is_told():
    reading = Reading(Records(Deadly(), workers=1, processes=True), "images")
    with pytest.raises(InputError, match=r"images: a process that reads died.*code 3"):
        list(reading.parts(np.arange(50), ahead=32))


def test_without_grain_no_worker_reads_ahead(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(extras.MissingExtraError, match=r"workers=0.*fssd-jax\[records"):
        next(rows(Records(Source(), workers=2), 64))
    (part,) = rows(Records(Pairs(X[:9], Y[:9]), workers=0), 64)
    equal(part.x, X[:9] / np.float32(255))


def test_a_fingerprint_is_of_some_records():
    source = Source()
    found = fingerprint(Reading(Records(source), "images"))
    assert found["count"] == 50
    assert len(set(source.read)) == len(found["drawn"]) == 16
    for (x, y), number in zip(found["drawn"], source.read, strict=True):
        equal(x, X[number] / np.float32(255))
        assert y is None  # where they decide nothing; they may be anything
    source = Source()
    found = fingerprint(Reading(Records(source), "images", num_classes=3))
    assert [y for _, y in found["drawn"]] == Y[source.read].tolist()
