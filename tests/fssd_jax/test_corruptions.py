"""Noises and shuffles, by what they must keep and what they must not."""

import jax
import numpy as np
import pytest

from fssd_jax.data import corruptions


def test_shuffled_pixels_keep_each_images_values():
    train = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 2), np.uint8)
    found = corruptions.shuffled_pixels(train, 50, jax.random.key(0))
    assert found.shape == (50, 5, 4, 2)
    pixels = np.sort((train / np.float32(255)).reshape(30, -1, 2), axis=1)
    own = np.sort(found.reshape(50, -1, 2), axis=1)
    matches = (own[:, None] == pixels[None]).all((2, 3))
    assert np.all(matches.sum(1) == 1)  # the same pixels as one training image
    originals = (train / np.float32(255))[matches.argmax(1)]
    assert not np.any((found == originals).all((1, 2, 3)))  # in another order


def test_scaled_noise_has_a_brightness_of_its_own():
    noise = jax.random.uniform(jax.random.key(1), (400, 6, 6, 1))
    found = corruptions.scaled_noise(noise, jax.random.key(2))
    factor = found / np.asarray(noise)
    one = factor[:, :1, :1]
    np.testing.assert_allclose(factor, np.broadcast_to(one, factor.shape), rtol=1e-5)
    assert one.mean() == pytest.approx(0.5, abs=0.05)
    assert one.std() == pytest.approx(12**-0.5, abs=0.03)


def test_corrupted_images_are_of_four_kinds():
    images = np.random.default_rng(0).uniform(0.4, 0.6, (40, 8, 8, 1))
    images = images.astype(np.float32)
    made = corruptions.corrupted(images, jax.random.key(0))
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    kinds = {"pixels moved": 0, "tiles moved": 0, "other pixels": 0}
    for before, after in zip(images, made, strict=True):
        assert not np.array_equal(before, after)
        if not np.array_equal(np.sort(before.ravel()), np.sort(after.ravel())):
            kinds["other pixels"] += 1
            continue
        corners = [(i, j) for i in range(0, 8, 2) for j in range(0, 8, 2)]
        tiles = [
            {image[i : i + 2, j : j + 2].tobytes() for i, j in corners}
            for image in (before, after)
        ]
        kinds["tiles moved" if tiles[0] == tiles[1] else "pixels moved"] += 1
    assert kinds == {"pixels moved": 10, "tiles moved": 10, "other pixels": 20}


def test_corrupted_images_have_noise_upon_them_and_instead_of_them():
    """Of grey ones: N(0.5, 0.3²) is cut at 0 and at 1 with P = 4.78 % each."""
    made = corruptions.corrupted(np.full((40, 20, 20, 1), 0.5), jax.random.key(0))
    cut = [np.mean(made == end, axis=(1, 2, 3)) for end in (0, 1)]
    for share in cut:
        assert np.sum(share > 0) == 10
        assert share[share > 0].mean() == pytest.approx(0.0478, abs=0.01)
    moved = np.any(made != 0.5, axis=(1, 2, 3))
    noise = made[moved & (cut[0] == 0)]
    assert noise.shape == (10, 20, 20, 1)
    assert noise.std() == pytest.approx(12**-0.5, abs=0.01)
    assert made[moved].mean() == pytest.approx(0.5, abs=0.02)
