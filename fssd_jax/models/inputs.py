"""What all image networks do first."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from fssd_jax.checks import InputError


def normalised(
    x, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "batch height width channel"]:
    """(x − mean) / std by channel; x are raw images in [0, 1].

    The normalisation is part of the network, so that noise and ε are in pixel units.

    Raises:
      InputError: x is not [batch, height, width, channel] with as many channels.
    """
    if x.ndim != 4 or x.shape[-1] != len(mean) or len(mean) != len(std):
        advice = "grey images need a last axis of 1: x[..., None]"
        if x.ndim == 4 and x.shape[1] == len(mean):
            advice = "the channels come last: x.transpose(0, 2, 3, 1)"
        raise InputError(
            f"expected images [batch, height, width, {len(mean)}], got shape {x.shape}"
            f" (mean and std are given for {len(mean)} and {len(std)} channels); "
            f"{advice}"
        )
    mean_, std_ = (jnp.asarray(a, jnp.float32)[None, None, None] for a in (mean, std))
    return (x - mean_) / std_
