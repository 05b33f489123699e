"""What is counted of class folders, and of what a benchmark draws of them."""

import pytest

from fssd_jax.data import imagenet
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.inventory import command, find
from fssd_jax.data.needs import NEEDS
from tests import large_files

SMALL = 64, 72


@pytest.fixture
def few_dogs(tmp_path, monkeypatch):
    """Of four breeds three images to train on and two to test on, as in Table 1."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    monkeypatch.setattr(imagenet, "PER_BREED", (3, 2))
    monkeypatch.setattr(imagenet, "DOGS", (*imagenet.DOGS[:3], imagenet.DOGS[49]))
    dogs, others = NEEDS["C"].needs
    classes = dict.fromkeys(("train", "test"), 4)
    of = NEEDS["C"]._replace(
        needs=(
            dogs._replace(counts={"train": 12, "test": 8}, classes=classes),
            others._replace(counts={"test": 9}),
        ),
        instead=NEEDS["C"].instead._replace(
            counts={"train": None, "validation": None}, classes={}
        ),
    )
    monkeypatch.setitem(NEEDS, "C", of)
    return ["--check", "C", "--data-dir", str(tmp_path)]


def test_what_is_drawn_of_imagenet_is_counted(few_dogs, tmp_path, capsys):
    assert command(few_dogs) == 1
    assert "draws" not in capsys.readouterr().out  # of nothing
    large_files.imagenet(tmp_path, (5, 3), size=SMALL)
    assert command(few_dogs) == 0
    found = load_benchmark("dogs", tmp_path)
    told = capsys.readouterr().out
    for name, data in (
        ("dogs/train", found.train),
        ("dogs/test", found.test),
        ("non_dogs/test", found.ood["dogs"]),
    ):
        assert f"imagenet_{name}: {len(data.x)} of {len(data.x)}" in told
    # Of a breed with fewer images there are fewer to train on.
    (tmp_path / "imagenet2012" / "train" / imagenet.DOGS[1] / "00000.JPEG").unlink()
    assert command(few_dogs) == 1
    told = capsys.readouterr().out
    assert told.count("warning") == 1
    assert "warning: imagenet_dogs/train: 11 samples, expected 12" in told
    assert len(load_benchmark("dogs", tmp_path).train.x) == 11
    assert command(["--list", *few_dogs[2:]]) == 0  # all labels are not read for it
    assert "draws" not in capsys.readouterr().out


def test_what_cannot_be_drawn_of_imagenet_says_why(few_dogs, tmp_path, capsys):
    large_files.imagenet(tmp_path, (5, 3), large_files.SYNSETS[:3], SMALL)
    assert command(few_dogs) == 1
    told = capsys.readouterr().out
    assert "warning: they cannot be used" in told
    assert f"has no class {imagenet.DOGS[2]}" in told


def test_images_without_class_folders_have_no_classes(tmp_path, capsys):
    large_files.ms1m(tmp_path)
    ms1m, ijb_c = NEEDS["F"].needs
    assert find(ms1m, "train", tmp_path)[0].classes == 3
    assert find(ijb_c, "test", tmp_path)[0]._replace(where="") == ("", 9, None, "", ())
    command(["--check", "F", "--data-dir", str(tmp_path)])
    assert "ijb_c/test: 9 of 50k, in" in capsys.readouterr().out


def test_images_without_class_folders_are_told_where_classes_are_needed(tmp_path):
    large_files.jpegs(tmp_path / "imagenet2012" / "val", 2, SMALL, 0)
    whole = NEEDS["D"].needs[0]
    (told,) = find(whole, "validation", tmp_path)[0].wrong
    assert "without folders of their classes" in told


@pytest.mark.parametrize("name", NEEDS)
def test_commands_alone_get_sets_to_where_a_given_folder_is_not(name, tmp_path, capsys):
    command(["--check", name, "--data-dir", str(tmp_path / "none")])
    ways = [
        line for line in capsys.readouterr().out.splitlines() if "To get it" in line
    ]
    assert ways or name == "digits"
    for way in ways:
        before = way.partition("`")[0]
        assert before.endswith("without --data-dir, ") == ("`" in way)
        assert "without --data-dir" not in before.removesuffix("without --data-dir, ")
    if name == "F":
        assert "    To get it: on request from NIST" in ways
