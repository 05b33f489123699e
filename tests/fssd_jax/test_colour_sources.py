"""CIFAR-10 and SVHN: TFDS's mock, class folders of images, and arrays."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fssd_jax import InputError
from fssd_jax.data import load, sources
from tests.image_folders import CIFAR10, SVHN, drawn, write

X, Y = drawn(0, 2)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_reachable", lambda host: False)
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path


def test_class_folders_are_read_back(nowhere):
    order = np.random.default_rng(1).permutation(20)  # the files' names do not decide
    write(nowhere / "fetched" / "cifar10" / "test", X[order], Y[order])
    write(nowhere / "mine" / "cifar10" / "test", 255 - X, Y)
    (nowhere / "fetched" / "cifar10" / "test" / "dog" / "read.me").touch()
    data = load("cifar10", "test")
    assert (data.name, data.split, data.x.dtype) == ("cifar10", "test", np.uint8)
    np.testing.assert_array_equal(data.y, Y)
    found, expected = ({x.tobytes() for x in of[4:6]} for of in (data.x, X))
    assert found == expected
    assert data.source.startswith(f"{nowhere}/fetched/cifar10/test: 20 images")
    assert data.source.endswith("image files .png")
    np.testing.assert_array_equal(load("cifar10", "test", nowhere / "mine").x, 255 - X)


def test_arrays_come_before_images(tmp_path):
    write(tmp_path / "svhn_cropped" / "test", X, Y, SVHN)
    np.savez(tmp_path / "svhn_cropped" / "test.npz", x=255 - X, y=Y)
    data = load("svhn_cropped", "test", tmp_path)
    np.testing.assert_array_equal(data.x, 255 - X)
    np.testing.assert_array_equal(data.y, Y)
    assert data.source.endswith("x as stored, uint8")


def test_a_class_that_is_missing_is_an_error(tmp_path):
    """It would change the numbers of the others."""
    kept = Y != 3
    write(tmp_path / "cifar10" / "train", X[kept], Y[kept])
    with pytest.raises(InputError, match="images of 9 classes, expected 10"):
        load("cifar10", "train", tmp_path)
    np.savez(tmp_path / "cifar10" / "test.npz", x=X)
    with pytest.raises(InputError, match="images of 1 classes, expected 10"):
        load("cifar10", "test", tmp_path)
    np.savez(tmp_path / "cifar10" / "test.npz", x=X, y=Y + 1)
    with pytest.raises(InputError, match=r"numbers 1 to 10, expected 0 to 9.*renumber"):
        load("cifar10", "test", tmp_path)


def test_splits_whose_classes_have_other_names_are_refused(tmp_path):
    """They are numbered by their sorted names: "nine" would be the last."""
    write(tmp_path / "svhn_cropped" / "train", X, Y, SVHN)
    renamed = ["nine" if name == SVHN[9] else name for name in SVHN]
    write(tmp_path / "svhn_cropped" / "test", X, Y, renamed)
    for split in ("train", "test"):
        with pytest.raises(InputError, match=r"'nine'\]; rename"):
            load("svhn_cropped", split, tmp_path)
    (tmp_path / "svhn_cropped" / "test" / "nine").rename(
        tmp_path / "svhn_cropped" / "test" / SVHN[9]
    )
    np.testing.assert_array_equal(load("svhn_cropped", "test", tmp_path).y, Y)


def test_classes_of_other_names_are_refused_where_they_have_their_own(tmp_path):
    """Sorted, "plane" comes after "horse": all labels and cifar6's classes shift."""
    for split in ("train", "test"):
        renamed = ["plane" if name == "airplane" else name for name in CIFAR10]
        write(tmp_path / "mine" / "cifar10" / split, X, Y, renamed)
        write(tmp_path / "numbers" / "cifar10" / split, X, Y, "0123456789")
    told = r"'truck'\], expected the classes' numbers, 0 to 9, or their names, \['air"
    with pytest.raises(InputError, match=told):
        load("cifar10", "test", tmp_path / "mine")
    by_number = load("cifar10", "test", tmp_path / "numbers")
    np.testing.assert_array_equal(by_number.y, Y)
    assert by_number.classes == CIFAR10


def test_tfds_comes_first(nowhere, monkeypatch):
    write(nowhere / "fetched" / "svhn_cropped" / "test", X, Y, SVHN)
    assert "fetched" in load("svhn_cropped", "test").source
    monkeypatch.setattr(sources, "_reachable", lambda host: True)
    for name in ("cifar10", "svhn_cropped"):
        with tfds.testing.mock_data(num_examples=9):
            data = load(name, "test")
        assert data.source.startswith(f"tensorflow_datasets {name}/")
        assert (data.x.shape, data.x.dtype) == ((9, 32, 32, 3), np.uint8)


def test_nothing_found_says_what_mends_it(nowhere):
    with pytest.raises(InputError) as error:
        load("svhn_cropped", "test")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        *("data_dir, or --data-dir", "TensorFlow Datasets", "its own folder"),
    ]
    assert "ufldl.stanford.edu cannot be reached" in lines[2]
    assert lines[-1].endswith(f"{nowhere}/fetched/svhn_cropped/test/CLASS/")
    with pytest.raises(InputError, match=f"neither a folder {nowhere}/cifar10/train"):
        load("cifar10", "train", nowhere)
    # What it says is done.
    write(nowhere / "fetched" / "svhn_cropped" / "test", X, Y, SVHN)
    np.testing.assert_array_equal(load("svhn_cropped", "test").y, Y)


def test_colour_patches_do_not_overlap():
    patches = load("colour_patches", "test").x
    assert patches.shape == (2 * (427 // 32) * (640 // 32), 32, 32, 3)
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("flower.jpg").astype(np.float32) / 255
    second_row_third_column = patches[(427 // 32) * (640 // 32) + 20 + 2]
    np.testing.assert_array_equal(second_row_third_column, photo[32:64, 64:96])
