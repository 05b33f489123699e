"""On the published sets themselves: `make data` first. In CI they must be there."""

import os

import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import fetch, load
from fssd_jax.data.benchmarks import load_benchmark

pytestmark = pytest.mark.data


@pytest.fixture(scope="session", autouse=True)
def real_data():
    try:
        load("fashion_mnist", "test")
        load("mnist", "test")
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"run `make data` first: {error}")


@pytest.mark.parametrize(("name", "split"), fetch.PUBLISHED)
def test_they_are_the_published_sets(name, split):
    data = fetch.verify(had(name, split))
    assert data.x.shape[1:] == (28, 28, 1)
    assert data.x.dtype == np.uint8


def had(name, split):
    """Auxiliary sets may be missing even where `make data` succeeded."""
    try:
        return load(name, split)
    except InputError as error:
        if name not in fetch.AUXILIARY:
            raise
        pytest.skip(f"{name} was not had: {error}")


def test_glyphs_are_thin_bright_strokes_on_black():
    x = had("cns_glyphs", "train").x[..., 0]
    frame = x.copy()
    frame[:, 2:-2, 2:-2] = 0  # where 24×24 pixels end
    assert np.any(frame, axis=(1, 2)).sum() <= 1  # one is of 25×24 pixels
    assert np.all(x.max(axis=(1, 2)) > 127)
    assert np.median((x > 127).mean(axis=(1, 2))) < 0.3
    assert len({image.tobytes() for image in x}) > 19_900


def test_the_statistics_are_the_usual_constants():
    benchmark = load_benchmark("fmnist")
    assert (benchmark.mean, benchmark.std) == ((0.2860,), (0.3530,))
    mnist = load("mnist", "train").x / 255
    assert round(mnist.mean(), 4) == 0.1307
    assert round(mnist.std(), 4) == 0.3081


def test_benchmark_a_has_the_papers_sizes():
    """Table 1, row A: 60k/10k images of 10 classes, 10k OoD."""
    b = load_benchmark("fmnist")
    sizes = [len(s.x) for s in (b.train, b.test, b.ood["fmnist"])]
    assert sizes == [60_000, 10_000, 10_000]
    assert set(b.train.y) == set(range(10))


def test_fmnist6_holds_out_four_classes():
    b = load_benchmark("fmnist6")
    sizes = [len(s.x) for s in (b.train, b.test, b.ood["fmnist6"])]
    assert sizes == [36_000, 6_000, 4_000]
    assert set(b.train.y) == set(b.test.y) == set(range(6))
    whole = load("fashion_mnist", "train")
    sandals = [x.tobytes() for x in whole.x[whole.y == 5]]  # the third class kept
    assert sandals == [x.tobytes() for x in b.train.x[b.train.y == 2]]
    assert set(b.ood["fmnist6"].y) == {1, 3, 4, 6}


def test_cifar6_holds_out_four_classes():
    try:
        b = load_benchmark("cifar6")
    except InputError as error:
        pytest.skip(f"CIFAR-10 was not had: {error}")
    sizes = [len(s.x) for s in (b.train, b.test, b.ood["cifar6"])]
    assert sizes == [30_000, 6_000, 4_000]
    assert len(b.ood["cifar6_mnist"].x) == 10_000
