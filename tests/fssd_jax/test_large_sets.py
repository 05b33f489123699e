"""Sets that TFDS has prepared, read by number."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data import inventory
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.faces import Joined, celeba_images
from fssd_jax.data.genomics import FILES
from fssd_jax.data.large_sets import Prepared, find, of_tfds, prepared
from fssd_jax.data.needs import NEEDS
from tests import large_files
from tests.large_files import SYNSETS


def prepare(folder, name, features, rows):
    """A set of that name as TFDS prepares one, without downloading."""

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {split: iter(enumerate(of)) for split, of in rows.items()}

        def _generate_examples(self):  # the splits are examples themselves
            raise NotImplementedError

    Small.name = name
    Small(data_dir=folder, file_format="array_record").download_and_prepare()


def jpeg(seed):
    file = io.BytesIO()
    x = large_files.photograph(np.random.default_rng(seed), 40 + seed, 50, (99, 80, 70))
    Image.fromarray(x).save(file, "JPEG")
    file.seek(0)
    return file


@pytest.fixture
def tfds_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    return tmp_path / "tfds"


def test_a_set_that_tfds_has_prepared(tfds_dir):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(SYNSETS[:3])),
    }
    rows = [{"image": jpeg(i), "label": i % 3} for i in range(7)]
    prepare(tfds_dir, "imagenet2012", features, {"train": rows, "validation": rows[:2]})
    found = find("imagenet2012", "train")
    assert isinstance(found.source, Prepared)
    assert found.names == SYNSETS[:3]
    assert [int(found.source[i]["label"]) for i in range(7)] == found.y.tolist()
    assert sorted(found.y.tolist()) == [0, 0, 0, 1, 1, 2, 2]
    heights = sorted(len(found.source[i]["image"]) for i in range(7))
    assert heights == list(range(40, 47))
    assert found.source.digest != find("imagenet2012", "validation").source.digest
    assert of_tfds("imagenet2012", "test") == "imagenet2012/1.0.0 has no split test"
    # Labels are kept, and read again if they are not of as many records.
    (kept,) = tfds_dir.parent.glob("fetched/tfds_labels/*-train-*.npz")
    np.savez(kept, label=found.y[::-1])
    assert find("imagenet2012", "train").y.tolist() == found.y[::-1].tolist()
    for damage in (
        lambda: np.savez(kept, label=found.y[:3]),
        lambda: np.savez(kept, other=found.y),
        lambda: kept.write_bytes(kept.read_bytes()[:50]),
        lambda: kept.write_bytes(b""),
    ):
        damage()
        assert find("imagenet2012", "train").y.tolist() == found.y.tolist()


def test_a_set_prepared_anew_or_elsewhere_has_its_own_labels(tfds_dir, monkeypatch):
    """As many records of the same name and version, and what was kept is another's."""
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list("abc")),
    }

    def digest(labels, seeds=range(4)):
        rows = [
            {"image": jpeg(i), "label": label}
            for i, label in zip(seeds, labels, strict=True)
        ]
        folder = Path(os.environ["TFDS_DATA_DIR"])
        if folder.exists():
            shutil.rmtree(folder)
        prepare(folder, "imagenet2012", features, {"train": rows})
        found = find("imagenet2012", "train")
        assert sorted(found.y.tolist()) == sorted(labels)
        assert [int(found.source[i]["label"]) for i in range(4)] == found.y.tolist()
        return found.source.digest

    digests = {digest([0, 1, 2, 0]), digest([2, 2, 1, 1])}
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir / "elsewhere"))
    digests |= {digest([1, 1, 1, 0]), digest([1, 1, 1, 0], range(3, 7))}
    assert len(digests) == 4  # the last by its images alone


def test_corruptions_of_tfds_are_called_so(tfds_dir):
    """They are no published images, which come first."""
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(SYNSETS[:3])),
        "file_name": tfds.features.Text(),
    }
    folder = tfds_dir / "imagenet2012_corrupted"
    for name in ("fog_1", "snow_1"):
        rows = [
            {"image": jpeg(i), "label": i, "file_name": "00000.JPEG"} for i in range(3)
        ]
        prepare(folder, name, features, {"validation": rows})
    unnamed = {key: features[key] for key in ("image", "label")}
    rows = [{"image": jpeg(i), "label": i} for i in range(3)]
    prepare(folder, "frost_2", unnamed, {"validation": rows})
    fetched = tfds_dir.parent / "fetched"
    large_files.imagenet(fetched, (2, 1), SYNSETS[:3], (64, 72))
    large_files.imagenet_c(fetched, ("fog",), (1,), 1, SYNSETS[:3])
    found = load_benchmark("imagenet")
    ood = found.ood
    assert [(pair, data.name) for pair, data in ood.items()] == [
        ("imagenet_snow_1_by_tfds", "imagenet_c_snow_1_by_tfds"),
        ("imagenet_fog_1", "imagenet_c_fog_1"),
    ]
    assert ood["imagenet_snow_1_by_tfds"].source.startswith("tensorflow_datasets")
    told = found.missing["imagenet_frost_2_by_tfds"]
    assert "its records tell no file names" in told


