"""The paper's C to G in small sets of the real layouts: which images, which labels."""

import shutil

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data import imagenet, inventory
from fssd_jax.data.benchmarks import load_benchmark, validation_and_test
from fssd_jax.data.genomics import FILES
from fssd_jax.data.large_sets import find
from tests import large_files
from tests.large_files import SYNSETS

DOGS = imagenet.DOGS
SMALL = 64, 72  # pixels: the tests of crops have large ones


def names(data):
    """The folder that each image lies in."""
    return [data.x.source.files[i].parent.name for i in data.x.numbers]


def files(data):
    return {data.x.source.files[i] for i in data.x.numbers}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(imagenet, "PER_BREED", (3, 2))
    monkeypatch.setattr(imagenet, "DOGS", (*DOGS[:3], DOGS[49]))
    return imagenet.DOGS


def test_the_breeds_of_imagenet_are_118_classes_in_a_row():
    path = tfds.core.tfds_path() / "datasets/imagenet2012/labels.txt"
    labels = path.read_text().split()
    breeds = [s for s in labels if imagenet.BREEDS[0] <= s <= imagenet.BREEDS[1]]
    assert (len(breeds), labels.index(breeds[0]), labels.index(breeds[-1])) == (
        *(118, 151),
        268,
    )
    assert tuple(breeds[:50]) == DOGS


def test_dogs_are_divided_and_labelled_by_their_synsets(few, tmp_path):
    large_files.imagenet(tmp_path, (6, 3), size=SMALL)
    found = load_benchmark("dogs", tmp_path)
    for data, count in ((found.train, 3), (found.test, 2)):
        assert [few[label] for label in data.y] == names(data)
        assert np.bincount(data.y).tolist() == [count] * 4
        assert {file.parts[-3] for file in files(data)} == {"train"}
    assert not files(found.train) & files(found.test)
    # Other breeds are neither; of what is no dog, all of the validation images.
    assert sorted(names(found.ood["dogs"])) == sorted(
        ["n01440764", "n02114367", "n15075141"] * 3
    )
    assert {file.parts[-3] for file in files(found.ood["dogs"])} == {"val"}
    assert found.num_classes == 4
    assert found.paper is not None


def test_which_images_are_trained_on_is_drawn():
    train, test = imagenet.divided(np.zeros(1300, int), [0])
    assert max(test) > 1000
    assert min(train) < 200


def test_of_a_class_that_has_few_images_fewer_are_trained_on():
    y = np.repeat([0, 1], [1150, 2000])
    train, test = imagenet.divided(y, [1, 0])
    assert [np.sum(y[train] == c) for c in (0, 1)] == [950, 1000]
    assert [np.sum(y[test] == c) for c in (0, 1)] == [200, 200]
    assert not set(train) & set(test)
    again = imagenet.divided(np.concatenate([y, [2] * 50]), [0, 1, 2])
    assert set(train) == set(again[0])  # other classes change nothing


def test_dogs_of_ones_own(tmp_path):
    for split in ("train", "test"):
        for i, name in enumerate(("beagle", "pug")):
            folder = tmp_path / "imagenet_dogs" / split / name
            large_files.jpegs(folder, 4, SMALL, i)
    large_files.jpegs(tmp_path / "imagenet_non_dogs" / "test", 3, SMALL, 9)
    found = load_benchmark("dogs", tmp_path)
    assert (found.num_classes, len(found.train.x), len(found.ood["dogs"].x)) == (
        2,
        8,
        3,
    )
    assert found.paper is None  # of other dogs than the paper's
    (tmp_path / "imagenet_dogs" / "test" / "pug").rename(
        tmp_path / "imagenet_dogs" / "test" / "cat"
    )
    with pytest.raises(InputError, match=r"1 classes, such as 'pug', are in .*train"):
        load_benchmark("dogs", tmp_path)


