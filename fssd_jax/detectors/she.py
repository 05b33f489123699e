"""SHE: the product of the features with those usual for the predicted class.

    score(x) = h · S_ŷ,   S_c = mean h of training images of class c predicted as c

h is a layer averaged over space, ŷ the predicted class: the Hopfield energy of one
pattern a class. Of a class of which no training image is predicted rightly, all are its
pattern.

Zhang et al. (2023), "Out-of-Distribution Detection based on In-Distribution Data
Patterns Memorization with Modern Hopfield Energy".
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.checks import at_least_one
from fssd_jax.data.pipeline import check_finite
from fssd_jax.head import layer_and_logits
from fssd_jax.labelled import refuse_empty, with_classes
from fssd_jax.outputs import FeatureFn, Inputs, Variables, same_sizes
from fssd_jax.shown import brief


class State(NamedTuple):
    patterns: OrderedDict[str, Float[Array, "classes dim"]]  # by the layer's name

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    y,
    num_classes: int,
    layer: str,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """The patterns, in one pass.

    Args:
      feature_fn: with a layer "logits": see `head.with_logits`.
      variables: the network's variables.
      train: training images, data as of `pipeline.batches`.
      y: their classes [n], 0 to num_classes − 1; None if train are batches (x, y).
      num_classes: how many classes there are.
      layer: one of the layers, averaged over space: the last before the logits is
        usual.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: unusable images or labels, or a class without images.
    """
    of_layer = OrderedDict([(layer, None)])
    at_least_one("num_classes", num_classes)
    count = np.zeros((2, num_classes))  # of all, and of those predicted rightly
    total = np.zeros((2, num_classes, 0))
    for (h, logits), classes in with_classes(
        *(_pair, feature_fn, variables, of_layer, train, y, num_classes),
        batch_size=batch_size,
        unit_range=unit_range,
    ):
        check_finite(f"layer {layer!r}: features", h)
        if not total.size:
            total = np.zeros((2, num_classes, h.shape[1]))
        right = logits.argmax(1) == classes
        for i, rows in enumerate((np.ones_like(right), right)):
            np.add.at(count[i], classes[rows], 1)
            np.add.at(total[i], classes[rows], h[rows])
    refuse_empty(count[0])
    used = np.where(count[1] > 0, 1, 0), np.arange(num_classes)
    patterns = total[used] / count[used][:, None]
    return State(OrderedDict([(layer, jax.device_put(np.float32(patterns)))]))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """h · S_ŷ."""
    h, logits = _pair(feature_fn, variables, state.patterns, x)
    same_sizes(state.patterns, dict.fromkeys(state.patterns, h))
    (patterns,) = state.patterns.values()
    return (h * patterns[logits.argmax(-1)]).sum(-1)


def _pair(feature_fn, variables, of_layer, x):
    (layer,) = of_layer
    return layer_and_logits(feature_fn, variables, layer, x)
