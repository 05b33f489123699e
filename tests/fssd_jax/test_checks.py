import inspect
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
from PIL import Image

from analysis.concentration import concentration
from analysis.displacement import decompose
from fssd_jax import InputError, checks, estimate_singularity, look, map_batches, models
from fssd_jax.data.folders import load_images
from fssd_jax.detectors import knn, mahalanobis, msp
from fssd_jax.questions import Question
from fssd_jax.train import accuracy, train

GOOD = np.full((5, 4, 4, 1), 0.5, np.float32)


def spoiled(value):
    x = GOOD.copy()
    x[3, 1, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (spoiled(np.nan), "image 3 holds NaN or infinite"),
        (spoiled(np.inf), "image 3 holds NaN or infinite"),
        (spoiled(-np.inf), "image 3 holds NaN or infinite"),
        (spoiled(255.0), r"lie in \[0, 1\], found 0.5 to 255; divide by 255"),
        (np.full((2, 1, 1, 3), 256), "0-255, found 256 to 256"),
        (np.full((2, 1, 1, 3), -1), "0-255, found -1"),
        (np.ones((2, 4, 4), int), r"int64\[2, 4, 4\]: pixels \[.*, or ids\?"),
        (np.full((2, 3), 2**31), "ids must be below 2³¹, found 2147483648"),
        (spoiled(-0.1), r"found -0.1 to 0.5; scale them back, or pass unit_range"),
        (spoiled(300.0), "found 0.5 to 300; scale them back"),
        (GOOD[:0], "empty"),
        (np.float32(3), "rank 2 or more"),
        (np.ones(5), r"x\[None\]"),
        (GOOD.astype(complex), "dtype complex128"),
        ([["a"]], "expected integers 0-255 or floats"),
    ],
)
def test_bad_images(x, message):
    with pytest.raises(InputError, match=message):
        checks.images(x)


@pytest.mark.parametrize(
    "x",
    [
        *(GOOD, np.uint8(GOOD * 255), np.full((2, 3), 255), GOOD > 0),
        # What is advised for integers of three axes.
        *(np.ones((2, 4, 4), np.uint8), np.ones((2, 4, 4, 1), int)),
        np.ones((2, 4, 4), int).reshape(2, -1),
    ],
)
def test_good_images_come_back_as_they_are(x):
    assert checks.images(x) is x


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr"])
def test_numbers_of_a_palette_and_the_like_are_no_pixels(mode):
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(colours).convert(mode)
    for given in (image, [image, image]):
        with pytest.raises(InputError, match=rf"mode {mode}, .*convert\(\"RGB\"\)"):
            checks.to_numpy(given)
    advised = checks.to_numpy(Image.fromarray(colours).convert(mode).convert("RGB"))
    # A palette has fewer colours, and the others are rounded.
    assert np.abs(advised.astype(int) - colours).mean() < 40
    for mode in ("1", "L", "RGB", "RGBA"):
        taken = Image.fromarray(colours).convert(mode)
        np.testing.assert_array_equal(checks.to_numpy(taken), np.asarray(taken))


def test_other_ranges_are_allowed_when_asked_for():
    assert checks.images(spoiled(-7.0), unit_range=False).min() == -7
    with pytest.raises(InputError, match="NaN"):
        checks.images(spoiled(np.nan), unit_range=False)


def the_input(variables, x):
    return OrderedDict(image=x)


def as_logits(variables, x):
    return x.reshape(len(x), -1)[:, :3]


PIXELS = np.arange(6 * 16, dtype=np.float32).reshape(6, 4, 4, 1)  # 0 to 95
STAR = estimate_singularity(the_input, {}, PIXELS / 255)
Y = np.arange(6) % 3


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (map_batches, (msp.score, as_logits, {}, msp.fit(), PIXELS)),
        (look, ({"msp": Question(msp.score, as_logits, msp.fit())}, {}, PIXELS)),
        (estimate_singularity, (the_input, {}, PIXELS)),
        (partial(knn.fit, k=1), (the_input, {}, PIXELS, "image")),
        (mahalanobis.estimate_gaussians, (the_input, {}, PIXELS, Y, 3)),
        (accuracy, (as_logits, {}, PIXELS, Y)),
        (concentration, (the_input, {}, STAR, PIXELS)),
        (decompose, (the_input, {}, {}, STAR, PIXELS)),
    ],
)
def test_who_advises_unit_range_takes_it(function, args):
    assert "unit_range" in inspect.signature(function).parameters
    with pytest.raises(InputError, match="divide by 255, or pass unit_range=False"):
        function(*args)
    function(*args, unit_range=False)


def test_who_does_not_take_unit_range_advises_something_else(tmp_path):
    np.savez(tmp_path / "a.npz", x=PIXELS)
    fit = partial(train, models.LeNet(3), num_classes=3, seed=0, epochs=1)
    outliers = {"y": Y, "outliers": PIXELS}
    for function, words in (
        (partial(fit, PIXELS, Y), "training images: .*let the model itself map"),
        (partial(fit, PIXELS / 255, **outliers), "outliers: .*let the model itself"),
        (partial(load_images, tmp_path / "a.npz", size=4, channels=1), "write the fil"),
    ):
        assert "unit_range" not in inspect.signature(function).parameters
        with pytest.raises(InputError, match=f"{words}") as error:
            function()
        assert "unit_range" not in str(error.value)
        assert "found 0 to 95; divide by 255, and" in str(error.value)


def test_a_bad_image_is_found_beyond_the_first_chunk(monkeypatch):
    monkeypatch.setattr(checks, "CHUNK", 2)
    with pytest.raises(InputError, match="image 3 holds"):
        checks.images(spoiled(np.nan))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 2], r"shape \(4,\), got \(3,\)"),
        ([0, 1, 2, 3], "found 0 to 3, expected 0 to 2"),
        ([0, -1, 2, 1], "found -1"),
        ([1, 1, 1, 1], "one class only"),
        ([0.0, 1.0, 2.0, 1.0], "integer class indices"),
        (np.eye(4), "one label per image"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(InputError, match=message):
        checks.labels(y, 4, 3)


@pytest.mark.parametrize("count", [0, -1, True])
def test_what_is_no_number_of_classes(count):
    with pytest.raises(InputError, match="num_classes: expected 1 or more, got"):
        checks.labels([0, 1], 2, count)


@pytest.mark.parametrize("value", [-1, None, True, 2.0, "2", np.ones(2, int)])
def test_what_is_no_number_of_workers_or_level(value):
    with pytest.raises(InputError, match="workers: expected 0 or more, got"):
        checks.at_least(0, "workers", value)
    with pytest.raises(InputError, match="level: expected one of 1, 2, got"):
        checks.one_of("level", value, (1, 2))


def test_numpys_numbers_are_numbers():
    assert checks.one_of("level", np.int64(2), (1, 2)) == 2
    checks.at_least(0, "workers", np.int64(0))


def test_good_labels():
    assert checks.labels([0, 2, 1], 3, 3).dtype == np.int32


def test_images_whose_white_is_1_are_told_however_late_it_comes():
    x = np.zeros((checks.CHUNK + 2, 1, 1, 1), np.uint8)
    checks.not_bits(x, "images")  # black, and that they may be
    x[-1] = 1
    with pytest.raises(InputError, match="images: its bytes are 0 and 1, where 255"):
        checks.not_bits(x, "images")
    for other in (x.astype(np.float32), x.astype(bool), 2 * x):
        checks.not_bits(other, "images")
