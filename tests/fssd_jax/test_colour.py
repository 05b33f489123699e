"""Benchmarks of CIFAR-10, on a few images in its layout."""

import jax
import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import load, published
from fssd_jax.data.benchmarks import load_benchmark, validation_and_test
from fssd_jax.data.colour import in_colour
from fssd_jax.models.resnet import CIFAR10
from tests.image_folders import SVHN, drawn, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    write(path / "cifar10" / "train", *drawn(1, 3))
    write(path / "cifar10" / "test", *drawn(2, 2))
    write(path / "svhn_cropped" / "test", *drawn(3, 1), SVHN)
    return path


def test_cifar10_is_against_svhn_and_far_sets(folder):
    b = load_benchmark("cifar10", folder)
    assert list(b.ood) == ["cifar10", "cifar10_photos"]
    np.testing.assert_array_equal(b.train.x, drawn(1, 3)[0])
    np.testing.assert_array_equal(b.ood["cifar10"].x, drawn(3, 1)[0])
    assert b.ood["cifar10_photos"].x.shape[1:] == (32, 32, 3)
    assert (b.mean, b.std) == (CIFAR10["mean"], CIFAR10["std"])
    assert b.paper == published.of("B")


def test_what_cannot_be_had_is_told_with_what_mends_it(folder):
    b = load_benchmark("cifar10", folder)
    assert list(b.missing) == ["cifar10_fashion_mnist", "cifar10_mnist"]
    assert f"no IDX files of split test in {folder}/mnist" in b.missing["cifar10_mnist"]
    with pytest.raises(InputError, match="cifar10/train: neither a folder"):
        load_benchmark("cifar10", folder / "cifar10")


def test_cifar6_holds_out_cat_frog_horse_ship(folder):
    b, whole = load_benchmark("cifar6", folder), load("cifar10", "test", folder)
    assert list(b.ood) == ["cifar6", "cifar6_svhn", "cifar6_photos"]
    assert list(b.missing) == ["cifar6_fashion_mnist", "cifar6_mnist"]
    held_out = np.isin(whole.y, (3, 6, 7, 8))
    np.testing.assert_array_equal(b.ood["cifar6"].x, whole.x[held_out])
    np.testing.assert_array_equal(b.test.x, whole.x[~held_out])
    for part, of_each in ((b.train, 3), (b.test, 2)):
        np.testing.assert_array_equal(part.y, np.repeat(np.arange(6), of_each))
    dogs = b.train.x[b.train.y == 4]  # the fifth class kept
    np.testing.assert_array_equal(dogs, drawn(1, 3)[0][15:18])


def test_of_a_small_set_a_part_is_for_validation(folder):
    b, key = load_benchmark("cifar10", folder), jax.random.key(0)
    sizes = [
        [len(part.x) for part in validation_and_test(b, pair, count, key)]
        for pair, count in ((None, 12), ("cifar10", 12), ("cifar10", 2))
    ]
    assert sizes == [[10, 10], [3, 7], [2, 8]]  # a half, and of OoD a third


def test_grey_images_become_colour_ones():
    digits = load("digits", "test").select(slice(20))
    for grey in (digits, digits._replace(x=np.uint8(255 * digits.x))):
        found = in_colour(grey)
        pixels = grey.x if grey is digits else grey.x / np.float32(255)
        large = 255 * jax.image.resize(pixels, (20, 32, 32, 1), "linear")
        assert found.x.dtype == np.uint8
        assert np.abs(found.x - np.asarray(large)).max() < 0.501
        assert found.x.std() > 50
    assert found.sha256 != digits.sha256
    np.testing.assert_array_equal(found.y, digits.y)
