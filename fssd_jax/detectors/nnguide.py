"""NNGuide: the energy, guided by its nearest neighbours' energies.

    score(x) = E(x) · 1/k Σ_{i among the k largest} ẑ(x) · E(x_i) ẑ(x_i)

ẑ = h / ‖h‖, h a layer averaged over space; E = log Σ_y exp f_y; x_i training images.

Park, Jung and Teoh (2023), "Nearest Neighbor Guidance for Out-of-Distribution
Detection"; k = 10 as in their code.
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors.knn import in_chunks, largest, normalised
from fssd_jax.head import layer_and_logits
from fssd_jax.outputs import FeatureFn, Inputs, Variables, same_sizes
from fssd_jax.shown import brief


class State(NamedTuple):
    # The layer's name and E(x_i) ẑ(x_i); zeros fill the last chunk.
    bank: OrderedDict[str, Float[Array, "chunk row dim"]]
    count: Int[Array, ""]  # of training images
    ranks: Int[Array, " k"]  # 1 … k: a shape is known when compiling, a value is not

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    layer: str,
    *,
    k: int = 10,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """Keep the guiding features of the training images, [n, dim] floats.

    Args:
      feature_fn: with a layer "logits": see `head.with_logits`.
      variables: the network's variables.
      train: training images, data as of `pipeline.batches`; no labels. The paper takes
        a part of them, 1 % of ImageNet.
      layer: one of the layers, averaged over space: the last before the logits is
        usual.
      k: how many neighbours.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    bank = map_batches(
        *(_scaled, feature_fn, variables, OrderedDict([(layer, None)]), train),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    if not 1 <= k <= len(bank):
        raise InputError(f"k: expected 1 to {len(bank)}, the training images; got {k}")
    named = OrderedDict([(layer, in_chunks(bank))])
    return State(named, jnp.int32(len(bank)), jnp.arange(1, k + 1))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """Energy times guidance; the neighbours are found chunk by chunk."""
    z, energy = _direction(feature_fn, variables, state.bank, x)
    same_sizes(state.bank, dict.fromkeys(state.bank, z))
    (bank,) = state.bank.values()
    products, _ = largest(z, bank, state.count, len(state.ranks))
    return energy * products.mean(-1)


def _scaled(feature_fn, variables, of_layer, x) -> Float[Array, "batch dim"]:
    z, energy = _direction(feature_fn, variables, of_layer, x)
    return energy[:, None] * z


def _direction(feature_fn, variables, of_layer, x):
    (layer,) = of_layer
    h, logits = layer_and_logits(feature_fn, variables, layer, x)
    return normalised(h), jax.nn.logsumexp(logits, axis=-1)
