"""Corruptions against their definitions, computed here in another way."""

import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from fssd_jax.data import frost_pictures
from fssd_jax.data.common_corruptions import disk, elastic_transform, moved, plasma
from fssd_jax.data.corruption_amounts import AMOUNTS
from fssd_jax.data.imagenet_c import LEVELS, noisy
from tests.fssd_jax.corrupted import COLOUR, GREY, image, made

RNG = np.random.default_rng(0)
SETS = ("imagenet", "cifar")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("published", SETS)
def test_noise_has_its_moments(published, level):
    # Far enough from 0 and 1 that σ = 0.1 is not cut off; else the mean is not tested.
    grey = np.full((1, 150, 150, 3), 0.5)
    sigma = AMOUNTS["gaussian_noise"][published][level - 1]
    gauss = made(grey, "gaussian_noise", level, published=published)
    inside = gauss[(gauss > 0) & (gauss < 1)]
    # Of a normal cut off at ±a: the share inside, and the quartiles, are its own.
    assert np.quantile(gauss, 0.75) - 0.5 == pytest.approx(0.6745 * sigma, rel=0.03)
    assert len(inside) / gauss.size > 0.8
    speckle = made(grey, "speckle_noise", level, published=published)
    sigma = AMOUNTS["speckle_noise"][published][level - 1]
    quartile = np.quantile(speckle, 0.75) - 0.5
    assert quartile == pytest.approx(0.6745 * sigma * 0.5, rel=0.03)
    photons = AMOUNTS["shot_noise"][published][level - 1]
    shot = made(grey / 5, "shot_noise", level, published=published)
    assert shot.mean() == pytest.approx(0.1, rel=0.03)
    assert shot.var() == pytest.approx(0.1 / photons, rel=0.05)
    hit = made(grey, "impulse_noise", level, published=published)
    fraction = AMOUNTS["impulse_noise"][published][level - 1]
    assert (hit != 0.5).mean() == pytest.approx(fraction, rel=0.06)
    assert (hit == 1).mean() == pytest.approx(fraction / 2, rel=0.09)
    assert set(np.unique(hit)) == {0, 0.5, 1}


def test_noise_of_colours_is_of_each_channel():
    grey = np.full((1, 100, 100, 3), 0.5)
    for kind in ("gaussian_noise", "impulse_noise", "speckle_noise", "shot_noise"):
        of_channels = np.corrcoef(made(grey, kind).reshape(-1, 3).T)
        assert np.abs(of_channels - np.eye(3)).max() < 0.05


def test_noise_of_any_strength():
    grey = np.full((1, 100, 100, 1), 0.5)
    gauss = noisy(grey, "gaussian_noise", 0.05, workers=0, progress=False)
    assert gauss.std() == pytest.approx(0.05, rel=0.03)
    none = noisy(grey, "impulse_noise", 0.0, workers=0, progress=False)
    np.testing.assert_array_equal(none, grey)
    whole = noisy(grey, "impulse_noise", 1.0, workers=0, progress=False)
    assert set(np.unique(whole)) == {0, 1}


