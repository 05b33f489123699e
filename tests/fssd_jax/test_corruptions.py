"""Noises and shuffles, by what they must keep and what they must not."""

import jax
import numpy as np
import pytest

from fssd_jax.checks import InputError
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


def test_means_of_images_are_of_so_many_that_differ():
    """Images are powers of two, so that a sum tells which they were of."""
    images = (2.0 ** -np.arange(10)).reshape(10, 1, 1, 1)
    labels = np.arange(10) % 3
    for of, how, count in (
        (4, {}, None),
        (3, {"labels": labels}, 1),
        (3, {"labels": labels, "same": False}, 3),
    ):
        found = corruptions.mixed(images, 60, of, jax.random.key(0), **how)
        assert found.shape == (60, 1, 1, 1)
        sums = np.rint(found.ravel() * of * 2**9).astype(int)
        some = [[9 - k for k in range(10) if s >> k & 1] for s in sums]
        assert {len(one) for one in some} == {of}
        if count:
            assert {len(set(labels[one])) for one in some} == {count}
        assert len(set(map(tuple, some))) > 3  # not the same ones each time


def test_there_must_be_as_many_images_of_a_mean():
    images, labels = np.zeros((9, 2, 2, 1)), np.arange(9) % 3
    for of, how in ((10, {}), (4, {"labels": labels}), (0, {})):
        with pytest.raises(InputError, match="of: expected 1 to"):
            corruptions.mixed(images, 5, of, jax.random.key(0), **how)
    with pytest.raises(InputError, match="1 to 3 images of a mean, got 4"):
        corruptions.mixed(images, 5, 4, jax.random.key(0), labels, same=False)


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_tiles_are_shuffled_and_what_is_left_stays(tiles):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), np.uint8)
    found = corruptions.shuffled_tiles(images, 20, tiles, jax.random.key(0))
    side = 8 // tiles
    edge = tiles * side

    def cut(x):
        parts = x[:edge, :edge].reshape(tiles, side, tiles, side, 2).swapaxes(1, 2)
        return sorted(map(bytes, parts.reshape(tiles**2, -1)))

    moved = 0
    for made in np.rint(found * 255).astype(np.uint8):
        (own,) = [x for x in images if cut(x) == cut(made)]
        np.testing.assert_array_equal(made[edge:], own[edge:])
        np.testing.assert_array_equal(made[:, edge:], own[:, edge:])
        moved += not np.array_equal(made, own)
    assert moved == (0 if tiles == 1 else pytest.approx(20, abs=4))


def test_what_has_no_tiles_is_told():
    images, key = np.zeros((5, 8, 6, 1), np.float32), jax.random.key(0)
    for wrong in (images[..., 0], np.zeros((5, 20), int), images[:0], []):
        with pytest.raises(InputError, match=r"expected \[n, height, width, channel\]"):
            corruptions.shuffled_tiles(wrong, 3, 2, key)
    for tiles in (0, 7):
        with pytest.raises(InputError, match=f"into 1 to 6, got {tiles}"):
            corruptions.shuffled_tiles(images, 3, tiles, key)
    with pytest.raises(InputError, match="a side of 1 pixels"):
        corruptions.shuffled_tiles(images[:, :1], 3, 2, key)
    some = np.random.default_rng(0).random((4, 8, 6, 1)).astype(np.float32)
    found = [corruptions.shuffled_tiles(x, 3, 2, key) for x in (some, list(some))]
    np.testing.assert_array_equal(*found)
