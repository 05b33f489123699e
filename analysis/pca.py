"""Principal components of features, in one fixed basis that all sets share."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fssd_jax.shown import brief


class Basis(NamedTuple):
    mean: np.ndarray  # [dim]
    components: np.ndarray  # [components, dim], orthonormal rows
    share: np.ndarray  # [components] of the variance explained

    __repr__ = brief


class Panel(NamedTuple):
    """A layer's features in the plane of their first two principal components."""

    points: Mapping[str, np.ndarray]  # set → [n, 2]
    star: np.ndarray  # [2], F*
    origin: np.ndarray  # [2], where F = 0 is
    share: float  # of the variance of all sets, in the plane
    of_noise: float  # likewise, of the noise's mean ‖F − F*‖²


def fit(features, components: int = 2) -> Basis:
    """Directions of largest variance of `features` [n, ...], flattened.

    The sign of each is fixed (its largest entry is positive), so that runs agree. What
    there is no direction for, as features of one number have no second one, is 0.
    """
    from sklearn.decomposition import PCA  # slow: see `fssd_jax.data.embedded`

    flat = _flat(features)
    found = min(components, *flat.shape)
    missing = (0, components - found)
    if np.ptp(flat, axis=0).any():
        model = PCA(found, random_state=0).fit(flat)
        rows, share = np.asarray(model.components_), model.explained_variance_ratio_
    else:  # all are one point
        rows, share = np.zeros((found, flat.shape[1])), np.zeros(found)
    largest = np.abs(rows).argmax(axis=1)
    sign = np.sign(rows[np.arange(found), largest])
    rows = np.pad(rows * sign[:, None], (missing, (0, 0)))
    return Basis(flat.mean(axis=0), rows, np.pad(share, missing))


def project(basis: Basis, features) -> np.ndarray:
    """Coordinates [n, components] of `features` [n, ...] in the basis."""
    return (_flat(features) - basis.mean) @ basis.components.T


def _flat(features) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features.reshape(len(features), -1)
