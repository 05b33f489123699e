"""A small network of which all is known, and what NumPy makes of its features.

Places with channels, relu, their mean h, and logits Wᵀ h + b.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax

from fssd_jax import head, map_batches

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


class Case(NamedTuple):
    """The network, three sets of images, and what NumPy knows of them."""

    variables: dict[str, jax.Array]
    head: head.Head
    train: np.ndarray
    y: np.ndarray
    ind: np.ndarray
    x: np.ndarray
    # Of the training, validation and tested images.
    of_train: Known
    of_ind: Known
    of_x: Known

    @property
    def network(self):
        return feature_fn, self.variables

    @property
    def kernel(self):
        return np.float64(self.variables["kernel"])

    @property
    def bias(self):
        return np.float64(self.variables["bias"])

    def energy(self, h, kernel=None):
        kernel = self.kernel if kernel is None else kernel
        return logsumexp(h @ kernel + self.bias, axis=1)


def make_case() -> Case:
    v = weights()
    train, ind, x = images(1, 90), images(2, 40), images(3, 30)
    x[:5] = 1 - x[:5] ** 3  # some that are unusual
    found = head.find(feature_fn, logit_fn, v, ind)
    of = (known(v, a) for a in (train, ind, x))
    return Case(v, found, train, classes_of(v, train), ind, x, *of)


def close(case: Case, score, state, expected, apply_fn: Any = feature_fn):
    """The scores of the case's images are the expected ones."""
    found = map_batches(score, apply_fn, case.variables, state, case.x, batch_size=16)
    np.testing.assert_allclose(found, expected, 2e-4, 2e-5 * np.ptp(expected))