def test_imagenet_against_each_corruption_that_is_there(tmp_path):
    some = SYNSETS[:3]
    large_files.imagenet(tmp_path, (2, 1), some, SMALL)
    with pytest.raises(InputError, match="no corrupted images: no folder"):
        load_benchmark("imagenet", tmp_path)
    large_files.imagenet_c(tmp_path, ("fog", "snow"), (2,), 1, some)
    (tmp_path / "imagenet_c" / "weather").mkdir()
    (tmp_path / "imagenet_c" / "snow").rename(tmp_path / "imagenet_c/weather/snow")
    found = load_benchmark("imagenet", tmp_path)
    assert list(found.ood) == ["imagenet_snow_2", "imagenet_fog_2"]
    assert found.missing["imagenet_c"].startswith("78 kinds and levels are not there")
    assert names(found.test) == list(some)
    corrupted = found.ood["imagenet_fog_2"].x
    with Image.open(corrupted.source.files[1]) as image:
        np.testing.assert_array_equal(corrupted[1], np.asarray(image)[:224, :224])
    assert inventory.command(["--check", "D", "--data-dir", str(tmp_path)]) == 1


def test_images_are_cut_as_torchvision_does(tmp_path):
    """The shorter side 256, and of that the 224 in the middle."""
    some = SYNSETS[:2]
    large_files.imagenet(tmp_path, (1, 1), some, (300, 400))
    large_files.imagenet_c(tmp_path, ("fog",), (1,), 1, some)
    test = load_benchmark("imagenet", tmp_path).test
    with Image.open(test.x.source.files[0]) as image:
        whole = image.resize((341, 256), Image.Resampling.BILINEAR)
    left = round((341 - 224) / 2)
    expected = np.asarray(whole)[16:240, left : left + 224]
    np.testing.assert_array_equal(test.x[0], expected)


def test_changed_images_are_another_set(tmp_path):
    """Of the same names: another kind, or the same file with another content."""
    some = SYNSETS[:2]
    large_files.imagenet(tmp_path, (1, 1), some, SMALL)
    large_files.imagenet_c(tmp_path, ("fog", "snow"), (1, 2), 1, some)

    def digests():
        found = load_benchmark("imagenet", tmp_path)
        return [data.sha256 for data in (found.test, *found.ood.values())]

    before = digests()
    assert len(set(before[:1] + before[1::2])) == 3
    path = tmp_path / "imagenet_c/fog/1" / some[0] / "00000.JPEG"
    with Image.open(path) as image:
        image.point(lambda value: value // 8).save(path)
    changed = [a != b for a, b in zip(before, digests(), strict=True)]
    assert sum(changed) == 1


def test_the_same_folder_twice_is_told(tmp_path):
    large_files.ms1m(tmp_path)
    (tmp_path / "ijb_c").rename(tmp_path / "others")
    (tmp_path / "ijb_c").symlink_to(tmp_path / "ms1m")
    with pytest.raises(InputError, match="the same images were found for it"):
        load_benchmark("ms1m", tmp_path)


def test_flat_validation_images_and_empty_folders(tmp_path):
    large_files.imagenet(tmp_path, (1, 1), SYNSETS[:2], SMALL)
    (tmp_path / "imagenet2012" / "validation").mkdir()
    assert find("imagenet2012", "validation", tmp_path).names == SYNSETS[:2]
    large_files.jpegs(tmp_path / "imagenet2012" / "validation", 2, SMALL, 0)
    with pytest.raises(InputError, match="without folders of their classes"):
        load_benchmark("imagenet", tmp_path)


def test_validation_of_twins_is_of_the_same_scenes(tmp_path):
    """None of ImageNet-C's is a changed image that is tested."""
    some = SYNSETS[:4]
    large_files.imagenet(tmp_path, (1, 10), some, SMALL)
    large_files.imagenet_c(tmp_path, ("fog",), (1,), 10, some)
    found = load_benchmark("imagenet", tmp_path)
    assert found.twins
    key = jax.random.key(3)
    sets = [
        [data.x.source.files[i].parts[-2:] for i in data.x.numbers]
        for pair in (None, "imagenet_fog_1")
        for data in validation_and_test(found, pair, 9, key)
    ]
    assert sets[0] == sets[2]
    assert sets[1] == sets[3]


@pytest.mark.parametrize("emptied", ["fog/3", f"fog/3/{SYNSETS[0]}"])
def test_an_empty_level_does_not_stop_the_others(tmp_path, emptied):
    large_files.imagenet(tmp_path, (1, 10), SYNSETS[:2], SMALL)
    large_files.imagenet_c(tmp_path, ("fog",), (1, 3), 10, SYNSETS[:2])
    folder = tmp_path / "imagenet_c" / emptied
    shutil.rmtree(folder)
    folder.mkdir()
    found = load_benchmark("imagenet", tmp_path)
    assert list(found.ood) == ["imagenet_fog_1"]
    told = found.missing["imagenet_fog_3"]
    assert "imagenet_c/fog/3: no image" in told
    assert folder.name in told
    assert found.missing["imagenet_c"].startswith("78 kinds and levels are not there")


@pytest.mark.parametrize("less", [True, False])
def test_a_level_of_other_scenes_is_passed_over(tmp_path, less):
    """Row by row it would be compared with other images than its own."""
    some = SYNSETS[:2]
    large_files.imagenet(tmp_path, (1, 10), some, SMALL)
    large_files.imagenet_c(tmp_path, ("fog",), (1, 3), 10, some)
    of_fog = tmp_path / "imagenet_c" / "fog" / "3" / some[0]
    if less:
        (of_fog / "00007.JPEG").unlink()
        told = f"lacks 1 scenes, such as {some[0]}/00007"
    else:
        shutil.copy(of_fog / "00007.JPEG", of_fog / "more.JPEG")
        told = f"has beside the validation set's 1 scenes, such as {some[0]}/more"
    found = load_benchmark("imagenet", tmp_path)
    assert list(found.ood) == ["imagenet_fog_1"]
    assert told in found.missing["imagenet_fog_3"]
    assert found.missing["imagenet_c"].startswith("78 kinds and levels are not there")


def test_nothing_there_names_the_folder_and_what_tells_more(tmp_path):
    with pytest.raises(InputError, match=f"no folder {tmp_path}/imagenet2012/train"):
        load_benchmark("imagenet", tmp_path)


# ---- reads --------------------------------------------------------------------------


def test_validation_reads_are_drawn(tmp_path):
    counts = dict.fromkeys(("validation", "validation_ood"), 40)
    large_files.genomics(tmp_path, counts, length=30)
    found = load_benchmark("genomics", tmp_path)
    drawn = [
        validation_and_test(found, None, 9, jax.random.key(k))[0].x for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], (found.held or {})["test"].x[:9])