def test_the_newest_version_is_taken(tfds_dir):
    for version in ("5.1.0", "10.0.0"):
        (tfds_dir / "some" / version).mkdir(parents=True)
        (tfds_dir / "some" / version / "dataset_info.json").write_text("{")
    assert "some/10.0.0: cannot be used" in prepared("some")


def test_of_tfds_in_another_format_it_is_told_how_to_prepare_it(tfds_dir):
    features = {"label": tfds.features.ClassLabel(num_classes=2)}
    rows = {"train": [{"label": 0}]}
    prepare(tfds_dir, "imagenet2012", features, rows)
    (info,) = tfds_dir.glob("*/*/dataset_info.json")  # TensorFlow would write it
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    told = r"tfds build imagenet2012 --file_format=array_record"
    with pytest.raises(InputError, match=told):
        find("imagenet2012", "train")


def prepare_reads(folder, without=()):
    genera = [f"G{i}" for i in range(4)]
    features = {
        "seq": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=genera),
    }
    some = {"train": "ACGTAA", "validation": "ACCCCC", "test": "TTTTTG"}
    of = {k: [{"seq": v, "label": i} for i in (0, 1)] for k, v in some.items()}
    unknown = {
        f"{k}_ood": [{"seq": "GGGGGG", "label": 3}] for k in ("validation", "test")
    }
    rows = {k: v for k, v in (of | unknown).items() if k not in without}
    prepare(folder, "genomics_ood", features, rows)


def test_reads_that_tfds_has_prepared(tfds_dir):
    prepare_reads(tfds_dir)
    found = load_benchmark("genomics")
    assert found.train.x.tolist() == [[0, 1, 2, 3, 0, 0]] * 2
    assert sorted(found.train.y.tolist()) == [0, 1]
    assert found.ood["genomics"].x.tolist() == [[2] * 6]
    assert found.train.source == "tensorflow_datasets genomics_ood/1.0.0, train"
    assert by_tfds(tfds_dir) == set(FILES)


def by_tfds(tfds_dir):
    """The splits that are read from there, as `fssd data` says; others, from files."""
    needs = [(need, split) for need in NEEDS["G"].needs for split in need.counts]
    told = {split: inventory.find(need, split)[0].where for need, split in needs}
    found = load_benchmark("genomics")
    sets = found.train, found.test, *found.ood.values(), *(found.held or {}).values()
    files = tfds_dir.parent / "fetched" / "genomics_ood"
    for of in sets:
        prepared = f"tensorflow_datasets genomics_ood/1.0.0, {of.split}"
        assert (of.source, told[of.split]) in (
            (prepared, str(tfds_dir / "genomics_ood" / "1.0.0")),
            (str(files / FILES[of.split]),) * 2,
        )
    return {of.split for of in sets if of.source.startswith("tensorflow_datasets")}


