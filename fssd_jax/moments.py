"""Class means and their common covariance, batch by batch, in float64 on the host.

In float32 the rounding of Σ exceeds the ridge where few of many units vary, and decides
what lies outside of their span.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float

from fssd_jax import checks


class Moments(NamedTuple):
    """Of the features of one layer; `add` changes the arrays."""

    count: Float[np.ndarray, " classes"]
    mean: Float[np.ndarray, "classes dim"]
    scatter: Float[np.ndarray, "dim dim"]  # Σ_i (f_i − μ_y)(f_i − μ_y)ᵀ


def nothing(num_classes: int, dim: int) -> Moments:
    """Of no image."""
    return Moments(
        np.zeros(num_classes), np.zeros((num_classes, dim)), np.zeros((dim, dim))
    )


def add(name: str, total: Moments, f, y: np.ndarray) -> None:
    """Join the moments of a batch (Chan, Golub and LeVeque 1979), class by class.

    It costs what the classes in the batch cost, however many others there are.

    Args:
      name: of the layer.
      total: to which the batch is added.
      f: features [batch, dim].
      y: classes [batch].

    Raises:
      InputError: features that are not finite.
    """
    f = np.asarray(f, np.float64)
    if not np.isfinite(f).all():
        raise checks.InputError(
            f"layer {name!r} has features that are not finite on training images; "
            "leave it out: make_feature_fn(model, layers=[...]), or look what the "
            "network makes of them"
        )
    present, index, count = np.unique(y, return_inverse=True, return_counts=True)
    mean = np.zeros((len(present), f.shape[1]))
    np.add.at(mean, index, f)
    mean /= count[:, None]
    before = total.count[present]
    share = count / (before + count)
    gap = mean - total.mean[present]
    weighted = (share * before)[:, None] * gap
    own = f - mean[index]
    total.scatter[:] += own.T @ own + weighted.T @ gap
    total.mean[present] += share[:, None] * gap
    total.count[present] += count


def all_as_one(moments: Moments) -> Moments:
    """Of all classes together, as if they were one."""
    n = moments.count.sum()
    mean = moments.count @ moments.mean / n
    gap = moments.mean - mean
    between = (moments.count[:, None] * gap).T @ gap
    return Moments(np.array([n]), mean[None], moments.scatter + between)


def lower_factor(
    name: str, moments: Moments, ridge: float
) -> Float[np.ndarray, "dim dim"]:
    """L, lower triangular, with L Lᵀ = Σ + ridge · tr Σ / dim · 1.

    Raises:
      InputError: nothing varies, or Σ is singular and the ridge too small.
    """
    sigma = moments.scatter / moments.count.sum()
    # What is constant has the variance of float32's rounding.
    rounding = np.square(np.finfo(np.float32).eps * moments.mean).mean(0)
    if not np.any(np.diag(sigma) > rounding):
        raise checks.InputError(
            f"layer {name!r} has the same features for all images of a class "
            "(dead units, or one image a class?); leave it out: "
            "make_feature_fn(model, layers=[...])"
        )
    np.fill_diagonal(sigma, np.diag(sigma) + ridge * sigma.trace() / len(sigma))
    try:
        return scipy.linalg.cholesky(sigma, lower=True)
    except np.linalg.LinAlgError as error:
        raise checks.InputError(
            f"layer {name!r}: the covariance of its features is singular, beside the "
            f"ridge {ridge:g}; give a larger one, such as ridge=1e-6"
        ) from error