def test_brightness_adds_to_the_value_and_leaves_the_hue():
    x = RNG.random((1, 6, 6, 3))
    x[0, 0, 0] = 0
    found = made(x, "brightness", 4)
    for before, after in zip(x.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        np.testing.assert_allclose(after, wanted, atol=1e-12)


def test_contrast_shrinks_about_the_mean_of_each_channel():
    x = RNG.random((1, 9, 7, 3))
    found = made(x, "contrast", 5)
    mean = x.mean((1, 2))[:, None, None]
    np.testing.assert_allclose(found, mean + 0.15 * (x - mean), atol=1e-12)


def test_blurs_leave_a_constant_and_the_mean():
    flat = np.tile([0.6, 0.2, 0.9], (1, 40, 30, 1))  # channels stay apart
    within = np.zeros((1, 200, 200, 1))
    within[0, 80:120, 90:110] = 1
    for kind in ("defocus_blur", "motion_blur"):
        for level in LEVELS:
            # The published disks of the radii 8 and 10 do not sum to 1.
            off = 0.013 if (kind, level // 4) == ("defocus_blur", 1) else 1e-9
            found = made(flat, kind, level, published="imagenet")
            np.testing.assert_allclose(found, flat, rtol=off)
            found = made(within, kind, level, published="imagenet")
            assert found.sum() == pytest.approx(within.sum(), rel=off)
    np.testing.assert_allclose(made(flat, "zoom_blur"), flat, atol=1e-9)
    glass = made(flat, "glass_blur", published="imagenet")
    np.testing.assert_allclose(glass, flat, atol=1 / 255)


def test_a_disk_is_round_and_as_wide_as_said():
    kernel = disk(6, 0.5)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel.T)
    along = kernel[8] / kernel[8, 8]
    np.testing.assert_allclose(along[4:13], 1)  # within, the rim is not felt
    assert along[2] > 0.5 > along[1] > along[0] == 0


def test_motion_goes_one_way_along_the_angle():
    dot = np.zeros((31, 31, 1))
    dot[15, 15] = 1
    right = moved(dot, 4, 2, 0)[..., 0]
    weights = np.exp(-(np.arange(9) ** 2) / 8)
    np.testing.assert_allclose(right[15, 15:6:-1], weights / weights.sum())
    assert right[15, 16:].sum() == 0
    down = moved(dot, 4, 2, 90)[..., 0]
    np.testing.assert_allclose(down, right.T)


def test_glass_moves_pixels_no_farther_than_its_reach():
    # Without its Gaussians, hardly: σ = 0.05. All values are different.
    x = np.arange(28 * 28, dtype=float).reshape(1, 28, 28, 1) / (28 * 28)
    found = made(x, "glass_blur", 1)
    cell = np.round(found * 28 * 28).astype(int)[0, :, :, 0]
    rows, columns = np.indices((28, 28))
    # 8 bits cut values down to steps of three columns.
    assert np.abs(cell // 28 - rows).max() <= 2
    assert np.mean(np.abs(cell - 28 * rows - columns) > 10) > 0.3


def test_zoom_is_the_mean_of_enlargements():
    x = image(224, 224, 1)[None] / 255
    found = made(x, "zoom_blur", 1)[0, :, :, 0]
    total = x[0, :, :, 0] * 2
    for factor in 1 + 0.01 * np.arange(1, 12):
        cut = int(np.ceil(224 / factor))
        top = (224 - cut) // 2
        # Corner to corner, pixel centres on the corners.
        at = top + np.linspace(0, cut - 1, round(cut * factor))
        at = at[(len(at) - 224) // 2 :][:224]
        below = np.minimum(np.floor(at).astype(int), top + cut - 2)
        part = at - below
        rows = x[0, below, :, 0] * (1 - part)[:, None]
        rows += x[0, below + 1, :, 0] * part[:, None]
        total += rows[:, below] * (1 - part)[None] + rows[:, below + 1] * part[None]
    np.testing.assert_allclose(found, total / 13, atol=1e-9)


def test_pixelate_is_the_mean_of_blocks():
    x = RNG.integers(0, 256, (1, 96, 96, 1), np.uint8)
    found = made(x, "pixelate", 5)  # a quarter of the side
    blocks = x.reshape(24, 4, 24, 4).mean((1, 3))
    wanted = blocks.repeat(4, 0).repeat(4, 1)
    assert np.abs(found[0, :, :, 0] - wanted).max() <= 1


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_jpeg_is_that_of_pillow_at_its_quality(images):
    found = made(images, "jpeg_compression", 2)
    file = io.BytesIO()
    Image.fromarray(images[0].squeeze()).save(file, "JPEG", quality=65)
    wanted = np.asarray(Image.open(file)).reshape(images[0].shape)
    np.testing.assert_array_equal(found[0], wanted)


def test_fog_is_clouds_below_the_brightest():
    x = np.full((1, 64, 64, 1), 0.8)
    strength, _ = AMOUNTS["fog"]["imagenet"][2]
    clouds = made(x, "fog") * (0.8 + strength) / 0.8 - 0.8
    assert clouds.min() == pytest.approx(0)
    assert clouds.max() == pytest.approx(strength)
    # Neighbours are alike: of a fractal, and not of noise.
    assert np.abs(np.diff(clouds, axis=1)).mean() < 0.2 * clouds.std()


def test_plasma_of_a_slower_decay_is_rougher():
    rough, even = (plasma(64, d, np.random.default_rng(1)) for d in (1.4, 3))
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(even)).mean()
    assert (rough.min(), rough.max()) == (0, 1)


def test_snow_whitens_and_falls():
    x = np.full((4, 64, 64, 3), 0.3)
    found = made(x, "snow", 1)
    white = 0.8 * 0.3 + 0.2 * (0.3 * 1.5 + 0.5)
    assert np.median(found) == pytest.approx(white, abs=0.01)
    assert found.min() == pytest.approx(white)
    flakes = found[..., 0] - white
    np.testing.assert_allclose(flakes, flakes[:, ::-1, ::-1])  # twice, half turned
    down, across = (np.abs(np.diff(flakes, axis=a)).mean() for a in (1, 2))
    assert down < across  # streaks are steeper than 45°


def test_frost_lays_a_piece_of_a_photograph_on(photographs):
    x = np.full((1, 40, 50, 3), 0.4)
    kept, laid, _ = AMOUNTS["frost"]["imagenet"][1]
    found = []
    for seed in range(3):
        frosted = made(x, "frost", 2, seed, published="imagenet")
        piece = np.round((frosted[0] - kept * 0.4) / laid * 255).astype(np.uint8)
        for name in frost_pictures.NAMES:
            picture = np.asarray(Image.open(photographs / name))
            begins = np.argwhere((picture[:260, :300] == piece[0, 0]).all(-1))
            for top, left in begins:
                if np.array_equal(piece, picture[top : top + 40, left : left + 50]):
                    found.append((top, left))
    assert len(found) == 3
    assert len(set(found)) == 3  # from anywhere in it


def test_elastic_moves_points_and_then_all_by_a_smooth_field():
    ramp = np.broadcast_to(np.arange(224) / 224, (224, 224))[..., None]
    found = made(ramp[None], "elastic_transform", 1)
    middle = (found[0] - ramp)[60:164, 60:164]
    # Three points move by a tenth of the side at most, the field by little at σ = 0.7.
    assert 0 < np.abs(middle).max() < 0.35
    rng = np.random.default_rng(0)
    still = elastic_transform(ramp, (0, 0.01, 0), rng)
    np.testing.assert_allclose(still, ramp, atol=1e-9)
    bent = (elastic_transform(ramp, (0.2, 0.03, 0), rng) - ramp)[60:164, 60:164]
    assert bent.std() > 0.001
    assert np.abs(np.diff(bent, axis=0)).mean() < 0.3 * bent.std()
    flat = np.full((1, 224, 224, 3), 0.7)
    np.testing.assert_allclose(made(flat, "elastic_transform", 5), flat)
