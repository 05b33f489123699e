"""What is said to be there is there, with its counts; and nothing is downloaded."""

import json
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from experiments.comparison.chosen import AUXILIARY
from fssd_jax import InputError
from fssd_jax.data import inventory, large_sets, sources, stored
from fssd_jax.data.benchmarks import HELD_OUT, OUTLIERS, TRAINED
from fssd_jax.data.imagenet_c import KINDS, LEVELS
from fssd_jax.data.inventory import command, find
from fssd_jax.data.needs import NEEDS, agrees
from tests.fssd_jax.test_sources import write


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """No set is here, and no network."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    without = {name: of._replace(debian=None) for name, of in sources.TFDS.items()}
    monkeypatch.setattr(sources, "TFDS", without)

    def refuse(*args, **kwargs):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def prepare(folder, **splits: int) -> None:
    """What TFDS leaves of a set that it has prepared."""
    folder.mkdir(parents=True)
    parts = [
        {"name": name, "shardLengths": [str(n // 2), str(n - n // 2)]}
        for name, n in splits.items()
    ]
    told = {"splits": parts, "fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(json.dumps(told))


def write_classes(folder, classes: int, each: int) -> None:
    for i in range(classes):
        at = folder / f"class{i}"
        at.mkdir(parents=True)
        for j in range(each):
            Image.new("L", (2, 2)).save(at / f"{j}.png")
        (at / "notes.txt").write_text("no image")


def test_a_count_agrees_with_what_is_printed():
    assert agrees(26_032, 26_032)
    assert not agrees(26_032, 26_031)
    assert agrees("26k", 26_032)
    assert not agrees("26k", 26_501)
    assert not agrees("26k", 25_499)
    assert agrees("1281.2k", 1_281_167)
    assert not agrees("1281.2k", 1_281_300)
    assert agrees("29", 29)
    assert not agrees("29", 28)


def test_every_benchmark_of_the_paper_and_ours_is_listed(capsys):
    assert list("ABCDEFG") == [name for name in NEEDS if len(name) == 1]
    assert command(["--list"]) == 0
    told = capsys.readouterr().out
    for name, benchmark in NEEDS.items():
        assert f"{name}: {benchmark.title}" in told
        for need in (*benchmark.needs, *benchmark.also):
            assert need.name in told
            assert need.get in told or need.name in sources.EMBEDDED


def test_what_is_missing_says_where_it_was_looked_for_and_how_to_get_it(
    tmp_path, capsys
):
    assert command(["--check", "G"]) == 1
    told = capsys.readouterr().out
    assert str(tmp_path / "tfds" / "genomics_ood") in told
    assert "genomics_ood.zip, unpacked" in told
    assert command(["--check", "c", "--data-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert str(tmp_path / "imagenet_dogs") in told
    assert "imagenet_dogs/SPLIT/CLASS" in told


def test_what_is_embedded_is_always_there(capsys):
    assert command(["--check", "digits"]) == 0
    assert "digits/train: 1,078, in scikit-learn" in capsys.readouterr().out


def test_prepared_sets_of_tfds_are_counted(tmp_path, capsys):
    tfds = tmp_path / "tfds"
    prepare(tfds / "genomics_ood" / "0.0.1", train=1_000_000, test=100_000, test_ood=9)
    assert command(["--check", "G"]) == 1
    told = capsys.readouterr().out
    assert "genomics_ood/train: 1,000,000 of 1,000,000, in" in told
    assert "genomics_ood/test: 100,000 of 100,000, in" in told
    assert "warning: genomics_ood/test_ood: 9 samples, expected 600,000" in told
    # The benchmark takes its validation reads from splits of their own.
    assert "genomics_ood/validation: not there" in told
    assert "genomics_ood/validation_ood: not there" in told
    assert "genomics_ood/train: 1,000,000 samples" not in told
    # Of what is not there, not of the test reads that were found at once.
    assert "genomics_ood: it has no split validation\n" in told
    assert f"where `fssd fetch` puts sets: {tmp_path}/fetched/genomics_ood" in told


def test_the_newest_version_is_counted(tmp_path, capsys):
    for version, count in (("5.1.0", 3), ("10.0.0", 1_000_000)):
        prepare(tmp_path / "tfds" / "genomics_ood" / version, train=count)
    command(["--check", "G"])
    assert "genomics_ood/train: 1,000,000 of 1,000,000" in capsys.readouterr().out


def test_a_damaged_description_is_told(tmp_path, capsys):
    prepare(tmp_path / "tfds" / "genomics_ood" / "0.0.1")
    (tmp_path / "tfds" / "genomics_ood" / "0.0.1" / "dataset_info.json").write_text("{")
    assert command(["--check", "G"]) == 1
    told = capsys.readouterr().out
    splits = "train", "validation", "test"
    assert ", ".join(f"genomics_ood/{s}" for s in splits) + ": not there" in told
    assert "genomics_ood: damaged (JSONDecodeError" in told


@pytest.mark.parametrize("name", ["test", "Testing"])
def test_class_folders_are_counted(tmp_path, name):
    dogs = NEEDS["C"].needs[0]
    write_classes(tmp_path / "imagenet_dogs" / name, classes=3, each=2)
    (tmp_path / "imagenet_dogs" / name / "empty").mkdir()
    found, _ = find(dogs, "test", tmp_path)
    assert (found.count, found.classes) == (6, 3)
    assert find(dogs, "train", tmp_path)[0] is None


def test_what_is_counted_is_what_is_loaded(tmp_path):
    """At any depth, without what a Mac adds, and in the split's folder only."""
    others, folder = NEEDS["C"].needs[1], tmp_path / "imagenet_non_dogs"
    write_classes(folder, classes=2, each=5)
    assert find(others, "test", tmp_path)[0] is None
    assert isinstance(large_sets.of_folder(folder, "test"), str)
    (folder / "test" / "far").mkdir(parents=True)
    for inner in [path for path in folder.iterdir() if path.name != "test"]:
        inner.rename(folder / "test" / "far" / inner.name)
    write_classes(folder / "test" / "near", classes=2, each=3)
    for name in ("far", ".cache"):
        (folder / "test" / name).mkdir(exist_ok=True)
        (folder / "test" / name / "._0.png").write_bytes(b"attributes")
    found, _ = find(others, "test", tmp_path)
    assert (found.count, found.classes) == (16, 2)
    assert len(large_sets.of_folder(folder, "test").y) == 16


