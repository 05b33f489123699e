"""Sets that TFDS has prepared, read by number."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.large_sets import Prepared, find, of_tfds, prepared
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
    (kept,) = tfds_dir.parent.glob("fetched/tfds_labels/*-train.npy")
    np.save(kept, found.y[::-1])
    assert find("imagenet2012", "train").y.tolist() == found.y[::-1].tolist()
    np.save(kept, found.y[:3])
    assert find("imagenet2012", "train").y.tolist() == found.y.tolist()


def test_corruptions_of_tfds_are_called_so(tfds_dir):
    """They are no published images, which come first."""
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(SYNSETS[:3])),
    }
    rows = [{"image": jpeg(i), "label": i} for i in range(3)]
    for name in ("fog_1", "snow_1"):
        folder = tfds_dir / "imagenet2012_corrupted"
        prepare(folder, name, features, {"validation": rows})
    fetched = tfds_dir.parent / "fetched"
    large_files.imagenet(fetched, (2, 1), SYNSETS[:3], (64, 72))
    large_files.imagenet_c(fetched, ("fog",), (1,), 1, SYNSETS[:3])
    ood = load_benchmark("imagenet").ood
    assert [(pair, data.name) for pair, data in ood.items()] == [
        ("imagenet_snow_1_by_tfds", "imagenet_c_snow_1_by_tfds"),
        ("imagenet_fog_1", "imagenet_c_fog_1"),
    ]
    assert ood["imagenet_snow_1_by_tfds"].source.startswith("tensorflow_datasets")


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


def test_reads_that_tfds_has_prepared(tfds_dir):
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
    prepare(tfds_dir, "genomics_ood", features, {**of, **unknown})
    found = load_benchmark("genomics")
    assert found.train.x.tolist() == [[0, 1, 2, 3, 0, 0]] * 2
    assert sorted(found.train.y.tolist()) == [0, 1]
    assert found.ood["genomics"].x.tolist() == [[2] * 6]
    assert found.train.source == "tensorflow_datasets genomics_ood/1.0.0, train"
