"""Training losses."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

COSFACE_SCALE = 64.0  # s of Wang et al. (2018), as in the released face networks


def cross_entropy(
    logits: Float[Array, "batch classes"], y: Int[Array, " batch"]
) -> Float[Array, ""]:
    """−(1/n) Σ_i log p(y_i | x_i)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def squared(
    logits: Float[Array, "batch classes"], y: Int[Array, " batch"]
) -> Float[Array, ""]:
    """(1/2n) Σ_i ‖f(x_i) − (onehot(y_i) − 1/C)‖²: targets whose mean is 0."""
    classes = logits.shape[-1]
    target = jax.nn.one_hot(y, classes, dtype=logits.dtype) - 1 / classes
    return 0.5 * jnp.square(logits - target).sum(-1).mean()


def cosface(
    logits: Float[Array, "batch classes"],
    y: Int[Array, " batch"],
    margin: float = 0.35,
) -> Float[Array, ""]:
    """Cross-entropy of s·cos θ_c, less s·m where c is the image's own class.

    Wang et al. (2018), "CosFace", Eq. (4); the logits are those of
    `fssd_jax.models.resnet.CosineHead`, and s = 64.
    """
    own = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype)
    return cross_entropy(logits - COSFACE_SCALE * margin * own, y)


def to_uniform(logits: Float[Array, "outliers classes"]) -> Float[Array, ""]:
    """Outlier Exposure: −(1/n) Σ_i (1/C) Σ_c log p(c | x_i), least at uniform p.

    Hendrycks, Mazeika and Dietterich (2019), "Deep Anomaly Detection with Outlier
    Exposure", added to the cross-entropy with weight 0.5.
    """
    return -jax.nn.log_softmax(logits, axis=-1).mean()
