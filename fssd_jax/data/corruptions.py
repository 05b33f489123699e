"""Noises and shuffled images: centres for F* and stand-ins for OoD images.

Each is a function of images, or of noise, and a key.
"""

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

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


def _shuffled_tiles(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    h, w, c = image.shape
    tall, wide = h // TILES, w // TILES
    tiles = image.reshape(TILES, tall, TILES, wide, c).swapaxes(1, 2)
    tiles = rng.permutation(tiles.reshape(TILES**2, tall, wide, c))
    tiles = tiles.reshape(TILES, TILES, tall, wide, c).swapaxes(1, 2)
    return tiles.reshape(h, w, c)


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))
