"""Displacement: how far training has moved the features of an input.

    D_k(x) = ‖F_T,k(x) − F_0,k(x)‖,   or relative to ‖F_0,k(x)‖

F_0 is the network before training. It is the second form of Eq. (4) of Huang et al.
(2021), which FSSD approximates by F* ≈ F_0(x); it needs the initial weights, no noise.
"""

from collections import OrderedDict
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fssd_jax.data.pipeline import check_finite, scored_batches
from fssd_jax.ensemble import Ensemble, combine, standardise
from fssd_jax.fssd import norm
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    Variables,
    features_of,
    pool,
    same_layers,
)
from fssd_jax.shown import brief


class State(NamedTuple):
    columns: OrderedDict[str, Int[Array, ""]]  # which of the weights a layer has
    initial: Variables
    relative: Bool[Array, ""]
    ensemble: Ensemble

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    initial: Variables,
    ind,
    *,
    relative: bool = False,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """Layers are standardised on in-distribution images `ind` and summed.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the trained network's variables.
      initial: the same network's variables before training.
      ind: in-distribution validation images, data as of `pipeline.batches`.
      relative: whether to divide by ‖F_0(x)‖.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    start = (initial, jnp.asarray(relative))
    parts = scored_batches(
        *(_by_layer, feature_fn, variables, start, ind),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    layers, found = [], []
    for by_layer, mask, _ in parts:
        layers = list(by_layer)
        found.append(np.stack([np.asarray(d)[mask] for d in by_layer.values()], -1))
    d = np.concatenate(found)
    check_finite("displacements", d)
    columns = OrderedDict((name, jnp.int32(k)) for k, name in enumerate(layers))
    return State(columns, *start, standardise(d, layers))


def score(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, " batch"]:
    """Σ_k (D_k(x) − center_k) / scale_k."""
    d = _by_layer(feature_fn, variables, (state.initial, state.relative), x)
    same_layers(state.columns, d)
    return combine(state.ensemble, jnp.stack(list(d.values()), -1))


def displacements(
    feature_fn: FeatureFn,
    variables: Variables,
    start: tuple[Variables, Bool[Array, ""]],
    x: Inputs,
) -> Float[Array, "batch layers"]:
    """D_k(x) of every layer; `start` are the initial variables and `relative`."""
    return jnp.stack(list(_by_layer(feature_fn, variables, start, x).values()), -1)


def _by_layer(
    feature_fn, variables, start, x
) -> OrderedDict[str, Float[Array, " batch"]]:
    initial, relative = start
    now = pool(features_of(feature_fn, variables, x), "flatten")
    then = pool(features_of(feature_fn, initial, x), "flatten")
    found = OrderedDict()
    for name in now:
        length = norm(then[name])
        unit = jnp.where(relative & (length > 0), length, 1)
        found[name] = norm(now[name] - then[name]) / unit
    return found
