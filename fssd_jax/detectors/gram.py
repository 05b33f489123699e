"""Gram matrices: how far the features' correlations leave what training images had.

    G_p = F^p (F^p)ᵀ,  F the features [channel, place], their powers by elements
    g = (sums of the rows of G_p)^(1/p),  p = 1 … 10
    δ_k = Σ_{p, channels} (max(0, low − g) / |low| + max(0, g − high) / |high|)
    score(x) = −Σ_k δ_k(x) / E δ_k

of each layer k; low and high are the least and the largest g of the training images
that are predicted as the same class, E δ_k the mean over in-distribution validation
images (1 if that is 0). The sums of rows, and the 10⁻⁶ that is added to low and high,
are those of the authors' code, which also divides by the largest probability.

Sastry and Oore (2020), "Detecting Out-of-Distribution Examples with Gram Matrices".
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.checks import InputError, at_least_one
from fssd_jax.data.pipeline import check_finite, map_batches, scored_batches
from fssd_jax.head import LOGITS
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    Variables,
    features_of,
    float32,
    same_layers,
)
from fssd_jax.shown import brief

SMALL = 1e-6


class State(NamedTuple):
    low: OrderedDict[str, Float[Array, "order classes channels"]]
    high: OrderedDict[str, Float[Array, "order classes channels"]]
    expected: OrderedDict[str, Float[Array, ""]]  # E δ_k

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    ind,
    *,
    orders: int = 10,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """Bounds by one pass, whose memory is that of a batch and of them; then E δ_k.

    A class that is predicted for no training image has the bounds of all of them.

    Args:
      feature_fn: channels last, with a layer "logits": see `head.with_logits`.
      variables: the network's variables.
      train: training images, data as of `pipeline.batches`; no labels.
      ind: in-distribution validation images.
      orders: the largest p.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    at_least_one("orders", orders)
    powers = jnp.arange(1, orders + 1)
    low: OrderedDict[str, np.ndarray] = OrderedDict()
    high: OrderedDict[str, np.ndarray] = OrderedDict()
    for (sums, logits), mask, _ in scored_batches(
        *(_sums_and_logits, feature_fn, variables, powers, train),
        batch_size=batch_size,
        unit_range=unit_range,
        name="training images",
    ):
        predicted = np.asarray(logits)[mask].argmax(1)
        for name, g in sums.items():
            g = np.asarray(g)[mask]  # [rows, order, channels]
            check_finite(f"layer {name!r}: Gram matrices", g)
            shape = (logits.shape[1], *g.shape[1:])
            np.minimum.at(low.setdefault(name, np.full(shape, np.inf)), predicted, g)
            np.maximum.at(high.setdefault(name, np.full(shape, -np.inf)), predicted, g)
    alone = OrderedDict((name, jnp.float32(1)) for name in low)
    state = State(_bounds(low, np.min), _bounds(high, np.max), alone)
    found = map_batches(
        *(deviations, feature_fn, variables, state, ind),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    mean = found.mean(0, dtype=np.float64)
    expected = np.where(mean > 0, mean, 1)
    named = zip(low, map(jnp.float32, expected.tolist()), strict=True)
    return state._replace(expected=OrderedDict(named))


def _bounds(of_layers, over_all) -> OrderedDict[str, Array]:
    found = OrderedDict()
    for name, ends in of_layers.items():
        of_all = over_all(ends, axis=0, keepdims=True)
        ends = np.where(np.isfinite(ends), ends, of_all)
        found[name] = jax.device_put(np.float32(ends.swapaxes(0, 1)))
    return found


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """−Σ_k δ_k / E δ_k."""
    expected = jnp.stack(list(state.expected.values()))
    return -(deviations(feature_fn, variables, state, x) / expected[None]).sum(-1)


def deviations(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, "batch layers"]:
    """δ_k of every layer."""
    (some, *_) = state.low.values()
    powers = jnp.arange(1, len(some) + 1)
    sums, logits = _sums_and_logits(feature_fn, variables, powers, x)
    same_layers(state.low, sums)
    predicted, found = logits.argmax(-1), []
    for name, g in sums.items():
        low, high = (of[name][:, predicted].swapaxes(0, 1) for of in state[:2])
        under = jax.nn.relu(low - g) / abs(low + SMALL)
        over = jax.nn.relu(g - high) / abs(high + SMALL)
        found.append((under + over).sum((1, 2)))
    return jnp.stack(found, -1)


def _sums_and_logits(feature_fn, variables, powers, x):
    features = features_of(feature_fn, variables, x)
    if LOGITS not in features or len(features) < 2:
        raise InputError(
            f"the feature_fn has the layers {list(features)}; {LOGITS!r} and others "
            "are needed: head.with_logits(feature_fn, logit_fn)"
        )
    logits = features.pop(LOGITS)
    sums = OrderedDict((k, row_sums(f, len(powers))) for k, f in features.items())
    return sums, logits


def row_sums(
    f: Float[Array, "batch ..."], orders: int
) -> Float[Array, "batch order channels"]:
    """g of p = 1 … orders: Σ_s F_is^p Σ_j F_js^p, so that no matrix is made.

    Each place is scaled by its largest channel and then each channel by its largest
    place, so that no power overflows.
    """
    f = float32(f).reshape(len(f), -1, f.shape[-1])  # [batch, place, channel]
    at_place = _unless_zero(abs(f).max(2, keepdims=True))
    columns = f / at_place
    rows = f * at_place
    scale = _unless_zero(abs(rows).max(1, keepdims=True))
    rows = rows / scale

    def next_order(powers, _):
        row, column = powers
        total = (row * column.sum(2, keepdims=True)).sum(1)
        return (row * rows, column * columns), total

    _, total = jax.lax.scan(next_order, (rows, columns), None, orders)
    root = 1 / jnp.arange(1, orders + 1, dtype=f.dtype)
    size = jnp.power(abs(total), root[:, None, None]) * scale[None, :, 0]
    return (jnp.sign(total) * size).swapaxes(0, 1)


def _unless_zero(a):
    return jnp.where(a == 0, 1, a)
