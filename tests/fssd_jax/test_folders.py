"""Image files of every kind, written here by Pillow; scikit-learn's photographs."""

import threading
import time
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import fssd_jax
from fssd_jax import InputError
from fssd_jax.data import folders
from fssd_jax.data.folders import load_images, stream_images
from fssd_jax.data.sources import digest

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 8, 6, 3), np.uint8)
read = partial(load_images, size=(8, 6), channels=3, progress=False)


def write(folder, x=X, end=".png"):
    """Twelve images in three classes, of which one has a folder of its own inside."""
    for i, image in enumerate(x):
        path = folder / ("b", "a/deep", "c")[i % 3] / f"{i:02}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def one(folder, image, end=".png", size=(8, 6), channels=3, resize=None, **options):
    """What is read of one image, given as Pillow's or as an array."""
    folder.mkdir(exist_ok=True)
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(folder / f"image{end}", **options)
    data = read(folder, size=size, channels=channels, resize=resize)
    return data.x[0]


BY_CLASS = [1, 4, 7, 10, 0, 3, 6, 9, 2, 5, 8, 11]  # a/deep, b, c


def test_folders_are_read_in_order_with_their_classes(tmp_path):
    data = read(write(tmp_path / "mine"))
    np.testing.assert_array_equal(data.x, X[BY_CLASS])
    np.testing.assert_array_equal(data.y, np.repeat([0, 1, 2], 4))
    assert (data.x.dtype, data.y.dtype) == (np.uint8, np.int32)
    assert (data.name, data.split) == ("mine", "all")
    assert data.source == f"{tmp_path}/mine: 12 images, cut to 8×6, 0 resized"
    assert data.sha256 == digest(data.x, data.y) == read(tmp_path / "mine").sha256


def test_a_flat_folder_has_one_class_and_hidden_files_are_not_read(tmp_path):
    for name, image in zip(("b.PNG", "a.bmp", "C.tif"), X, strict=False):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"resource fork")
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints" / "a.png").write_bytes(b"")
    data = read(str(tmp_path))
    np.testing.assert_array_equal(data.x, X[[2, 1, 0]])
    np.testing.assert_array_equal(data.y, [0, 0, 0])


@pytest.mark.parametrize("end", [".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp"])
def test_lossless_files_come_back_exactly(tmp_path, end):
    lossless = {"lossless": True} if end == ".webp" else {}
    np.testing.assert_array_equal(one(tmp_path, X[0], end, **lossless), X[0])


@pytest.mark.parametrize("end", [".jpg", ".JPEG"])
def test_jpeg_comes_back_nearly(tmp_path, end):
    smooth = np.add.outer(np.arange(8), np.arange(6))[..., None] * np.array([9, 5, 2])
    found = one(tmp_path, smooth.astype(np.uint8), end, quality=95)
    np.testing.assert_allclose(found.astype(int), smooth, atol=8)


def test_grey_and_colour_become_each_other(tmp_path):
    grey = X[0, :, :, 0]
    np.testing.assert_array_equal(one(tmp_path / "a", grey)[..., 2], grey)
    np.testing.assert_array_equal(
        one(tmp_path / "b", grey, ".pgm", channels=1)[..., 0], grey
    )
    luma = one(tmp_path / "c", X[0], channels=1)[..., 0]
    np.testing.assert_allclose(luma, X[0] @ [0.299, 0.587, 0.114], atol=0.6)
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(one(tmp_path / "d", bits)[..., 0], (grey > 127) * 255)


def test_palettes_are_looked_up_and_the_first_frame_is_read(tmp_path):
    few = X[0] // 128 * 255
    for end in (".png", ".gif"):
        image = Image.fromarray(few).quantize(8)
        np.testing.assert_array_equal(one(tmp_path / end[1:], image, end), few)
    frames = [Image.fromarray(255 - few)]
    more = {"save_all": True, "append_images": frames}
    found = one(tmp_path / "more", Image.fromarray(few), ".tif", **more)
    np.testing.assert_array_equal(found, few)


