import numpy as np
import pytest

from fssd_jax import InputError, checks

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
        (spoiled(-0.1), r"lie in \[0, 1\]"),
        (np.full((2, 1, 1, 3), 256), "0-255, found 256 to 256"),
        (np.full((2, 1, 1, 3), -1), "0-255, found -1"),
        (np.full((2, 3), 2**31), "ids must be below 2³¹, found 2147483648"),
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
    "x", [GOOD, np.uint8(GOOD * 255), np.full((2, 3), 255), GOOD > 0]
)
def test_good_images_come_back_as_they_are(x):
    assert checks.images(x) is x


def test_other_ranges_are_allowed_when_asked_for():
    assert checks.images(spoiled(-7.0), unit_range=False).min() == -7
    with pytest.raises(InputError, match="NaN"):
        checks.images(spoiled(np.nan), unit_range=False)


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


def test_good_labels():
    assert checks.labels([0, 2, 1], 3, 3).dtype == np.int32
