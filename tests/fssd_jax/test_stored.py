"""Grey sets in all the layouts that a folder may have; those in colour elsewhere."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from fssd_jax import InputError
from fssd_jax.data import inventory, load, sources, stored
from tests.fssd_jax.test_sources import X, Y, write


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "from_tfds", lambda name, split: "none")
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    return tmp_path


def test_grey_sets_are_read_of_arrays_and_of_class_folders_too(nowhere):
    order = np.argsort(Y, kind="stable")
    for x, y in ((X, Y), (255 - X, Y)):
        for image, label, i in zip(x, y, range(12), strict=True):
            place = nowhere / "fetched" / "mnist" / "test" / str(label) / f"{i:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
        data = load("mnist", "test")
        np.testing.assert_array_equal(data.x[..., 0], x[order])
        np.testing.assert_array_equal(data.y, y[order])
    # Arrays are read faster, and IDX files come first.
    np.savez(nowhere / "fetched" / "mnist" / "test.npz", x=X // 2, y=Y)
    np.testing.assert_array_equal(load("mnist", "test").x[..., 0], X // 2)
    write(nowhere / "fetched" / "mnist", "test", x=X // 3)
    np.testing.assert_array_equal(load("mnist", "test").x[..., 0], X // 3)
    # What lies in no folder of its name might be any set.
    np.savez(nowhere / "train.npz", x=X, y=Y)
    with pytest.raises(InputError, match=f"no IDX files of split train in {nowhere}; "):
        load("mnist", "train", nowhere)


def test_class_folders_of_grey_sets_have_the_classes_numbers(tmp_path):
    """Sorted, the names of FashionMNIST's classes are not in their numbers' order."""
    for i in range(10):
        folder = tmp_path / "fashion_mnist" / "train" / f"class{i}"
        folder.mkdir(parents=True)
        Image.fromarray(X[i]).save(folder / "a.png")
    with pytest.raises(InputError, match=r"class0.*expected the classes' numbers, 0 "):
        load("fashion_mnist", "train", tmp_path)
    for i in range(10):
        folder.with_name(f"class{i}").rename(folder.with_name(str(i)))
    np.testing.assert_array_equal(
        load("fashion_mnist", "train", tmp_path).x[..., 0], X[:10]
    )


def test_one_set_does_not_stand_in_for_another(nowhere, monkeypatch, capsys):
    """Their IDX files have the same names; which they are their labels tell."""
    which = hashlib.sha256(np.uint8(Y).tobytes()).hexdigest()
    monkeypatch.setitem(stored.LABELS, which, "mnist")
    for folder in (nowhere, nowhere / "fashion_mnist"):
        write(folder, "test")
        told = f"{folder}: holds mnist, where fashion_mnist is wanted; put each set"
        with pytest.raises(InputError, match=told):
            load("fashion_mnist", "test", nowhere)
        assert inventory.command(["--check", "fmnist6", "--data-dir", str(nowhere)])
        assert f"cannot be used: {told}" in capsys.readouterr().out
    assert len(load("mnist", "test", nowhere).x) == len(X)
