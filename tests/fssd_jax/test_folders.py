"""Small files written by Pillow and NumPy, and two photographs of scikit-learn."""

import os
import threading
import time
from collections import OrderedDict
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from fssd_jax import InputError, estimate_singularity
from fssd_jax.data import folders
from fssd_jax.data.crops import centre_crop
from fssd_jax.data.sources import digest

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 4, 4, 3), np.uint8)
GREY = RGB[..., 0]
equal = np.testing.assert_array_equal
read = partial(folders.load_images, size=4, channels=3, progress=False)
stream = partial(folders.stream_images, size=4, channels=3)
records = partial(folders.image_records, channels=3)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_all(folder, images=RGB):
    for i, image in enumerate(images):
        save(folder / f"{i:03}.png", image)
    return folder


@pytest.mark.parametrize("end", ["png", "PNG", "bmp", "tif", "webp"])
def test_lossless_files_come_back_exactly(tmp_path, end):
    lossless = {"lossless": True} if end == "webp" else {}
    save(tmp_path / f"a.{end}", RGB[0], **lossless)
    save(tmp_path / f"b.{end}", GREY[1], **lossless)
    equal(read(tmp_path).x, [RGB[0], np.stack([GREY[1]] * 3, -1)])
    grey = read(tmp_path, channels=1).x[..., 0]
    np.testing.assert_allclose(grey[0], RGB[0] @ [0.299, 0.587, 0.114], atol=0.51)
    equal(grey[1], GREY[1])


