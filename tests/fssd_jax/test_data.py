import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from fssd_jax import InputError
from fssd_jax.data import load
from fssd_jax.data.benchmarks import (
    channel_statistics,
    load_benchmark,
    split_validation,
    validation_and_test,
)
from fssd_jax.data.embedded import enlarge, photo_patches
from fssd_jax.data.sources import digest


def test_digits_are_scikit_learns():
    parts = [load("digits", split) for split in ("train", "test")]
    assert sum(len(p.x) for p in parts) == 1797
    counts = sum(np.bincount(p.y, minlength=10) for p in parts)
    np.testing.assert_array_equal(counts, np.bincount(load_digits().target))
    for part in parts:
        assert part.x.shape[1:] == (28, 28, 1)
        assert part.x.min() == 0
        assert part.x.max() <= 1
        assert part.source.startswith("scikit-learn 1.")
        assert part.sha256 == digest(part.x, part.y)
    assert parts[0].sha256 != parts[1].sha256


def test_enlarging_agrees_with_jax():
    small = np.random.default_rng(0).uniform(size=(3, 8, 8)).astype(np.float32)
    expected = jax.image.resize(small, (3, 28, 28), "linear")
    np.testing.assert_allclose(enlarge(small, 28), expected, atol=1e-6)


def test_photo_patches_tile_the_photographs():
    from sklearn.datasets import load_sample_image

    patches = load("photo_patches", "test")
    assert len(patches.x) == 2 * (427 // 28) * (640 // 28)
    photo = load_sample_image("china.jpg")[28:56, 56:84] / 255
    grey = photo @ [0.299, 0.587, 0.114]
    second_row_third_column = patches.x[640 // 28 + 2, :, :, 0]
    np.testing.assert_allclose(second_row_third_column, grey, atol=1e-6)


def test_photo_patches_of_any_size():
    """In colour, or grey as above; larger than 28 they overlap."""
    from sklearn.datasets import load_sample_image

    assert np.array_equal(photo_patches((28, 28, 1)), load("photo_patches", "test").x)
    photo = load_sample_image("flower.jpg").astype(np.float32) / 255
    patches = photo_patches((32, 40, 3))
    rows, columns = (427 - 32) // 28 + 1, (640 - 40) // 28 + 1
    assert patches.shape == (2 * rows * columns, 32, 40, 3)
    second_row_third_column = patches[rows * columns + columns + 2]
    np.testing.assert_array_equal(second_row_third_column, photo[28:60, 56:96])
    assert len(photo_patches((224, 224, 3))) == 2 * 8 * 15
    for shape in ((448, 448, 3), (32, 32, 2)):
        with pytest.raises(
            InputError, match="give a smaller size, and 1 or 3 channels"
        ):
            photo_patches(shape)


def test_the_digits_benchmark_keeps_its_sets_apart():
    b = load_benchmark("digits")
    assert set(b.train.y) == set(b.test.y) == set(range(5))
    assert set(b.ood["digits_near"].y) == set(range(5, 10))
    assert len(b.train.x) + len(b.test.x) + len(b.ood["digits_near"].x) == 1797
    known = {image.tobytes() for image in b.train.x}
    assert not known & {image.tobytes() for image in b.test.x}
    mean, std = channel_statistics(b.train.x)
    assert mean == (round(float(b.train.x.mean(dtype=np.float64)), 4),)
    assert std == (round(float(b.train.x.std(dtype=np.float64)), 4),)


def test_validation_and_test_share_nothing():
    data = load("digits", "test")
    validation, test = split_validation(data, 100, jax.random.key(0))
    assert len(validation.x) == 100
    together = np.concatenate([validation.x, test.x])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in data.x)
    other, _ = split_validation(data, 100, jax.random.key(1))
    assert np.any(other.x != validation.x)
    with pytest.raises(InputError, match="leave some to test on"):
        split_validation(data, len(data.x), jax.random.key(0))


def test_of_a_small_set_half_is_left_to_test_on():
    """Else a network were trained for hours, and then there would be no setting."""
    b = load_benchmark("digits")
    small = b._replace(test=b.test.select(slice(51)))
    key = jax.random.key(0)
    parts = validation_and_test(small, None, b.validation, key)
    assert [len(part.x) for part in parts] == [25, 26]
    whole = validation_and_test(b, None, b.validation, key)
    assert len(whole[0].x) == b.validation


def test_unknown_names_list_the_right_ones():
    with pytest.raises(InputError, match=r"'mnits'.*digits"):
        load("mnits", "train")
    with pytest.raises(InputError, match=r"no split 'val'.*train.*test"):
        load("digits", "val")
    with pytest.raises(InputError, match="takes no data_dir"):
        load("digits", "test", "/tmp")
    with pytest.raises(InputError, match=r"'fmnits'.*digits"):
        load_benchmark("fmnits")
