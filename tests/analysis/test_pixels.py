"""The rivals without a network, against their definitions in NumPy."""

import numpy as np
import pytest

from analysis import pixels

RNG = np.random.default_rng(0)
REFERENCE = RNG.integers(0, 256, (40, 3, 3, 1), np.uint8)
IMAGES = RNG.integers(0, 256, (pixels.CHUNK + 9, 3, 3, 1), np.uint8)  # two chunks


def distances():
    x, m = (a.reshape(len(a), -1) / 255 for a in (IMAGES, REFERENCE))
    return np.sqrt(((x[:, None] - m[None]) ** 2).sum(-1))


def test_nearness_is_minus_the_smallest_distance():
    found = pixels.nearest(REFERENCE, IMAGES)
    np.testing.assert_allclose(found, -distances().min(1), atol=1e-6)
    assert pixels.nearest(REFERENCE, REFERENCE).max() == pytest.approx(0, abs=1e-6)


def test_brightness_and_distances():
    np.testing.assert_allclose(
        pixels.brightness(IMAGES), IMAGES.mean((1, 2, 3)) / 255, rtol=1e-5
    )
    np.testing.assert_allclose(
        pixels.distances(IMAGES, REFERENCE), distances(), atol=1e-6
    )


def test_images_may_come_in_batches():
    found = pixels.nearest((part for part in (REFERENCE[:9], REFERENCE[9:])), [IMAGES])
    np.testing.assert_array_equal(found, pixels.nearest(REFERENCE, IMAGES))


def test_rbf_regression_solves_its_equation():
    targets = RNG.normal(size=(40, 2))
    flat = REFERENCE.reshape(40, -1) / 255
    between = np.sqrt(((flat[:, None] - flat[None]) ** 2).sum(-1))
    width = 0.5 * np.median(between[np.triu_indices(40, 1)])
    kernel, other = (np.exp(-(d**2) / (2 * width**2)) for d in (between, distances()))
    weights = np.linalg.solve(kernel + pixels.RIDGE * np.eye(40), targets)
    expected = np.linalg.norm(other @ weights, axis=1)
    found = pixels.rbf_regression(REFERENCE, targets, IMAGES, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
