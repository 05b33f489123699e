"""Folders as they are found: splits, links, and what is passed over."""

import gzip
import os
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fssd_jax import InputError
from fssd_jax.data import folders, image_files, split_names

load = partial(folders.load_images, size=4, channels=1, progress=False)
stream = partial(folders.stream_images, size=4, channels=1)
both = pytest.mark.parametrize("read", [load, stream], ids=["load", "stream"])


def save(path, format="png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, format=format)


def make(folder, names, others=""):
    for name in names.split():
        save(folder / name)
    for name in others.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no image, but some words")
    return folder


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", "train TRAIN Training train2017 train_images images-train trainset "
                  "training_set trainA trainval"),
        ("test", "test Test TESTING test1 test-data testB"),
        ("val", "val Valid validation Dev development eval Evaluation holdout Hold-Out "
                "held_out heldout"),
        (None, "cat trainer training_shoe Testarossa valley device set data trains a 1 "
               "dev_anagari Val_Kilmer contest retrain traina"),
    ],
)  # fmt: skip
def test_folders_that_are_splits_by_name(kind, names):
    assert {name: split_names.split_of(name) for name in names.split()} == {
        name: kind for name in names.split()
    }


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("seg_train seg_test seg_pred_val seg_pred", "seg_train seg_test"),
        ("seg_train seg_test", "seg_train seg_test"),
        ("ILSVRC2012_img_train ILSVRC2012_img_val", "ILSVRC2012_img_train "
         "ILSVRC2012_img_val"),
        ("steam_train toy_train station", ""),
        ("steam_train toy_test", ""),
        ("test_train a", ""),
        ("MyTrain MyTest YourTest", "MyTrain MyTest"),
        ("猫_train 犬_test", ""),
        ("cifar10-Test cifar10-Dev", "cifar10-Test cifar10-Dev"),
        ("a_train", ""),
        ("train a_test b", "train"),
    ],
)  # fmt: skip
def test_folders_that_are_splits_by_what_they_have_in_common(names, splits):
    assert split_names.splits_among(set(names.split())).keys() == set(splits.split())


@both
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("Train/a/0 Test/a/0", r"holds \['Test', 'Train'\]; give one of these"),
        ("TRAINING/0 validation/0", "give one of these"),
        ("seg_train/a/0 seg_test/a/0", "give one of these"),
        ("seg_train/a/0 seg_test/a/0 seg_pred/0", r"beside \['seg_pred'\]"),
        ("a/a_train/0 a/a_test/0 b/0", "which would be read as one class"),
        ("dev/a/0 holdout/a/0 train/a/0", "give one of these"),
        ("x/Train/a/0 x/Test/a/0", r"x: holds \['Test', 'Train'\]; give one of these"),
        ("train/a/0 train/b/0", "all images lie below .*train, so that all would be"),
        ("Images/a/0 Images/b/0", "all images lie below .*Images, so that"),
        ("train/a/0 a/0 b/0", r"holds \['train'\] beside \['a', 'b'\]"),
        ("test/0 a/0 b/0", r"holds \['test'\] beside \['a', 'b'\]"),
        ("train/0 test/0 a/0", r"holds \['test', 'train'\] beside \['a'\]"),
        ("a/train/0 a/test/0 b/train/0", r"a: holds \['test', 'train'\], which would"),
        ("x/train/a/0 x/val/a/0 y/0", r"x: holds \['train', 'val'\], which would"),
    ],
)
def test_training_and_test_images_are_not_one_set(tmp_path, read, names, words):
    make(tmp_path, " ".join(f"{name}.png" for name in names.split()))
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_the_advice_about_splits_can_be_followed(tmp_path):
    make(tmp_path, "x/Train/a/0.png x/Train/b/0.png x/Test/a/0.png x/Test/b/0.png")
    assert load(tmp_path / "x" / "Train").y.tolist() == [0, 1]
    make(tmp_path / "one", "train/a/0.png train/b/0.png")
    assert load(tmp_path / "one" / "train").y.tolist() == [0, 1]


@both
def test_one_set_whatever_its_folder_is_called(tmp_path, read):
    make(tmp_path, "train/0.png train/1.png")
    assert read(tmp_path).y.tolist() == read(tmp_path / "train").y.tolist() == [0, 0]
    make(tmp_path / "classes", "a/deep/0.png a/other/0.png b/train/0.png")
    assert read(tmp_path / "classes").y.tolist() == [0, 0, 1]


@both
def test_a_train_among_vehicles_is_a_class_and_told(tmp_path, read):
    make(tmp_path, "bus/0.png train/0.png truck/0.png")
    with pytest.warns(UserWarning, match=r"\['train'\] is taken for a class"):
        assert read(tmp_path).y.tolist() == [0, 1, 2]


