"""Principal components of features, in one fixed basis that all sets share."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from fssd_jax.shown import brief


class Basis(NamedTuple):
    mean: np.ndarray  # [dim]
    components: np.ndarray  # [components, dim], orthonormal rows
    share: np.ndarray  # [components] of the variance explained

    __repr__ = brief


def fit(features, components: int = 2) -> Basis:
    """Directions of largest variance of `features` [n, ...], flattened.

    The sign of each is fixed (its largest entry is positive), so that runs agree.
    """
    flat = _flat(features)
    model = PCA(components, random_state=0).fit(flat)
    rows = np.asarray(model.components_)
    largest = np.abs(rows).argmax(axis=1)
    sign = np.sign(rows[np.arange(components), largest])
    return Basis(model.mean_, rows * sign[:, None], model.explained_variance_ratio_)


def project(basis: Basis, features) -> np.ndarray:
    """Coordinates [n, components] of `features` [n, ...] in the basis."""
    return (_flat(features) - basis.mean) @ basis.components.T


def _flat(features) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features.reshape(len(features), -1)
