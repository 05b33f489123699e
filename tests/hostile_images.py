"""Readers of images and archives of them, a small good file for each."""

import gzip
import io
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fssd_jax.data import fetch, folders, glyphs, idx
from tests import hostile
from tests.hostile import Reader

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28), np.uint8)
RGB = RNG.integers(0, 256, (6, 12, 10, 3), np.uint8)
LABELS = np.arange(6, dtype=np.uint8)
SIZE = 8


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, end: str = "") -> None:
    for name, array in (("images-idx3", GREY), ("labels-idx1", LABELS)):
        data = idx_bytes(array)
        path = folder / f"train-{name}-ubyte{end}"
        path.write_bytes(gzip.compress(data) if end else data)


def read_idx(folder: Path):
    files = idx.find(folder, "train")
    assert files is not None
    return idx.read(*files)


def are_images(answer, good) -> bool:
    """Pixels have no checksum: the file is right about them."""
    x, y = answer
    return (
        x.ndim == 4
        and len(x) == len(y) > 0
        and x.dtype in (np.uint8, np.float32)
        and y.dtype == np.int32
        and (x.dtype == np.uint8 or bool(np.all((x >= 0) & (x <= 1))))
    )


def are_sized(answer, good) -> bool:
    return are_images(answer, good) and answer[0].shape[1:] == good[0].shape[1:]


def write_image(folder: Path, end: str, **options) -> None:
    for name, x in (("a", RGB[0]), ("b", GREY[0])):
        Image.fromarray(x).save(folder / f"{name}.{end}", **options)


def read_folder(folder: Path):
    data = folders.load_images(folder, size=SIZE, channels=3, progress=False)
    return data.x, data.y


def read_file(folder: Path):
    (path,) = folder.iterdir()
    data = folders.load_images(path, size=(12, 10), channels=3, progress=False)
    return data.x, data.y


def write_glyphs(folder: Path) -> None:
    glyphs.write(folder / glyphs.FILE, GREY[..., None])


def read_glyphs(folder: Path) -> np.ndarray:
    """Of a few: 20,000 take a second to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "COUNT", len(GREY))
        return glyphs.read(folder / glyphs.FILE)


def write_png(folder: Path) -> None:
    Image.fromarray(GREY[0, :24, :24]).save(folder / "a.png")


def write_tgz(folder: Path) -> None:
    (folder / "data").mkdir()
    write_idx(folder / "data")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        # Without times: the same bytes, and so the same mutations, at each run.
        tar.add(
            *(folder / "data", "package/data"),
            filter=lambda info: info.replace(mtime=0),
        )
    (folder / "a.tgz").write_bytes(gzip.compress(whole.getvalue(), mtime=0))
    for path in (folder / "data").iterdir():
        path.unlink()
    (folder / "data").rmdir()


def read_tgz(folder: Path):
    target = folder / "unpacked"
    fetch.unpack(folder / "a.tgz", target)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["a.tgz", "unpacked"], names
    try:
        return read_idx(target) if idx.find(target, "train") else None
    finally:
        for path in target.iterdir():
            path.unlink()


def are_unpacked(answer, good) -> bool:
    return answer is None or are_images(answer, good)


IMAGES: dict[str, Reader] = {
    "IDX": Reader(write_idx, read_idx, are_images),
    "IDX, gzipped": Reader(
        partial(write_idx, end=".gz"), read_idx, are_images, hostile.in_gzip
    ),
    "npm package": Reader(write_tgz, read_tgz, are_unpacked, hostile.in_gzip),
    "glyphs, PNG": Reader(
        write_png,
        lambda folder: glyphs.from_png((folder / "a.png").read_bytes()),
        lambda answer, good: answer.shape == (28, 28),
        hostile.in_png,
    ),
    "glyphs, npz": Reader(
        write_glyphs,
        read_glyphs,
        lambda answer, good: answer.shape == good.shape,
        hostile.in_zip,
    ),
    **{
        f"folder of .{end}": Reader(
            partial(write_image, end=end),
            read_folder,
            are_sized,
            hostile.in_png if end == "png" else None,
        )
        for end in "png jpg bmp webp tif gif ppm".split()
    },
    "images, npz": Reader(
        lambda folder: np.savez(folder / "a.npz", x=RGB, y=LABELS),
        read_file,
        are_sized,
        hostile.in_zip,
    ),
    "images, npy": Reader(
        lambda folder: np.save(folder / "a.npy", RGB / 255), read_file, are_sized
    ),
}