@both
def test_what_is_not_read_is_counted_by_ending(tmp_path, read):
    make(
        tmp_path,
        "a/0.PNG b/0.JPEG b/1.jfif",
        ".DS_Store a/.DS_Store a/._0.png Thumbs.db __MACOSX/a/0.png README "
        "labels/0.xml a/0.txt b/0.TXT b/list.csv",
    )
    found = read(tmp_path)
    assert found.y.tolist() == [0, 1, 1]
    told = "3 images (not read: 5 hidden, 2 .txt, 1 .csv, 1 .xml, 1 without ending)"
    assert told in found.source
    for i in range(9):
        (tmp_path / "a" / f"0.{i}").write_text("")
    assert ", 8 others)" in read(tmp_path).source
    assert "not read" not in read(make(tmp_path / "c", "a.png")).source


@both
def test_images_that_are_not_read_are_warned_of_or_refused(tmp_path, read):
    make(tmp_path, "a/0.png b/0.png b/1.png")
    for name, format in (("000123", "png"), ("x.jpg_large", "jpeg")):
        save(tmp_path / "a" / name, format)
        with pytest.warns(
            UserWarning, match=r"1 images \((without|\.jpg_l).* not read"
        ):
            assert len(read(tmp_path).y) == 3
        (tmp_path / "a" / name).unlink()
    make(tmp_path, "", "a/0.heic a/1.HEIC b/x.jp2")
    with pytest.warns(UserWarning, match=r"3 images \(\.heic, \.jp2\) are not read"):
        assert "(not read: 2 .heic, 1 .jp2)" in read(tmp_path).source
    make(tmp_path, "", "a/2.avif")
    with pytest.raises(InputError, match=r"4 images .* beside 3 that are; convert"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"no images in it; .*there are 2 \.txt"):
        read(make(tmp_path / "words", "", "a.txt b.txt"))
    # Words that begin as a bitmap's do.
    (tmp_path / "words" / "a.txt").write_text("BM25 ranks documents")
    assert len(read(make(tmp_path / "words", "a.png")).y) == 1


@both
def test_a_class_without_images_is_told(tmp_path, read):
    """Whether it has a number decides those of the classes after it."""
    make(tmp_path, "a/0.png c/0.png", "annotations/0.xml")
    assert read(tmp_path).y.tolist() == [0, 1]
    for others in ("", "b/.DS_Store", "b/0.heic b/0.txt"):
        (tmp_path / "b").mkdir(exist_ok=True)
        make(tmp_path, "", others)
        with pytest.raises(InputError, match=r"lies in the folders \['b'\]; if they"):
            read(tmp_path)


@both
def test_a_link_to_what_is_there_already(tmp_path, read):
    outside = tmp_path / "outside.png"
    save(outside)
    for name, target, words in (
        ("b/1.png", "a/0.png", r"b/1\.png is .*a/0\.png once more"),
        ("0", "a", r"root/0 is .*root/a once more"),
        ("a/all", ".", r"a/all is .*root once more"),
        ("a/b", "b", "once more"),
        ("a/1.png", "nowhere.png", r"1\.png: is no file, but a link to nothing"),
        ("c", "nowhere", r"root/c: is no file, but a link to nothing"),
        ("c", "c", r"root/c: is no file, but a link to nothing"),
    ):
        root = make(tmp_path / "root", "a/0.png b/0.png")
        (root / name).symlink_to(root / target)
        with pytest.raises(InputError, match=words):
            read(root)
        (root / name).unlink()
    (root / "a" / "1.png").symlink_to(outside)
    assert read(root).y.tolist() == [0, 0, 1]
    (root / "b" / "1.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"1\.png once more, by a link; remove"):
        read(root)
    (root / "b" / "1.png").unlink()
    os.link(root / "a" / "0.png", root / "b" / "1.png")  # hard: none is the link
    assert read(root).y.tolist() == [0, 0, 1, 1]


@both
def test_paths_that_are_no_folder(tmp_path, read, monkeypatch):
    make(tmp_path, "home/pictures/0.png", "file.txt")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert read("~/pictures").source == read(tmp_path / "home/pictures").source
    with zipfile.ZipFile(tmp_path / "home" / "a.dat", "w") as file:
        file.writestr("0.png", b"")
    with pytest.raises(InputError, match=r"a\.dat: is an archive; unpack it"):
        read("~/a.dat")
    (tmp_path / "cut.tgz").write_bytes(gzip.compress(b"tar")[:12])
    with pytest.raises(InputError, match=r"cut\.tgz: is one file; give a folder"):
        read(tmp_path / "cut.tgz")
    with pytest.raises(InputError, match=r"file\.txt: is one file; give a folder"):
        read(tmp_path / "file.txt")
    with pytest.raises(InputError, match="give the whole path"):
        read("~nobody-of-this-name/pictures")
    (tmp_path / "home" / "a.dat").rename(tmp_path / "home" / "pictures" / "0.zip")
    (tmp_path / "home" / "pictures" / "0.png").unlink()
    with pytest.raises(InputError, match=r"there are 1 \.zip; unpack the archives"):
        read("~/pictures")


def test_a_folder_whose_name_begins_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "~odd" / "0.png")
    assert image_files.located("~odd") == tmp_path / "~odd"
