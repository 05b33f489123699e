"""A small network of which all is known, and what NumPy makes of its features.

Places with channels, relu, their mean h, and logits Wᵀ h + b.
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax

CLASSES, CHANNELS, PLACES = 4, 12, 9


def feature_fn(variables, x):
    places = x.reshape(len(x), PLACES, -1)
    first = jax.nn.relu(jnp.matmul(places, variables["first"], precision="highest"))
    return OrderedDict(first=first.reshape(len(x), 3, 3, -1), **_last(variables, first))


def _last(variables, first):
    maps = jax.nn.relu(jnp.matmul(first, variables["second"], precision="highest"))
    h = maps.mean(1)
    logits = jnp.matmul(h, variables["kernel"], precision="highest")
    return {
        "maps": maps.reshape(len(h), 3, 3, -1),
        "logits": logits + variables["bias"][None],
    }


def logit_fn(variables, x):
    return feature_fn(variables, x)["logits"]


class Known(NamedTuple):
    """Features of images by NumPy, in float64."""

    first: np.ndarray  # [n, 3, 3, 7]
    maps: np.ndarray  # [n, 3, 3, CHANNELS]
    h: np.ndarray  # [n, CHANNELS]
    logits: np.ndarray  # [n, CLASSES]

    @property
    def energy(self):
        return logsumexp(self.logits, axis=1)

    @property
    def p(self):
        return softmax(self.logits, axis=1)

    @property
    def predicted(self):
        return self.logits.argmax(1)


def known(variables, x) -> Known:
    v = {name: np.float64(a) for name, a in variables.items()}
    first = np.maximum(np.float64(x).reshape(len(x), PLACES, -1) @ v["first"], 0)
    maps = np.maximum(first @ v["second"], 0)
    h = maps.mean(1)
    spatial = (len(x), 3, 3, -1)
    logits = h @ v["kernel"] + v["bias"]
    return Known(first.reshape(spatial), maps.reshape(spatial), h, logits)


def weights(seed: int = 0):
    """The bias is such that all classes are predicted for some images."""
    rng = np.random.default_rng(seed)
    shapes = {"first": (4, 7), "second": (7, CHANNELS), "kernel": (CHANNELS, CLASSES)}
    drawn = {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    drawn["kernel"] *= 3
    unbiased = known(drawn | {"bias": np.zeros(CLASSES)}, images(9, 200)).logits
    drawn["bias"] = np.float32(-unbiased.mean(0))
    return {name: jnp.asarray(a) for name, a in drawn.items()}


def images(seed: int, n: int) -> np.ndarray:
    """Eight kinds, with noise."""
    kinds = np.random.default_rng(0).uniform(size=(8, 6, 6, 1))
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.15, (n, 6, 6, 1))
    return np.clip(kinds[rng.integers(0, 8, n)] + noise, 0, 1).astype(np.float32)


def classes_of(variables, x, seed: int = 5) -> np.ndarray:
    """What is predicted, and of a third of the images another class."""
    y, rng = known(variables, x).predicted, np.random.default_rng(seed)
    other = rng.integers(0, CLASSES, len(x))
    y = np.where(rng.uniform(size=len(x)) < 1 / 3, other, y)
    y[:CLASSES] = np.arange(CLASSES)  # all are there
    return y