def test_reads_that_tfds_prepared_in_another_format_are_passed_over(tfds_dir, capsys):
    prepare_reads(tfds_dir)
    (info,) = tfds_dir.glob("*/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    get = "tfds build genomics_ood --file_format=array_record"
    with pytest.raises(InputError) as error:
        load_benchmark("genomics")
    assert f"prepare it anew: {get}; no file" in str(error.value)
    assert f"genomics_ood.zip, unpacked; or `{get}`" in str(error.value)
    assert inventory.command(["--check", "G"]) == 1
    assert (
        f"prepared as tfrecord; remove it, and then `{get}`" in capsys.readouterr()[0]
    )
    large_files.genomics(tfds_dir.parent / "fetched")
    assert by_tfds(tfds_dir) == set()


def test_a_split_of_reads_that_tfds_has_not_is_of_the_files(tfds_dir, capsys):
    prepare_reads(tfds_dir, without=["validation_ood"])
    told = r"genomics_ood/1\.0\.0 has no split validation_ood; no file .*2016_ood_val"
    with pytest.raises(InputError, match=told):
        load_benchmark("genomics")
    assert inventory.command(["--check", "G"]) == 1
    assert "genomics_ood: it has no split validation_ood" in capsys.readouterr().out
    large_files.genomics(tfds_dir.parent / "fetched", length=6)
    assert by_tfds(tfds_dir) == set(FILES) - {"validation_ood"}


def test_scenes_of_imagenet_c_are_those_of_tfdss_validation_set(tfds_dir):
    """Whose order is another, and whose files have other names in no folders."""
    names = list(SYNSETS[:2])
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=names),
        "file_name": tfds.features.Text(),
    }
    files = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(12)]
    train, val = (
        [{"image": jpeg(i), "label": i % 2, "file_name": files[i]} for i in range(12)]
        for _ in range(2)
    )
    prepare(tfds_dir, "imagenet2012", features, {"train": train, "validation": val})
    folder = tfds_dir.parent / "fetched" / "imagenet_c" / "fog" / "1"
    for i in range(12):
        (folder / names[i % 2]).mkdir(parents=True, exist_ok=True)
        (folder / names[i % 2] / files[i]).write_bytes(jpeg(i).getvalue())
    found = load_benchmark("imagenet")
    assert found.test.source.startswith("tensorflow_datasets")
    own, corrupted = found.test.x, found.ood["imagenet_fog_1"].x
    heights = [len(own.source[i]["image"]) for i in own.numbers.tolist()]
    assert heights == [len(corrupted.source[i][0]) for i in corrupted.numbers.tolist()]
    assert heights != sorted(heights)


def test_tfdss_images_without_names_have_no_scenes(tfds_dir):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(SYNSETS[:2])),
    }
    rows = [{"image": jpeg(i), "label": i % 2} for i in range(4)]
    prepare(tfds_dir, "imagenet2012", features, {"train": rows, "validation": rows})
    with pytest.raises(InputError, match="its records tell no file names"):
        load_benchmark("imagenet")


# ---- CelebA -------------------------------------------------------------------------


def faces(**others):
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "attributes": {"Bald": np.bool_, "Blurry": np.bool_},
        **others,
    }
    rows = [
        {
            "image": jpeg(i % 40),
            "attributes": {"Bald": True, "Blurry": i % 3 == 0},
            **{key: {"Identity_No": 7 * (i % 4)} for key in others},
        }
        for i in range(60)
    ]
    splits = {"train": rows[:30], "validation": rows[30:40], "test": rows[40:]}
    return features, splits


def test_celeba_as_tfds_prepares_it(tfds_dir, capsys):
    prepare(tfds_dir, "celeb_a", *faces(identity={"Identity_No": np.int64}))
    found = load_benchmark("celeba")
    assert found.test.source == "tensorflow_datasets celeb_a/1.0.0"
    sets = found.train, found.test, found.ood["celeba"]
    numbers = [set(of.x.numbers.tolist()) for of in sets]
    assert not (numbers[0] & numbers[1])
    assert set.union(*numbers) == set(range(60))
    for of, blurry in zip(sets, (False, False, True), strict=True):
        records = [of.x.source[i] for i in of.x.numbers.tolist()]
        assert all(r["attributes"]["Blurry"] == blurry for r in records)
        if not blurry:
            own = [int(r["identity"]["Identity_No"]) for r in records]
            assert (7 * of.y).tolist() == own
    assert (found.num_classes, found.train.x[:2].shape) == (4, (2, 112, 112, 3))
    outliers = celeba_images(64)
    assert (outliers.x.shape, outliers.source) == ((60, 64, 64, 3), found.test.source)
    inventory.command(["--check", "celeba"])
    told = capsys.readouterr().out
    counts = dict(zip(("train", "test", "blurry"), map(len, numbers), strict=True))
    for split, count in counts.items():
        assert f"celeb_a/{split}: {count} of" in told
    # A folder that is given is the only place.
    with pytest.raises(InputError, match="without --data-dir, `tfds build celeb_a"):
        load_benchmark("celeba", tfds_dir.parent)


def test_an_older_celeba_of_tfds_has_no_identities(tfds_dir):
    prepare(tfds_dir, "celeb_a", *faces())
    with pytest.raises(InputError, match="has no identities, which"):
        load_benchmark("celeba")


def test_records_of_several_sources_are_one_after_the_other():
    joined = Joined((range(3), range(10, 12), range(0), range(20, 21)), "")
    assert [joined[i] for i in range(len(joined))] == [0, 1, 2, 10, 11, 20]
    assert [joined[i] for i in (-1, -6)] == [20, 0]
    for beyond in (6, -7):
        with pytest.raises(IndexError):
            joined[beyond]
