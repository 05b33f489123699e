"""Noises and shuffled images: centres for F* and stand-ins for OoD images.

Each is a function of images, or of noise, and a key.
"""

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from fssd_jax.checks import InputError
from fssd_jax.data.inputs import as_input

TILES = 4  # a side, of an image cut into tiles
SIGMA = 0.3  # of Gaussian noise, in [0, 1] units


def shuffled_pixels(
    images, count: int, key: PRNGKeyArray
) -> Float[np.ndarray, "count height width channel"]:
    """Noise with the images' own distribution of pixel values.

    Images drawn from `images` [n, ...], the pixels of each in an order of its own.
    """
    chosen = jax.random.choice(key, len(images), (count,))
    drawn = as_input(images[np.asarray(chosen)])
    flat = drawn.reshape(count, -1, drawn.shape[-1])
    order = np.tile(np.arange(flat.shape[1]), (count, 1))
    order = _generator(key).permuted(order, axis=1)
    return np.take_along_axis(flat, order[..., None], axis=1).reshape(drawn.shape)


def scaled_noise(noise, key: PRNGKeyArray) -> Float[np.ndarray, "n ..."]:
    """U[0, 1] noise, each image multiplied by a number of its own from U[0, 1]."""
    per_image = (len(noise), *(1,) * (noise.ndim - 1))
    return np.asarray(noise * jax.random.uniform(key, per_image))


def mixed(
    images, count: int, of: int, key: PRNGKeyArray, labels=None, same: bool = True
) -> Float[np.ndarray, "count height width channel"]:
    """Means of `of` images each: where the network has nothing to hold on to, and yet
    in the range and of the colours of the data.

    Args:
      images: [n, ...].
      count: how many means.
      of: images of each, drawn without replacement.
      key: of the draws.
      labels: [n] classes; None: images of any.
      same: whether the images of a mean are of one class, or all of other classes.

    Raises:
      InputError: too few images, or classes, for a mean.
    """
    rng, n = _generator(key), len(images)
    if labels is None:
        groups = [np.arange(n)]
    else:
        labels = np.asarray(labels)
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    different = labels is not None and not same
    most = len(groups) if different else min(map(len, groups))
    if not 1 <= of <= most:
        raise InputError(
            f"of: expected 1 to {most} images of a mean, got {of}; give more images"
        )

    def one() -> np.ndarray:
        if different:
            some = rng.choice(len(groups), of, replace=False)
            return np.array([rng.choice(groups[g]) for g in some])
        group = groups[rng.integers(len(groups))]
        return rng.choice(group, of, replace=False)

    return np.stack([as_input(images[np.sort(one())]).mean(0) for _ in range(count)])


def shuffled_tiles(
    images, count: int, tiles: int, key: PRNGKeyArray
) -> Float[np.ndarray, "count height width channel"]:
    """Images drawn from `images` [n, ...], the `tiles`² tiles of each shuffled.

    What is left at the lower and right edge, where the side cannot be divided, stays.

    Raises:
      InputError: no images [n, height, width, channel], or tiles that they have not.
    """
    shape = np.shape(images) if isinstance(images, list) else images.shape
    if len(shape) != 4 or not shape[0]:
        raise InputError(
            f"images: expected [n, height, width, channel], got {list(shape)}; grey "
            "images [n, height, width] are images[..., None]"
        )
    side = min(shape[1:3])
    if not 1 <= tiles <= side:
        raise InputError(
            f"tiles: a side of {side} pixels can be cut into 1 to {side}, got {tiles}"
        )
    images = np.stack(images) if isinstance(images, list) else images
    chosen = np.asarray(jax.random.choice(key, len(images), (count,)))
    rng = _generator(key)
    return np.stack([_shuffled_tiles(x, rng, tiles) for x in as_input(images[chosen])])


def corrupted(images, key: PRNGKeyArray) -> Float[np.ndarray, "n height width channel"]:
    """As many images, a quarter each: uniform noise instead of the image, Gaussian
    noise (σ = 0.3) upon it, its pixels shuffled, its 16 tiles shuffled.
    """
    images = as_input(images)
    rng = _generator(key)
    n, h, w, c = images.shape
    parts = np.array_split(rng.permutation(n), 4)
    made = images.copy()
    made[parts[0]] = rng.uniform(size=(len(parts[0]), h, w, c))
    noisy = images[parts[1]] + rng.normal(0, SIGMA, (len(parts[1]), h, w, c))
    made[parts[1]] = noisy.clip(0, 1)
    for i in parts[2]:
        made[i] = rng.permutation(images[i].reshape(-1, c)).reshape(h, w, c)
    for i in parts[3]:
        made[i] = _shuffled_tiles(images[i], rng)
    return made.astype(np.float32)


def _shuffled_tiles(
    image: np.ndarray, rng: np.random.Generator, tiles: int = TILES
) -> np.ndarray:
    h, w, c = image.shape
    tall, wide = h // tiles, w // tiles
    made, (h, w) = image.copy(), (tall * tiles, wide * tiles)
    cut = image[:h, :w].reshape(tiles, tall, tiles, wide, c).swapaxes(1, 2)
    cut = rng.permutation(cut.reshape(tiles**2, tall, wide, c))
    made[:h, :w] = (
        cut.reshape(tiles, tiles, tall, wide, c).swapaxes(1, 2).reshape(h, w, c)
    )
    return made


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))
