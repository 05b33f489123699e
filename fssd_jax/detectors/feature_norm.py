"""FeatureNorm: the norm of one block, chosen by jigsaw puzzles of training images.

    N_k(x) = 1/C Σ_c ‖max(0, F_kc(x))‖,   score(x) = N_k*(x)
    k* = argmax_k of the mean of N_k(x) / N_k(x̂) over training images

F_kc is channel c of layer k, whose norm is over space; x̂ is x cut into 3 × 3 tiles in a
random order. (Where a side is no multiple of 3, the border is black, as in the authors'
code.)

Yu, Shin, Lee, Jun and Lee (2023), "Block Selection Method for Using Feature Norm in
Out-of-Distribution Detection".
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.checks import InputError
from fssd_jax.data.inputs import rows
from fssd_jax.data.pipeline import check_finite, scored_batches
from fssd_jax.head import LOGITS
from fssd_jax.outputs import FeatureFn, Inputs, Variables, features_of, float32
from fssd_jax.shown import brief

SIDE = 3  # tiles
BATCH = 256  # images that are cut at once


class State(NamedTuple):
    block: OrderedDict[str, Float[Array, ""]]  # the chosen layer, and its ratio
    ratios: OrderedDict[str, Float[Array, ""]]  # of all layers

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    *,
    seed: int = 0,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """The block; "logits" is none.

    Args:
      feature_fn: channels last: see `make_feature_fn`.
      variables: the network's variables.
      train: training images [n, height, width, channels], data as of
        `pipeline.batches`, gone through twice; no labels.
      seed: of the puzzles.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: inputs that are no images, or features that are 0 for all puzzles.
    """
    puzzles = jigsaws(train, np.random.default_rng(seed), unit_range=unit_range)
    whole, cut = (
        _over(
            scored_batches(
                *(norms, feature_fn, variables, None, x),
                batch_size=batch_size,
                unit_range=unit_range,
                name="training images",
            )
        )
        for x in (train, puzzles)
    )
    ratios = OrderedDict()
    for name, of_puzzles in cut.items():
        some = of_puzzles > 0
        if some.any():
            ratio = np.mean(whole[name][some] / of_puzzles[some])
            ratios[name] = jnp.float32(ratio)
    if not ratios:
        raise InputError(
            f"layers {list(cut)} are 0 for all jigsaw puzzles; choose other layers"
        )
    best = max(ratios, key=lambda name: float(ratios[name]))
    return State(OrderedDict([(best, ratios[best])]), ratios)


def _over(parts) -> OrderedDict[str, Float[np.ndarray, " n"]]:
    found: OrderedDict[str, list[np.ndarray]] = OrderedDict()
    for by_layer, mask, _ in parts:
        for name, values in by_layer.items():
            values = np.asarray(values, np.float64)[mask]
            check_finite(f"layer {name!r}: norms", values)
            found.setdefault(name, []).append(values)
    return OrderedDict((name, np.concatenate(v)) for name, v in found.items())


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """N_k* of the chosen block."""
    found = norms(feature_fn, variables, None, x)
    (block,) = state.block
    if block not in found:
        raise InputError(
            f"the state was fitted on layer {block!r}, the features are of "
            f"{list(found)}; use one feature_fn for both, or fit again"
        )
    return found[block]


def norms(
    feature_fn: FeatureFn, variables: Variables, _: None, x: Inputs
) -> OrderedDict[str, Float[Array, " batch"]]:
    """N_k of every layer but "logits"; a layer of units has one place a channel."""
    features = features_of(feature_fn, variables, x)
    if len(features) > 1:
        features.pop(LOGITS, None)
    found = OrderedDict()
    for name, f in features.items():
        f = jax.nn.relu(float32(f)).reshape(len(f), -1, f.shape[-1])
        squares = jnp.square(f).sum(1)
        found[name] = jnp.sqrt(squares).mean(-1)
    return found


def jigsaws(
    train, rng: np.random.Generator, *, unit_range: bool = True
) -> Iterator[Num[np.ndarray, "batch height width channels"]]:
    """Each image cut into 3 × 3 tiles, put together in an order of its own."""
    for part in rows(train, BATCH, "training images", unit_range=unit_range):
        x = part.x
        if getattr(x, "ndim", 0) != 4 or min(x.shape[1:3]) < SIDE:
            kind = jax.tree.map(np.shape, x)
            raise InputError(
                f"training images: jigsaw puzzles are of images [n, height, width, "
                f"channels] of {SIDE} pixels a side or more, got {kind}"
            )
        height, width = (n // SIDE for n in x.shape[1:3])
        inner = x[:, : SIDE * height, : SIDE * width]
        tiles = inner.reshape(len(x), SIDE, height, SIDE, width, -1)
        tiles = tiles.swapaxes(2, 3).reshape(len(x), SIDE**2, height, width, -1)
        order = rng.permuted(np.tile(np.arange(SIDE**2), (len(x), 1)), axis=1)
        tiles = np.take_along_axis(tiles, order[:, :, None, None, None], 1)
        tiles = tiles.reshape(len(x), SIDE, SIDE, height, width, -1).swapaxes(2, 3)
        puzzles = np.zeros_like(x)
        puzzles[:, : SIDE * height, : SIDE * width] = tiles.reshape(inner.shape)
        yield puzzles
