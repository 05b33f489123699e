"""A setting of features that were computed elsewhere: no network runs here."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.comparison.brought import Brought, shared_setting, split
from experiments.comparison.dump_files import LOGITS, Dump, Shapes
from fssd_jax.checks import InputError
from fssd_jax.outputs import FeatureFn

NAME = "features"
Channels = Literal["first", "last"]


def setting(
    dump: Dump,
    *,
    channels: Channels | None,
    validation: int,
    seed: int,
    batch_size: int | None,
) -> Brought:
    """What can be asked of features alone: no untrained network, no pixels, no step.

    Args:
      channels: which axis of spatial features they are.

    Raises:
      InputError: too few rows, or channels that have to be told.
    """
    sets = dump.sets
    parts, tested = split(
        sets["ind"],
        sets["ood"],
        validation=validation,
        noise=sets["noise"].x,
        seed=seed,
    )
    train = sets.get("train")
    first = train is not None and _channels_first(dump.shapes, channels)
    s = shared_setting(
        parts,
        seed=seed,
        batch_size=batch_size,
        feature_fn=_unpacked(dump.shapes, dump.layers),
        channels_last=_unpacked(dump.shapes, dump.layers, turned=True)
        if first
        else None,
        logit_fn=_logits(dump.shapes) if LOGITS in dump.shapes else None,
        variables={},
        initial=None,
        num_classes=dump.num_classes,
        train=train,
        pixels=None,
        tested=tested,
    )
    y = tested["in-distribution"].y
    return Brought(NAME, s, parts, y, sets, {"layers": dump.layers})


def _channels_first(shapes: Shapes, channels: Channels | None) -> bool:
    """As told, or as square feature maps show."""
    spatial = {k: shape for k, shape in shapes.items() if len(shape) > 1}
    if channels is not None or not spatial:
        return channels == "first"
    maps = [s for s in spatial.values() if len(s) > 2 and len({*s}) > 1]
    first = any(len({*sides}) == 1 for _, *sides in maps)
    last = any(len({*sides}) == 1 for *sides, _ in maps)
    if first == last:
        told = {name: list(shape) for name, shape in spatial.items()}
        raise InputError(
            f"which axis are the channels of {told}, over the others of which "
            "Mahalanobis and k nearest neighbours average? Say --channels first, as "
            "PyTorch has them, or last"
        )
    return first


def _unpacked(
    shapes: Shapes, layers: Sequence[str], *, turned: bool = False
) -> FeatureFn:
    """A feature_fn of rows in which all layers stand one after the other.

    Args:
      turned: whether the first axis of each is to become the last.
    """
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])
    parts = dict(zip(shapes, pairwise(ends.tolist()), strict=True))

    def feature_fn(variables, x) -> OrderedDict[str, jax.Array]:
        found = OrderedDict()
        for name in layers:
            of_layer = x[:, slice(*parts[name])].reshape(len(x), *shapes[name])
            many = turned and of_layer.ndim > 2
            found[name] = jnp.moveaxis(of_layer, 1, -1) if many else of_layer
        return found

    feature_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return feature_fn


def _logits(shapes: Shapes):
    features = _unpacked(shapes, [LOGITS])

    def logit_fn(variables, x) -> jax.Array:
        return features(variables, x)[LOGITS]

    logit_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return logit_fn