def of_arrays(folder, **arrays):
    np.savez(folder / "test.npz", **arrays)


def renamed(folder, x):
    np.save(folder / "x.npy", x)
    (folder / "x.npy").rename(folder / "test.npz")


def broken_labels(folder, x):
    """Their stream is damaged, and the headers are whole."""
    y = np.random.default_rng(0).integers(0, 9, 4000)
    np.savez_compressed(folder / "test.npz", x=x[:1], y=y)
    whole = bytearray((folder / "test.npz").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 300] = b"\xff" * 300
    (folder / "test.npz").write_bytes(whole)


def of_folders(folder, x, names):
    for name, image in zip(names, x, strict=True):
        (folder / "test" / name).mkdir(parents=True)
        Image.fromarray(image.squeeze()).save(folder / "test" / name / "a.png")


def of_idx(folder, x):
    write(folder, "test", x.reshape(10, 28, -1), np.arange(10, dtype=np.uint8))


def locked(folder, x, monkeypatch):
    """As whoever is not root sees a folder of root's."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stored.Path, "exists", refuse)


LETTERS, NUMBERS = "abcdefghij", "0123456789"
LAID = {  # (set, what is there) → how many images there are, and whether they are read
    ("cifar10", "arrays"): (lambda f, x, _: of_arrays(f, x=x, y=range(10)), 10, True),
    ("mnist", "arrays"): (lambda f, x, _: of_arrays(f, x=x, y=range(10)), 10, True),
    ("cifar10", "folders"): (lambda f, x, _: of_folders(f, x, NUMBERS), 10, True),
    ("cifar10", "letters"): (lambda f, x, _: of_folders(f, x, LETTERS), 10, False),
    ("svhn_cropped", "folders"): (
        lambda f, x, _: of_folders(f, x, LETTERS), 10, True
    ),
    ("mnist", "folders"): (lambda f, x, _: of_folders(f, x, NUMBERS), 10, True),
    ("mnist", "letters"): (lambda f, x, _: of_folders(f, x, LETTERS), 10, False),
    ("cifar10", "nine"): (lambda f, x, _: of_folders(f, x[1:], LETTERS[1:]), 9, False),
    ("mnist", "IDX"): (lambda f, x, _: of_idx(f, x), 10, True),
    ("cifar10", "IDX"): (lambda f, x, _: of_idx(f, x[..., 0][:, :28, :28]), None, 0),
    ("cifar10", "CHW"): (
        lambda f, x, _: of_arrays(f, x=x.transpose(0, 3, 1, 2), y=range(10)), 0, False
    ),
    ("cifar10", "from 1"): (
        lambda f, x, _: of_arrays(f, x=x, y=range(1, 11)), 10, False
    ),
    ("cifar10", "empty"): (lambda f, x, _: (f / "test.npz").touch(), 0, False),
    ("mnist", "npy"): (lambda f, x, _: renamed(f, x), 10, False),
    ("mnist", "labels"): (lambda f, x, _: broken_labels(f, x), 0, False),
    ("cifar10", "locked"): (locked, 0, False),
}  # fmt: skip


@pytest.mark.parametrize(("name", "what"), LAID)
def test_what_is_found_is_what_is_loaded(tmp_path, monkeypatch, capsys, name, what):
    need = next(n for b in NEEDS.values() for n in b.needs if n.name == name)
    lay, count, loads = LAID[name, what]
    (tmp_path / name).mkdir()
    shape = (10, 28, 28, 1) if name == "mnist" else (10, 32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    lay(tmp_path / name, images, monkeypatch)
    found, _ = find(need, "test", tmp_path)
    assert (found and found.count) == count
    assert bool(found and not found.wrong) == loads
    if loads:
        assert len(sources.load(name, "test", tmp_path).x) == count
    else:
        with pytest.raises(InputError) as error:
            sources.load(name, "test", tmp_path)
        if found:
            assert str(error.value) in found.wrong[0]
    assert command(["--list", "--data-dir", str(tmp_path)]) == 0
    assert f"{name}/test: " in capsys.readouterr().out or not found


def test_what_is_prepared_in_a_form_that_is_not_read_is_passed_over(tmp_path, capsys):
    """`tfds build` alone makes files that have no numbers; the loader goes on, too."""
    cifar = NEEDS["B"].needs[0]
    prepare(tmp_path / "tfds" / "cifar10" / "3.0.2", test=10)
    info = tmp_path / "tfds" / "cifar10" / "3.0.2" / "dataset_info.json"
    told = json.loads(info.read_text())
    for kept, count in (("tfrecord", None), ("array_record", 10)):
        info.write_text(json.dumps(told | {"fileFormat": kept}))
        found, looked = find(cifar, "test")
        assert (found and found.count) == count
    info.write_text(json.dumps({"splits": told["splits"]}))  # as TFDS once did
    assert find(cifar, "test")[0] is None
    info.write_text(json.dumps(told | {"fileFormat": "tfrecord"}))
    _, looked = find(cifar, "test")
    assert "prepared as tfrecord; remove it, and then `tfds build cifar10 " in looked[1]
    (tmp_path / "fetched" / "cifar10").mkdir(parents=True)
    images = np.zeros((10, 32, 32, 3), np.uint8)
    of_arrays(tmp_path / "fetched" / "cifar10", x=images, y=range(10))
    assert find(cifar, "test")[0].count == 10


def test_a_folder_that_is_given_is_the_only_one_as_the_advice_says(tmp_path, capsys):
    for name in ("cifar10", "genomes"):
        assert command(["--check", name, "--data-dir", str(tmp_path / "a")]) == 1
        told = capsys.readouterr().out
        assert "To get it: without --data-dir, `" in told
        assert "tfds:" not in told
        assert "where `fssd fetch`" not in told


def test_idx_files_are_counted(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    head = (0x803).to_bytes(4, "big") + (4).to_bytes(4, "big")
    sides = (2).to_bytes(4, "big") * 2
    (folder / "t10k-images-idx3-ubyte").write_bytes(head + sides + bytes(16))
    head = (0x801).to_bytes(4, "big") + (4).to_bytes(4, "big")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(head + bytes([0, 1, 1, 5]))
    mnist = NEEDS["A"].needs[1]
    for data_dir in (tmp_path, folder):  # beside others, or by itself
        found, _ = find(mnist, "test", data_dir)
        assert (found.count, found.classes) == (4, 3)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(head)
    assert "truncated" in find(mnist, "test", tmp_path)[0].wrong[0]


@pytest.mark.parametrize("place", ["folders", "tfds"])
def test_imagenet_c_is_eighty_sets(tmp_path, capsys, monkeypatch, place):
    need = NEEDS["D"].needs[1]._replace(counts={"validation": 2})
    monkeypatch.setattr(inventory, "KINDS", KINDS[:2])
    for kind in KINDS[:2]:
        for level in LEVELS:
            if place == "tfds":
                folder = tmp_path / "tfds" / "imagenet2012_corrupted"
                prepare(folder / f"{kind}_{level}" / "3.1.0", validation=2)
            else:
                folder = tmp_path / "imagenet_c" / "noise" / kind / str(level)
                write_classes(folder, classes=2, each=1)
    data_dir = tmp_path if place == "folders" else None
    found, _ = find(need, "validation", data_dir)
    assert (found.count, found.wrong) == (2, ())
    assert "in 10 of 10 kinds and levels" in found.told
    monkeypatch.setattr(inventory, "KINDS", KINDS[:3])
    found, _ = find(need, "validation", data_dir)
    assert found.wrong == ("10 kinds and levels, expected 15",)
    if place == "folders":
        shutil.rmtree(folder)
        folder.mkdir()
        found, _ = find(need, "validation", data_dir)
        told = f"{folder}: there is nothing in it"
        assert found.wrong == (told, "9 kinds and levels, expected 15")


def test_genomes_are_strains_of_species(tmp_path, capsys):
    for number, species in enumerate((*TRAINED, *HELD_OUT)):
        folder = tmp_path / "fetched" / "genomes" / species
        folder.mkdir(parents=True)
        for strain in range(4 - (number < 3)):
            (folder / f"strain_{strain}.fna.gz").touch()
    assert command(["--check", "genomes"]) == 0
    assert "genomes: 29 of 29, 8 classes" in capsys.readouterr().out
    folder.rename(folder.with_name("Another_one"))
    assert command(["--check", "genomes"]) == 1
    assert f"no folders ['{HELD_OUT[-1]}']" in capsys.readouterr().out


def test_an_unknown_name_lists_the_known_ones(capsys):
    assert command(["--check", "H"]) == 2
    assert "choose from A, B" in capsys.readouterr().err


def test_sets_for_outlier_exposure_are_shown_and_not_asked_for(tmp_path, capsys):
    glyphs = tmp_path / "fetched" / "cns_glyphs"
    glyphs.mkdir(parents=True)
    np.savez(glyphs / "glyphs.npz", x=np.zeros((3, 28, 28, 1), np.uint8))
    for name, split, count in (("fashion_mnist", "train", 6), ("mnist", "test", 1)):
        (tmp_path / "fetched" / name).mkdir()
        for part in {split, "test"}:
            y = np.arange(10 * count)
            x = np.zeros((len(y), 28, 28, 1), np.uint8)
            np.savez(tmp_path / "fetched" / name / f"{part}.npz", x=x, y=y % 10)
    command(["--check", "A"])
    told = capsys.readouterr().out
    assert "for Outlier Exposure: kmnist/train: not there" in told
    assert "cns_glyphs/train: cannot be used" in told
    assert "warning: fashion_mnist/train: 60 samples, expected 60,000" in told


def test_what_is_optional_leaves_the_status_alone(monkeypatch, capsys):
    digits, fmnist = NEEDS["digits"], NEEDS["A"]
    monkeypatch.setitem(NEEDS, "digits", digits._replace(also=fmnist.also))
    assert command(["--check", "digits"]) == 0
    assert "kmnist/train: not there" in capsys.readouterr().out


def test_the_auxiliary_sets_are_those_that_experiments_take():
    runs = {of.runs: {n.name for n in of.also} for of in NEEDS.values()}
    for name, of in AUXILIARY.items():
        assert of in runs[name]
    for name in ("fmnist", "fmnist6"):
        assert runs[name] == set(OUTLIERS)
