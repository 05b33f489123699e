"""How far features lie from one point: the concentration of Figure 3, as a number."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.data.pipeline import map_batches
from fssd_jax.fssd import Singularity, norm
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool
from fssd_jax.shown import brief


class Concentration(NamedTuple):
    """Of one set of images: a number for each layer."""

    # Root mean squared ‖F(x) − F*‖ / ‖F*‖: 0 where all features are the singularity;
    # 1 is as far from it as the origin.
    distance: np.ndarray
    cosine: np.ndarray  # mean cosine of the angle between F(x) and F*; 0 if F(x) = 0

    __repr__ = brief


def concentration(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Concentration:
    """The claim of Figure 3, F_0(x) ≈ F*, measured.

    Both numbers are free of the scale of the features, not of where their origin is.
    Compare with those of what the network is given, the normalised pixels.

    Args:
      feature_fn: the layers.
      variables: of the network, before training or at any time.
      singularity: F*, of these variables.
      x: images [n, ...].
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    found = each(feature_fn, variables, singularity, x, batch_size, unit_range)
    return of_images(*found)


def each(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Float[np.ndarray, "2 image layers"]:
    """‖F(x) − F*‖² / ‖F*‖² and the cosine of F(x) and F* of each image and layer."""
    found = map_batches(
        _measures, feature_fn, variables, singularity, x,
        batch_size=batch_size, unit_range=unit_range, batch_axis=1,
    )  # fmt: skip
    return np.asarray(found)


def of_images(
    squares: Float[np.ndarray, "image layers"],
    cosines: Float[np.ndarray, "image layers"],
) -> Concentration:
    """The set's numbers, of those of each image."""
    squares, cosines = np.asarray(squares, np.float64), np.asarray(cosines, np.float64)
    return Concentration(np.sqrt(squares.mean(0)), cosines.mean(0))


def with_batch_statistics(
    model: nn.Module, variables: Variables, x: Float[np.ndarray, "batch ..."]
) -> Variables:
    """The variables with BatchNorm's running statistics replaced by those of a batch.

    As drawn, BatchNorm is the identity; at the first step of training it is not. The
    model's momentum m need not be known: running' = m · running + (1 − m) · batch gives
    r₁ = (1 − m) · batch from running = 0, and r₂ = (1 + m) · r₁ once more from there.
    """
    key = jax.random.key(0)  # of dropout, which may come before the last statistics

    @jax.jit
    def after(statistics, variables, x):
        _, updated = model.apply(
            {**variables, "batch_stats": statistics},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return updated["batch_stats"]

    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    once = after(zeros, variables, x)
    twice = after(once, variables, x)
    # As ratios, because batch statistics may be as large as they like.
    statistics = jax.tree.map(
        lambda one, two: one / (2 - jnp.where(one == 0, 1, two / one)), once, twice
    )
    return {**variables, "batch_stats": statistics}


def _measures(feature_fn, variables, singularity, x) -> Float[Array, "2 batch layers"]:
    features = pool(features_of(feature_fn, variables, x), "flatten")
    rows = []
    for layer, center in singularity.center.items():
        f, length = features[layer], jnp.linalg.norm(center)
        lengths = norm(f) * length
        cosine = jnp.where(
            lengths > 0, f @ center / jnp.where(lengths > 0, lengths, 1), 0
        )
        rows.append(
            jnp.stack([jnp.square(f - center[None]).sum(-1) / length**2, cosine])
        )
    return jnp.stack(rows, -1)