def test_what_is_transparent_is_laid_on_black(tmp_path):
    alpha = RNG.integers(0, 256, (8, 6, 1), np.uint8)
    rgba = np.concatenate([X[0], alpha], axis=-1)
    expected = X[0] * (alpha / 255)
    np.testing.assert_allclose(one(tmp_path / "a", rgba), expected, atol=1)
    grey = np.concatenate([X[0, :, :, :1], alpha], axis=-1)
    found = one(tmp_path / "b", Image.fromarray(grey, "LA"), channels=1)
    np.testing.assert_allclose(found, X[0, :, :, :1] * (alpha / 255), atol=1)
    palette = Image.new("P", (6, 8), 1)
    palette.putpalette([255] * 6)
    palette.putpixel((2, 3), 0)
    found = one(tmp_path / "c", palette, transparency=0)
    assert found[3, 2].tolist() == [0, 0, 0]
    assert found.sum() == 255 * 3 * (8 * 6 - 1)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, np.copy), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (8, np.rot90)],
)
def test_the_orientation_of_cameras_is_applied(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = turn(X[0])
    found = one(tmp_path, X[0], size=upright.shape[:2], exif=exif)
    np.testing.assert_array_equal(found, upright)


@pytest.mark.parametrize("side", [(8, 10), (8, 11), (8, 9), (13, 6), (15, 6), (9, 6)])
def test_what_covers_the_size_is_cut_and_not_resized(tmp_path, side):
    image = RNG.integers(0, 256, (*side, 3), np.uint8)
    # Half a pixel goes to the even number: 1/2 → 0, 3/2 and 5/2 → 2, 7/2 and 9/2 → 4.
    top = {8: 0, 13: 2, 15: 4, 9: 0}[side[0]]
    left = {6: 0, 10: 2, 11: 2, 9: 2}[side[1]]
    found = one(tmp_path, image)
    np.testing.assert_array_equal(found, image[top : top + 8, left : left + 6])
    assert "0 resized" in read(tmp_path).source


def torchvision(image, resize, size):
    """Resize(resize) and CenterCrop(size) of an image that is larger, as documented."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(resize * long / short)
    new = (resize, new_long) if width <= height else (new_long, resize)
    x = np.asarray(image.resize(new, Image.Resampling.BILINEAR))
    top, left = (round((n - size) / 2.0) for n in x.shape[:2])
    return x[top : top + size, left : left + size]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("resize", [None, 64, 73, 500])
def test_photographs_are_resized_as_by_torchvision(tmp_path, wide, resize):
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    # Sides whose ratio leaves a remainder.
    photos = [photo.crop((0, 0, *((401, 419), (639, 401))[wide])) for photo in photos]
    for i, photo in enumerate(photos):
        photo.save(tmp_path / f"{i}.png", compress_level=1)
    data = read(tmp_path, size=64, resize=resize)
    expected = np.stack([torchvision(photo, resize or 64, 64) for photo in photos])
    np.testing.assert_array_equal(data.x, expected)
    assert data.source.endswith("2 resized")
    assert ("shorter side to" in data.source) == (resize is not None)


def test_small_images_are_enlarged_to_cover_an_oblong(tmp_path):
    found = one(tmp_path, X[0], size=(10, 20))  # 8×6 becomes 26×20
    expected = Image.fromarray(X[0]).resize((20, 26), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(expected)[8:18])


def test_a_limit_draws_before_reading_and_keeps_order_and_classes(tmp_path):
    whole = read(write(tmp_path))
    part = read(tmp_path, limit=5, seed=3)
    chosen = np.sort(np.random.default_rng(3).choice(12, 5, replace=False))
    np.testing.assert_array_equal(part.x, whole.x[chosen])
    np.testing.assert_array_equal(part.y, whole.y[chosen])
    assert "5 of 12 images (drawn by seed 3)" in part.source
    assert read(tmp_path, limit=5, seed=4).sha256 != part.sha256
    assert read(tmp_path, limit=12).sha256 == read(tmp_path, limit=99).sha256
    for i in set(range(12)) - set(chosen):
        next(tmp_path.rglob(f"{BY_CLASS[i]:02}.png")).write_bytes(b"broken")
    np.testing.assert_array_equal(read(tmp_path, limit=5, seed=3).x, part.x)


def test_a_stream_gives_the_same_images_at_every_pass(tmp_path):
    whole = read(write(tmp_path))
    stream = stream_images(tmp_path, size=(8, 6), channels=3, batch_size=5)
    for _ in range(2):
        batches = list(stream)
        assert [len(x) for x in batches] == [5, 5, 2]
        np.testing.assert_array_equal(np.concatenate(batches), whole.x)
    assert len(stream) == 3
    np.testing.assert_array_equal(stream.y, whole.y)
    part = stream_images(tmp_path, size=(8, 6), channels=3, limit=5, seed=3)
    np.testing.assert_array_equal(*part, read(tmp_path, limit=5, seed=3).x)


def test_a_stream_decodes_ahead_but_not_far_and_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "THREADS", 2)
    write(tmp_path)
    decoded, before = [], threading.active_count()

    def count(file, decode=folders._decode, **options):
        decoded.append(file)
        return decode(file, **options)

    monkeypatch.setattr(folders, "_decode", count)
    batches = iter(stream_images(tmp_path, size=(8, 6), channels=3, batch_size=1))
    next(batches)
    deadline = time.monotonic() + 5
    while len(decoded) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(decoded) == 3
    del batches
    assert threading.active_count() == before


def test_the_singularity_of_a_stream_is_that_of_the_images(tmp_path):
    def pixels(variables, x):
        return OrderedDict(pixels=x)

    stream = partial(stream_images, write(tmp_path), size=4, channels=1)
    x = read(tmp_path, size=4, channels=1).x
    found = fssd_jax.estimate_singularity(pixels, {}, stream(batch_size=5))
    assert found.count == 12
    mean = (x / 255).mean(0).ravel()
    np.testing.assert_allclose(found.center["pixels"], mean, atol=1e-6)


@pytest.mark.parametrize("key", ["x", "images", "anything"])
def test_arrays_are_taken_as_they_are(tmp_path, key):
    path = tmp_path / "mine.npz"
    np.savez(path, **{key: X}, labels=np.arange(12))
    data = read(path)
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, np.arange(12))
    assert (data.name, data.y.dtype) == ("mine", np.int32)
    assert data.source == f"{path}: 12 images, {key} as stored, uint8"
    part = read(path, limit=5, seed=3)
    np.testing.assert_array_equal(part.x, X[part.y])
    np.savez(path, **{key: X}, **({"other": X} if key != "anything" else {}))
    assert read(path).y.tolist() == [0] * 12


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay_floats_and_grey_gets_its_axis(tmp_path, dtype):
    x = (X[..., 0] / 255).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    data = read(tmp_path / "x.npy", channels=1)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x[..., 0], x.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X * 1.0}, r"must lie in \[0, 1\].*divide by 255"),
        ({"x": np.full(X.shape, np.nan)}, "NaN"),
        ({"x": X.astype(np.int64)}, r"int64, expected uint8.*astype"),
        ({"x": X[:, :5]}, r"shape \(12, 5, 6, 3\), expected \(n, \*\(8, 6, 3\)\)"),
        ({"x": X[..., 0]}, r"shape \(12, 8, 6\), expected .* 3\)"),
        ({"x": X[0, 0, 0, 0]}, r"shape \(\), expected"),
        ({"x": X[:0]}, "empty"),
        ({"x_train": X, "x_test": X}, r"which.*\['x_test', 'x_train'\]; call it x"),
        ({"y": np.arange(12)}, r"which array.*\['y'\]"),
        ({"x": X, "y": np.arange(11)}, r"labels are int64\[11\].*each of 12"),
        ({"x": X, "y": np.eye(12)}, r"labels are float64\[12, 12\]"),
        ({"x": np.array([None])}, "cannot be read.*pickle"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=rf"x\.npz.*{message}"):
        read(tmp_path / "x.npz")


def test_broken_files_are_named(tmp_path):
    path = next(write(tmp_path, end=".jpg").rglob("07.jpg"))
    for damaged in (path.read_bytes()[:-200], b"", b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{path}: cannot be read as an image"):
            read(tmp_path)
        with pytest.raises(InputError, match=rf"{path}: cannot be read as an image"):
            list(stream_images(tmp_path, size=(8, 6), channels=3))
    (tmp_path / "x.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match=r"x\.npz: cannot be read"):
        read(tmp_path / "x.npz")
    for deep in (X[0, :, :, 0].astype(np.uint16), X[0, :, :, 0].astype(np.float32)):
        with pytest.raises(InputError, match=r"mode (I;16|F), expected 8 bits"):
            one(tmp_path / "deep", deep, ".tif")


def test_layouts_that_do_not_say_what_is_meant_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no images.*\.png .*\.pgm"):
        read(tmp_path / "empty")
    with pytest.raises(InputError, match="there is no such folder or file"):
        read(tmp_path / "nothing.npz")
    write(tmp_path / "data" / "train")
    file = next((tmp_path / "data").rglob("*.png"))
    with pytest.raises(InputError, match="is a file; load_images takes folders"):
        read(file)
    write(tmp_path / "data" / "test")
    with pytest.raises(InputError, match=r"holds \['test', 'train'\]; give one"):
        read(tmp_path / "data")
    file.rename(tmp_path / "data" / "stray.png")
    with pytest.raises(InputError, match="1 images lie in it, 23 in its subfolders"):
        read(tmp_path / "data")
    np.savez(tmp_path / "data" / "train" / "x.npz", x=X)
    with pytest.raises(InputError, match=r"holds arrays \(.*/train/x.npz\), 11 images"):
        read(tmp_path / "data" / "train")


def test_arguments_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path)
    for message, options in (
        ("as 1 or 3, got 4", {"channels": 4}),
        (r"7 is less than the size \(8, 6\); give 8", {"resize": 7}),
        ("limit: expected 1 or more, got 0", {"limit": 0}),
        ("size: expected 1 or more, got 0", {"size": (0, 8)}),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, **options)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="arrays are not resized"):
        read(tmp_path / "x.npy", resize=9)
    with pytest.raises(InputError, match="is a file; load_images takes"):
        stream_images(tmp_path / "x.npy", size=8, channels=3)
    with pytest.raises(InputError, match="batch_size: expected 1 or more"):
        stream_images(tmp_path, size=8, channels=3, batch_size=0)
