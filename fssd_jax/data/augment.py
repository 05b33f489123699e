"""Augmentation on the fly: pure functions of a key and a batch of raw images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def crop_and_flip(
    key: PRNGKeyArray, x: Float[Array, "batch height width channel"], padding: int = 4
) -> Float[Array, "batch height width channel"]:
    """Shift each image by up to `padding` pixels, black beyond its edge; flip half.

    What torchvision calls RandomCrop with zero padding, and RandomHorizontalFlip. It
    sees raw pixels, so what is filled in is black, and not the mean.
    """
    shifts, flips = jax.random.split(key)
    corners = jax.random.randint(shifts, (len(x), 2), 0, 2 * padding + 1)
    wide = ((0, 0), (padding, padding), (padding, padding), (0, 0))

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:])

    x = jax.vmap(crop)(jnp.pad(x, wide), corners)
    flipped = jax.random.bernoulli(flips, shape=(len(x), 1, 1, 1))
    return jnp.where(flipped, x[:, :, ::-1], x)
