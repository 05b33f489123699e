"""Rivals that see pixels and no network: what any method must pass.

Images are [n, ...], integers 0–255 or floats in [0, 1]; scores are [n], higher for what
is taken to be in-distribution. None is fitted on an OoD image.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from fssd_jax.data.inputs import as_input, joined

CHUNK = 256  # images of which pixels are looked at together, as floats
RIDGE = 1e-3


def nearest(reference, images) -> Float[np.ndarray, " n"]:
    """−min_m ‖x − x_m‖ over the reference images x_m."""
    from sklearn.neighbors import NearestNeighbors  # slow: see `data.embedded`

    found = NearestNeighbors(n_neighbors=1).fit(flat(reference))
    return _of_parts(lambda part: -found.kneighbors(part)[0][:, 0], images)


def brightness(images) -> Float[np.ndarray, " n"]:
    """The mean of the pixels."""
    return _of_parts(partial(np.mean, axis=1), images)


def rbf_regression(
    reference, targets: np.ndarray, images, length: float
) -> Float[np.ndarray, " n"]:
    """‖f(x)‖ of kernel ridge regression with exp(−‖x − x_m‖² / 2(ℓ·median)²).

    Args:
      reference: [m, ...] images with `targets` [m, classes].
      images: scored.
      length: ℓ, in medians of the distance between two reference images.
    """
    from sklearn.kernel_ridge import KernelRidge  # slow: see `data.embedded`

    train = flat(reference)
    between = cdist(train, train)
    median = np.median(between[np.triu_indices(len(train), 1)])
    gamma = 1 / (2 * (length * median) ** 2)
    model = KernelRidge(kernel="rbf", gamma=gamma).set_params(alpha=RIDGE)
    model.fit(train, targets)
    return np.linalg.norm(model.predict(flat(images)), axis=1)


def distances(images, reference) -> Float[np.ndarray, "n m"]:
    """‖x − x_m‖ of every pair."""
    return cdist(flat(images), flat(reference))


def block_means(
    x: Float[np.ndarray, "n h w c"], block: int
) -> Float[np.ndarray, "n h2 w2 c"]:
    """Of squares of `block` pixels; what is left at the far edges is cut off."""
    n, h, w, c = x.shape
    h, w = h // block, w // block
    x = x[:, : h * block, : w * block]
    return x.reshape(n, h, block, w, block, c).mean((2, 4))


def flat(images) -> Float[np.ndarray, "n pixels"]:
    x = as_input(joined(images))
    return x.reshape(len(x), -1)


def _of_parts(measure: Callable, images) -> np.ndarray:
    return np.concatenate([measure(part) for part in _parts(images)])


def _parts(images) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK):
        yield flat(images[start : start + CHUNK])