def test_transparent_images_palettes_and_animations(tmp_path):
    rgba = RNG.integers(0, 256, (4, 4, 4), np.uint8)
    save(tmp_path / "0.png", rgba)
    index = (np.arange(16) % 3).astype(np.uint8).reshape(4, 4)
    colours = np.array([[200, 10, 20], [30, 210, 40], [50, 60, 220]], np.uint8)
    (image := Image.fromarray(index)).putpalette(colours.tobytes())
    image.save(tmp_path / "1.png")
    image.save(tmp_path / "2.png", transparency=bytes([0, 255, 255]))
    others = [Image.fromarray(x) for x in GREY[1:]]
    save(tmp_path / "3.gif", GREY[0], save_all=True, append_images=others)
    x = read(tmp_path).x
    np.testing.assert_allclose(x[0], rgba[..., :3] * (rgba[..., 3:] / 255), atol=1)
    equal(x[1:3], [colours[index], colours[index] * (index > 0)[..., None]])
    equal(x[3, ..., 0], GREY[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation):
    x = RNG.integers(0, 256, (3, 5), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", x, exif=exif)
    upright = [
        x, x[:, ::-1], x[::-1, ::-1], x[::-1],
        x.T, np.rot90(x, -1), x[::-1, ::-1].T, np.rot90(x),
    ][orientation - 1]  # fmt: skip
    equal(read(tmp_path, size=upright.shape, channels=1).x[0, ..., 0], upright)


def test_subfolders_are_the_classes_in_sorted_order(tmp_path):
    names = ["b/1.png", "b/0.png", "9/x.png", "10/deep/z.png", "10/a.png", "Z/q.png"]
    hidden = ["b/._0.png", ".ipynb_checkpoints/0.png"]
    for name, image in zip(names + hidden, [*RGB, RGB[0]], strict=True):
        save(tmp_path / name, image)
    data = read(tmp_path)
    equal(data.x, RGB[[4, 3, 2, 5, 1, 0]])
    equal(data.y, [0, 0, 1, 2, 3, 3])
    assert data.sha256 == digest(data.x, data.y) == read(str(tmp_path)).sha256
    equal(read(tmp_path / "b").y, [0, 0])  # no subfolders


def test_a_limit_draws_by_seed_and_keeps_the_order(tmp_path):
    images = np.tile(np.arange(90, dtype=np.uint8)[:, None, None], (4, 4))
    np.savez(tmp_path / "a.npz", images)
    for path in (save_all(tmp_path / "files", images), tmp_path / "a.npz"):
        drawn = [read(path, channels=1, limit=40, seed=s) for s in (0, 0, 1)]
        a, b, c = (d.x[:, 0, 0, 0].astype(int) for d in drawn)
        assert len(a) == 1 + np.sum(np.diff(a) > 0) == 40
        assert np.all(a == b)
        assert np.any(a != c)
        assert "40 of 90 images (drawn by seed 0)" in drawn[0].source
        equal(read(path, channels=1, limit=91).x[..., 0], images)


def test_what_does_not_fit_covers_the_size_and_is_cut(tmp_path):
    for stored, new, top, left in (  # (height, width) before and after; the corner
        ((4, 6), (4, 6), 0, 0),  # of the size
        ((10, 6), (10, 6), 3, 0),  # covers it already
        ((4, 9), (4, 9), 0, 2),  # 1.5 goes to the even number
        ((11, 9), (7, 6), 2, 0),  # 7.33 rows
    ):
        image = RNG.integers(0, 256, stored, np.uint8)
        save(tmp_path / "a.png", image)
        data = read(tmp_path, size=(4, 6), channels=1)
        covering = jax.image.resize(image.astype(np.float32), new, "linear")
        expected = covering[top : top + 4, left : left + 6]
        gaps = np.abs(data.x[0, ..., 0] - expected)
        assert gaps.max() <= 1.01 * (new != stored)
        assert f" {int(new != stored)} resized to 4×6" in data.source


def test_resize_is_that_of_torchvision(tmp_path):
    china, flower = load_sample_images().images
    photographs = [china, np.ascontiguousarray(np.rot90(flower))]
    save_all(tmp_path, photographs)
    for resize, size in ((256, 224), (37, 32), (64, 64), (450, 9)):
        data = read(tmp_path, size=size, resize=resize)
        for got, pixels in zip(data.x, photographs, strict=True):
            # Of torchvision: _compute_resized_output_size, then center_crop.
            image = Image.fromarray(pixels)
            new = [int(resize * side / min(image.size)) for side in image.size]
            image = image.resize(new, Image.Resampling.BILINEAR)
            left, top = (round((side - size) / 2.0) for side in new)
            equal(got, np.asarray(image)[top : top + size, left : left + size])
        assert f"2 resized to {resize}" in data.source
    equal(read(tmp_path, size=427).x[0], china[:, 106:533])
    save(tmp_path / "jpeg" / "a.jpg", china, quality=95)
    near = read(tmp_path / "jpeg", size=(427, 640)).x[0].astype(float)
    assert 0 < np.abs(near - china).mean() < 4


def test_arrays_are_taken_as_they_are(tmp_path):
    y = np.arange(7)[::-1]
    for arrays, x, labels, source in (
        (dict(x=RGB, y=y), RGB, y, "x as stored, uint8"),
        (dict(images=RGB, labels=y), RGB, y, "images as stored"),
        (dict(mine=RGB), RGB, 0 * y, "mine as stored"),
        (dict(x=RGB / 255), np.float32(RGB / 255), 0 * y, "x as stored, float64"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        data = read(tmp_path / "a.npz")
        assert (data.x.dtype, data.y.dtype) == (x.dtype, np.int32)
        equal(data.x, x)
        equal(data.y, labels)
        assert f"7 images, {source}" in data.source
    np.save(tmp_path / "a.npy", GREY)
    path = (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    equal(read(path, channels=1).x[..., 0], GREY)
    path = (tmp_path / "a.npz").rename(tmp_path / "b.npy")
    equal(read(path).x, np.float32(RGB / 255))


def test_a_stream_yields_what_is_loaded(tmp_path):
    for i, image in enumerate(RNG.integers(0, 256, (99, 4, 4, 3), np.uint8)):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    data = read(tmp_path, limit=90, seed=3)
    for size, count in ((100, 1), (45, 2), (4, 23)):
        batches = stream(tmp_path, batch_size=size, limit=90, seed=3)
        for parts in (list(batches), list(batches)):
            assert len(parts) == len(batches) == count
            assert {len(part) for part in parts[:-1]} <= {size}
            equal(np.concatenate(parts), data.x)
    equal(batches.y, data.y)
    of = partial(estimate_singularity, lambda _, x: OrderedDict(a=x), {}, batch_size=4)
    jax.tree.map(equal, of(batches), of(data.x))


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ("", {}, "no images in it"),
        (".a.png .b/c.png", {}, "no images in it"),
        ("a.png b/c.png b/d.png", {}, "1 images lie in it and 2 in its subfolders"),
        ("test/0/a.png train/0/a.png", {}, r"holds \['test', 'train'\]"),
        ("a/a.png a/x.npy", {}, r"holds arrays \(.*x.npy\), 1 images beside"),
        ("a.png", {"limit": 0}, "limit: expected 1 or more, got 0"),
        ("a.png", {"resize": 3}, "resize: 3 is less than the size .* give 4 or"),
        ("a.png", {"channels": 4}, "channels: images are read as 1 or 3, got 4"),
    ],
)
def test_folders_that_do_not_say_what_is_meant(tmp_path, names, options, words):
    for name in names.split():
        save(tmp_path / name, RGB[0], format="png")
    for function in (read, stream, partial(records, size=4)):
        with pytest.raises(InputError, match=words):
            function(tmp_path, **options)
        with pytest.raises(InputError, match=f"{tmp_path}/no: there is no such"):
            function(tmp_path / "no")


def test_names_of_other_encodings_are_read(tmp_path):
    """As Latin-1 has them on a disk of the nineties, or in an archive of one."""
    for i, name in enumerate((b"caf\xe9", b"th\xe9")):
        folder = tmp_path / os.fsdecode(name)
        save(folder / os.fsdecode(name + b".png"), RGB[i])
    found = folders.image_records(tmp_path, channels=3)
    equal(np.stack([image for image, _ in found]), RGB[:2])
    whole = found.digest
    folder.rename(folder.with_name("tea"))
    assert folders.image_records(tmp_path, channels=3).digest != whole


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = save_all(tmp_path) / "003.png"
    for broken in (path.read_bytes()[:-60], b"", b"<html>"):
        path.write_bytes(broken)
        for function in (read, lambda p: list(stream(p)), lambda p: records(p)[3]):
            with pytest.raises(InputError, match=r"003.png: cannot be read .*truncate"):
                function(tmp_path)
    for x, mode in ((GREY[0].astype(np.uint16), "I;16"), (np.float32(GREY[0]), "F")):
        save(path, x, format="tiff")
        with pytest.raises(InputError, match=rf"003.png: .* mode {mode}, expected 8"):
            read(tmp_path)


def test_records_are_what_is_loaded(tmp_path):
    images = [RNG.integers(0, 256, (4 + i % 3, 5, 3), np.uint8) for i in range(9)]
    for i, image in enumerate(images):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    (tmp_path / "b" / "notes.txt").touch()
    for options in ({}, {"resize": 6}, {"limit": 5, "seed": 2}):
        data = read(tmp_path, **options)
        found = folders.image_records(tmp_path, size=4, channels=3, **options)
        x, y = zip(*found, strict=True)
        equal(np.stack(x), data.x)
        equal(y, data.y)
        assert len(found) == len(data.x)
        assert found.source in data.source
    whole = folders.image_records(tmp_path, channels=3)
    for (image, _), file in zip(whole, whole.files, strict=True):
        equal(image, images[int(file.stem)])
        found = centre_crop(image, size=4, resize=6)
        equal(found, read(tmp_path, resize=6).x[whole.files.index(file)])
    grey = folders.image_records(tmp_path, channels=1)[3][0]
    assert grey.shape[2] == 1
    # Another name, another class: another digest; another place: the same.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert folders.image_records(moved, channels=3).digest == whole.digest
    (moved / "a" / "0.png").rename(moved / "b" / "0.png")
    assert folders.image_records(moved, channels=3).digest != whole.digest
    with pytest.raises(InputError, match="say of which `size`"):
        folders.image_records(moved, channels=3, resize=6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (dict(x=RGB[:, :3]), r"shape \(7, 3, 4, 3\), expected \(n, \*\(4, 4, 3\)"),
        (dict(x=GREY), r"shape \(7, 4, 4\), expected"),
        (dict(a=RGB, b=RGB), r"which array .* \['a', 'b'\]; call it x"),
        (dict(x=RGB, images=RGB), r"which array .* \['images', 'x'\]; call it x"),
        (dict(y=np.arange(7)), r"which array .* \['y'\]; call it x"),
        (dict(x=RGB, y=np.arange(7), labels=np.arange(7)), "leave one of them out"),
        *(
            (dict(x=RGB, **{name: np.arange(7)}), rf"holds \['{name}'\], too, which")
            for name in ("label", "Y", "targets", "y_train", "classes")
        ),
        (dict(images=RGB, labels=np.arange(7), other=RGB), r"holds \['other'\], too"),
        (dict(x=RGB, y=np.arange(7) - 1), "labels down to -1; number .* from 0 on"),
        (dict(x=RGB.astype(int)), "is of int64, expected uint8 or floats"),
        (dict(x=RGB.astype(float)), r"lie in \[0, 1\]"),
        (dict(x=np.uint8(RGB > 128)), "bytes are 0 and 1, where 255 is white"),
        (dict(x=RGB, y=np.arange(6)), r"labels are int64\[6\], .* each of 7 images"),
        (dict(x=RGB, y=np.arange(7.0)), r"labels are float64"),
        (dict(x=RGB, y=np.array([None] * 7)), "a.npz: cannot be read .*pickled"),
    ],
)
def test_arrays_that_are_not_images(tmp_path, arrays, words):
    np.savez(path := tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read(path)
    with pytest.raises(InputError, match="arrays are not resized"):
        read(path, resize=4)
    with pytest.raises(InputError, match="only folders are streamed"):
        stream(path)


def test_a_stream_decodes_ahead_but_not_far_and_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "THREADS", 2)
    save_all(tmp_path)
    decoded, before = [], threading.active_count()

    def count(file, decode=folders._decode, **options):
        decoded.append(file)
        return decode(file, **options)

    monkeypatch.setattr(folders, "_decode", count)
    batches = iter(stream(tmp_path, batch_size=1))
    next(batches)
    deadline = time.monotonic() + 5
    while len(decoded) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(decoded) == 3  # of seven: one for each thread, and the one taken
    del batches
    assert threading.active_count() == before
