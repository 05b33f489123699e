"""Crops against torchvision's formula, written out, and its distribution."""

from functools import partial
from inspect import unwrap  # of the check of types, which users do not have

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ks_2samp, kstest

from fssd_jax import InputError
from fssd_jax.data.crops import (
    centre_crop,
    height_width,
    random_box,
    random_resized_crop,
)

RNG = np.random.default_rng(0)
equal = np.testing.assert_array_equal


def boxes(height, width, count=4000):
    rng = np.random.default_rng(1)
    drawn = [random_box(rng, (height, width)) for _ in range(count)]
    return np.array(drawn).T  # top, left, height, width


def of_torchvision(height, width, count):
    """RandomResizedCrop.get_params, all tries at once: [height, width] that fit."""
    rng = np.random.default_rng(2)
    area = height * width * rng.uniform(0.08, 1, (count, 10))
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), (count, 10)))
    wide, tall = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (0 < wide) & (wide <= width) & (0 < tall) & (tall <= height)
    rows = np.flatnonzero(fits.any(1))
    first = fits.argmax(1)[rows]
    return tall[rows, first], wide[rows, first]


@pytest.mark.parametrize("stored", [(1000, 1000), (600, 900)])
def test_boxes_are_distributed_as_torchvisions(stored):
    top, left, tall, wide = boxes(*stored)
    height, width = stored
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()
    their_tall, their_wide = of_torchvision(*stored, 4000)
    assert ks_2samp(tall * wide, their_tall * their_wide).pvalue > 0.01
    assert ks_2samp(wide / tall, their_wide / their_tall).pvalue > 0.01
    # Where there is room, each corner is as likely: u + noise, for numbers are whole.
    noise = RNG.uniform(size=(2, len(top)))
    assert kstest((top + noise[0]) / (height - tall + 1), "uniform").pvalue > 0.01
    assert kstest((left + noise[1]) / (width - wide + 1), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("stored", "box"),
    [  # nothing of ratio 3/4 to 4/3 and an area of 8 % fits
        ((10, 1000), (0, 493, 10, 13)),
        ((1000, 10), (493, 0, 13, 10)),
    ],
)
def test_a_long_image_is_cut_in_its_centre(stored, box):
    assert random_box(np.random.default_rng(0), stored) == box
    whole = dict(area=(4.0, 5.0), ratio=(0.5, 2.0))  # fits never
    assert random_box(np.random.default_rng(0), (30, 40), **whole) == (0, 0, 30, 40)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_is_the_box_resized_and_half_are_mirrored(channels):
    image = RNG.integers(0, 256, (40, 50, channels), np.uint8)
    mirrored = 0
    for seed in range(60):
        found = random_resized_crop(image, np.random.default_rng(seed), size=(12, 16))
        top, left, tall, wide = random_box(np.random.default_rng(seed), (40, 50))
        part = Image.fromarray(image[top : top + tall, left : left + wide].squeeze())
        part = np.asarray(part.resize((16, 12), Image.Resampling.BILINEAR))
        part = part.reshape(12, 16, channels)
        turned = np.array_equal(found, part[:, ::-1])
        assert turned or np.array_equal(found, part)
        mirrored += turned
    assert 15 < mirrored < 45
    still = random_resized_crop(image, np.random.default_rng(0), size=9, flip=False)
    assert still.shape == (9, 9, channels)


def test_what_is_no_image_of_pixels_is_told_so():
    with pytest.raises(InputError, match=r"takes uint8 images .* float64\[4, 4, 3\]"):
        centre_crop(np.zeros((4, 4, 3)), size=2)
    with pytest.raises(InputError, match="over the limit"):
        centre_crop(np.zeros((1, 100_000, 1), np.uint8), size=224)
    for size in (0, 4.0, (4,), "4", (4, 4.0), np.ones(2)):
        with pytest.raises(InputError, match="size: expected 1 or more"):
            unwrap(height_width)(size)
    drawn = partial(random_resized_crop, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="over the limit"):
        drawn(np.zeros((4, 4, 3), np.uint8), size=10**5)
    for crop in (drawn, partial(centre_crop, resize=None)):
        with pytest.raises(InputError, match=r"uint8\[0, 4, 3\].*no pixel"):
            crop(np.zeros((0, 4, 3), np.uint8), size=2)
    assert unwrap(height_width)(np.int64(2)) == (2, 2)
    with pytest.raises(InputError, match="resize: 256 is less than the size"):
        centre_crop(np.zeros((4, 4, 3), np.uint8), size=299)
