"""Where F* may be: the ladder of centres.

Of a centre that is made of images, F* is their mean feature. None but `oracle` sees an
image of the tested OoD set, and it sees others than those that are tested.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.comparison.setting import Setting
from experiments.comparison.singular import singularity_of
from experiments.harness.keys import Use, of_seed
from fssd_jax import head
from fssd_jax.data import corruptions
from fssd_jax.data.benchmarks import draw
from fssd_jax.fssd import Singularity

COUNT = 1000  # images that a centre is the mean feature of
ORACLE = "oracle"


def _images(s: Setting, use: Use, make: Callable[..., np.ndarray], *args) -> Any:
    assert s.train is not None
    return make(s.train.x, COUNT, *args, of_seed(s.seed, use))


def _mixed(s: Setting, of: int, same: bool | None = None) -> np.ndarray:
    assert s.train is not None
    use = Use.MIXED if same is None else Use.MIXED_CLASSES
    key = of_seed(s.seed, use)
    labels = None if same is None else s.train.y
    return corruptions.mixed(s.train.x, COUNT, of, key, labels, bool(same))


def _tiles(s: Setting, tiles: int) -> np.ndarray:
    return _images(s, Use.TILES, corruptions.shuffled_tiles, tiles)


def _scaled(s: Setting) -> np.ndarray:
    return corruptions.scaled_noise(s.noise, of_seed(s.seed, Use.SCALED_NOISE))


# Images of which F* is the mean feature.
OF_IMAGES: dict[str, Callable[[Setting], Any]] = {
    "scaled noise": _scaled,
    "shuffled pixels": lambda s: _images(
        s, Use.SHUFFLED_PIXELS, corruptions.shuffled_pixels
    ),
    "tiles 2": partial(_tiles, tiles=2),
    "tiles 4": partial(_tiles, tiles=4),
    "tiles 7": partial(_tiles, tiles=7),
    "mix 2, one class": partial(_mixed, of=2, same=True),
    "mix 2, two classes": partial(_mixed, of=2, same=False),
    "mix 4": partial(_mixed, of=4),
    "mix 16": partial(_mixed, of=16),
    "mean": lambda s: draw(_train(s), COUNT, of_seed(s.seed, Use.CENTRE_IMAGES)),
    ORACLE: lambda s: s.val_ood,
}


def _train(s: Setting) -> Any:
    assert s.train is not None
    return s.train.x


# One function for one network, because compilations are kept by its identity.
_both = cache(head.with_logits)


def with_logits(s: Setting) -> Setting:
    """The setting whose last layer is the logits, which ResNets' layers are without."""
    return s._replace(feature_fn=_both(s.feature_fn, s.logit_fn))


def singularities(s: Setting) -> dict[str, Singularity]:
    """F* of every centre of the ladder, in its order."""
    noise = singularity_of(s)
    initial = fssd_jax.estimate_singularity(s.feature_fn, s.initial, s.noise)
    origin = OrderedDict((k, jnp.zeros_like(c)) for k, c in noise.center.items())
    of_images = {
        name: fssd_jax.estimate_singularity(
            s.feature_fn, s.variables, images(s), batch_size=s.batch_size
        )
        for name, images in OF_IMAGES.items()
    }
    return {
        "noise": noise,
        **of_images,
        "origin": noise._replace(center=origin),
        "noise, initial": initial,
    }