def test_genomics_as_published(tmp_path):
    large_files.genomics(tmp_path, length=30)
    found = load_benchmark("genomics", tmp_path)
    held = found.held or {}
    for split, data in (
        ("train", found.train),
        ("test", found.test),
        ("test_ood", found.ood["genomics"]),
        ("validation", held["test"]),
        ("validation_ood", held["genomics"]),
    ):
        lines = (tmp_path / "genomics_ood" / FILES[split]).read_text().splitlines()
        reads, genera = zip(*(line.split("\t")[:2] for line in lines[1:]), strict=True)
        assert ["".join("ACGT"[c] for c in row) for row in data.x] == list(reads)
        if "ood" not in split:
            assert [f"Genus{label}" for label in data.y] == list(genera)
    assert (found.num_classes, found.symbols) == (4, 4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: t.replace("ACGT", "AC-T").replace("AA", "AN", 1),
            "read 0: expected",
        ),
        (lambda t: t.replace("seq\t", "sequence\t"), "names no column {'seq'}"),
        (lambda t: t.splitlines()[0], "holds no read"),
        (lambda t: t[:-80], "expected 30 letters of ACGT and a class"),
        (lambda t: t.replace("Genus1", "Genus9"), r"not trained on, \['Genus9'\]"),
    ],
)
def test_a_damaged_table_of_reads(tmp_path, change, told):
    large_files.genomics(tmp_path, length=30)
    path = tmp_path / "genomics_ood" / FILES["test"]
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=told):
        load_benchmark("genomics", tmp_path)


def rows(table: bytes) -> bytes:
    return table.partition(b"\n")[2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: b.replace(b"Genus2", b"G\xe9nus2"), "after line 0 .*invalid"),
        (lambda b: b.decode().encode("utf-16"), "after line 0 .*invalid start byte"),
        # Text is decoded a block at a time.
        (lambda b: b + rows(b) * 99 + b"\xe9", r"after line \d{3} .*unexpected end"),
        (lambda b: b + b'"' + rows(b) * 999, r"after line \d+ .*field larger"),
    ],
)
def test_a_table_of_reads_that_is_no_text(tmp_path, change, told):
    large_files.genomics(tmp_path, length=30)
    path = tmp_path / "genomics_ood" / FILES["train"]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path}: {told}"):
        load_benchmark("genomics", tmp_path)
