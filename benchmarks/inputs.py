"""The networks, weights and images that we and the peers are given, all from seeds."""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.harness import provenance
from fssd_jax import models, recipes
from fssd_jax.checks import InputError
from fssd_jax.features import make_init_fn

CLASSES = 10
COARSE = 4  # pixels a side of a picture's pattern
NOISE = 100  # images for F*
EPSILON = 0.01  # where one step is taken


def check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `InputError` where one is unknown, or none is given."""
    unknown = set(given) - set(known)
    if unknown or not given:
        raise InputError(f"--{what}: {sorted(unknown)}; choose from {list(known)}")


def checked_threads(given: int | None) -> int:
    """How many threads a contender has: a core each, if none are given."""
    cores = provenance.available_cores()
    if given is not None and not 1 <= given <= cores:
        raise InputError(f"--threads: 1 to {cores} here, got {given}")
    return given or cores


class Network(NamedTuple):
    build: Callable[..., nn.Module]
    format: str  # what `fssd_jax.torch_weights` calls it
    shape: tuple[int, ...]  # of an image
    recipe: Callable
    batch: int  # of training
    undropped: dict[str, Any]  # fields that turn dropout off


NETWORKS = {
    "LeNet": Network(
        *(models.LeNet, "lenet", (28, 28, 1), recipes.lenet, 64),
        {"conv_dropout": (0.0, 0.0), "dense_dropout": 0.0},
    ),
    "ResNet-20": Network(
        *(models.cifar_resnet20, "cifar_resnet20", (32, 32, 3), recipes.cifar, 128),
        {},
    ),
    # The paper's, at its size: for accelerators; and one like it for smoke tests.
    "ResNet-34": Network(
        partial(models.resnet34, num_classes=CLASSES),
        *("resnet34", (224, 224, 3), recipes.imagenet, 128, {}),
    ),
    "ResNet-34, narrow": Network(
        partial(models.resnet34, num_classes=CLASSES, width=4),
        *("resnet34", (32, 32, 3), recipes.imagenet, 8, {}),
    ),
}


@cache
def weights(name: str) -> Any:
    """The network's variables, untrained."""
    network = NETWORKS[name]
    image = np.zeros((1, *network.shape), np.float32)
    return make_init_fn(network.build())(jax.random.key(0), image)


def noise(name: str) -> np.ndarray:
    """float32 images [n, height, width, channel], for F*."""
    rng = np.random.default_rng(1)
    return rng.uniform(size=(NOISE, *NETWORKS[name].shape)).astype(np.float32)


@lru_cache(maxsize=4)
def pictures(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [n, height, width, channel] and their classes.

    Half a coarse pattern of the class, half one of the image, each as bright as it
    happens to be: unlike noise, their features vary from image to image.
    """
    height, width, channels = NETWORKS[name].shape
    rng = np.random.default_rng(2)
    patterns = rng.uniform(size=(CLASSES, COARSE, COARSE, channels))
    y = rng.integers(0, CLASSES, count).astype(np.int32)
    own = rng.uniform(size=(count, COARSE, COARSE, channels))
    coarse = (patterns[y] + own) / 2 * rng.uniform(0.3, 1, (count, 1, 1, 1))
    times = height // COARSE, width // COARSE
    x = coarse.repeat(times[0], 1).repeat(times[1], 2)
    x = np.clip(x + rng.normal(0, 0.05, x.shape), 0, 1)
    return np.asarray(255 * x).astype(np.uint8), y


def distances(count: int, epsilons: int, layers: int) -> list[np.ndarray]:
    """In-distribution and OoD distances [epsilon, n, layer], which overlap by half."""
    rng = np.random.default_rng(3)
    shape = epsilons, count, layers
    return [rng.gamma(8.0, 1.0 + shift, shape) for shift in (0.0, 0.3)]


def table(count: int, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances [count, layer] of one ε, in-distribution above, and 1 or 0 [count]."""
    ind, ood = distances(count // 2, 1, layers)
    return np.concatenate([ind[0], ood[0]]), np.arange(len(ind[0]) * 2) < len(ind[0])


def scores(count: int) -> tuple[np.ndarray, np.ndarray]:
    """In-distribution and OoD scores, float32 as a network's are, half each."""
    rng = np.random.default_rng(4)
    ind, ood = (rng.normal(m, 1, count // 2).astype(np.float32) for m in (1, 0))
    return ind, ood
