"""k nearest neighbours: distance to the k-th nearest training feature.

    score(x) = −‖z(x) − z_(k)‖,   z = F / ‖F‖, F the flattened feature of one layer

Sun, Ming, Zhu and Li (2022), "Out-of-Distribution Detection with Deep Nearest
Neighbors".
"""

from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import map_batches
from fssd_jax.fssd import norm
from fssd_jax.outputs import FeatureFn, Inputs, Variables, features_of, pool, same_sizes
from fssd_jax.shown import brief

CHUNK = 4096  # training features compared with at once


class State(NamedTuple):
    # The layer's name and the normalised training features, less their mean; zeros fill
    # the last chunk.
    bank: OrderedDict[str, Float[Array, "chunk row dim"]]
    mean: Float[Array, " dim"]  # far from which small distances would lose digits
    count: Int[Array, ""]  # of training images
    ranks: Int[Array, " k"]  # 1 … k: a shape is known when compiling, a value is not

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    layer: str,
    *,
    k: int = 50,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """Keep the normalised features of the training images, [n, dim] floats.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      train: training images, data as of `pipeline.batches`.
      layer: one of the layers of `feature_fn`: the last before the logits is usual.
      k: which neighbour (50: the paper's choice for CIFAR-10).
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    z = map_batches(
        _normalised,
        feature_fn,
        variables,
        OrderedDict([(layer, None)]),
        train,
        batch_size=batch_size,
        unit_range=unit_range,
    )
    if not 1 <= k <= len(z):
        raise InputError(f"k: expected 1 to {len(z)}, the training images; got {k}")
    mean = z.mean(0, dtype=np.float64).astype(z.dtype)
    bank = OrderedDict([(layer, in_chunks(z - mean))])
    ranks = jnp.arange(1, k + 1)
    return State(bank, jax.device_put(mean), jnp.int32(len(z)), ranks)


def score(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, " batch"]:
    """−‖z(x) − z_(k)‖; the neighbours are found chunk by chunk.

    The nearest has the largest z(x)·z − ‖z‖²/2, both less the mean of the bank.
    """
    z = _normalised(feature_fn, variables, state.bank, x)
    same_sizes(state.bank, dict.fromkeys(state.bank, z))
    z = z - state.mean[None]
    (bank,) = state.bank.values()
    _, nearest = largest(z, bank, state.count, len(state.ranks), nearest=True)
    # Not √(2 − 2 z·z'), which loses half the digits of a small distance.
    return -norm(z - bank.reshape(-1, bank.shape[-1])[nearest[:, -1]])


def in_chunks(rows: Float[np.ndarray, "n dim"]) -> Float[Array, "chunk row dim"]:
    """On the device; zeros fill the last chunk."""
    size = min(CHUNK, len(rows))
    chunks = -(-len(rows) // size)
    padded = np.zeros((chunks * size, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    return jax.device_put(padded.reshape(chunks, size, -1))


def largest(
    z: Float[Array, "batch dim"],
    bank: Float[Array, "chunk row dim"],
    count: Int[Array, ""],
    k: int,
    *,
    nearest: bool = False,
) -> tuple[Float[Array, "batch k"], Int[Array, "batch k"]]:
    """The k largest products z·b with the first `count` rows of the bank, and which.

    Args:
      z: of what.
      bank: with what.
      count: of how many rows.
      k: how many.
      nearest: of z·b − ‖b‖²/2 instead, whose order is that of nearness.
    """
    size = bank.shape[1]

    def better(best, chunk):
        start, other = chunk
        index = start + jnp.arange(size, dtype=jnp.int32)
        similarity = jnp.matmul(z, other.T, precision="highest")
        if nearest:
            similarity -= jnp.square(other).sum(-1)[None] / 2
        similarity = jnp.where((index < count)[None], similarity, -jnp.inf)
        both = jnp.concatenate([best[0], similarity], 1)
        indices = jnp.concatenate(
            [best[1], jnp.broadcast_to(index[None], similarity.shape)], 1
        )
        values, at = jax.lax.top_k(both, k)
        return (values, jnp.take_along_axis(indices, at, 1)), None

    # Types are told, because without x64 all are 32 bits and with it not.
    nothing = (
        jnp.full((len(z), k), -jnp.inf, jnp.result_type(z, bank)),
        jnp.zeros((len(z), k), jnp.int32),
    )
    starts = size * jnp.arange(len(bank), dtype=jnp.int32)
    found, _ = jax.lax.scan(better, nothing, (starts, bank))
    return found


def normalised(f: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    """f / ‖f‖; a feature of zeros has no direction and stays zero."""
    length = norm(f)[:, None]
    return f / jnp.where(length == 0, 1, length)


def _normalised(feature_fn, variables, layer, x) -> Float[Array, "batch dim"]:
    (name,) = layer
    features = features_of(feature_fn, variables, x)
    if name not in features:
        raise InputError(f"unknown layer {name!r}; choose from {list(features)}")
    return normalised(pool(OrderedDict([(name, features[name])]), "flatten")[name])
