"""Feature Space Singularity Distance: Eq. (1) and Algorithm 1 of Huang et al. (2021).

    FSSD^(k)(x) = ‖F_k(x) − F*_k‖,   F*_k = mean feature of noise at layer k   (Eq. 1)
    x̃ = x + ε · sign(∇ₓ FSSD^(k)(x))                                  (input step)

Everything here is a pure function of arrays, to be used under `jax.jit`;
`fssd_jax.map_batches` runs such a function over a data set.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from fssd_jax import mates
from fssd_jax.checks import InputError, random_key
from fssd_jax.compiled import by_parts, compiled
from fssd_jax.data import pipeline
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    Variables,
    as_pixels,
    features_of,
    pool,
    same_layers,
    same_sizes,
)
from fssd_jax.shown import brief
from fssd_jax.steps import Scores, at_step, gradient, sign, signs, step, sweep_each


class Singularity(NamedTuple):
    """F*: the centre of the noise features (Algorithm 1, step 1)."""

    center: OrderedDict[str, Float[Array, " dim"]]  # F*_k, the mean feature, by layer
    # Root mean squared ‖F_k(noise) − F*_k‖: how singular the singularity is.
    spread: OrderedDict[str, Float[Array, ""]]
    count: Int[Array, ""]  # how many noise samples

    __repr__ = brief


def uniform_noise(
    key: PRNGKeyArray,
    n: int,
    shape: tuple[int, ...],
    start: int = 0,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Array, "n ..."]:
    """Samples `start` … `start + n − 1` of an endless data set of U[low, high].

    Other noises, and one in the range of given data, are in `fssd_jax.noise`.
    """
    draw = partial(jax.random.uniform, shape=shape, minval=low, maxval=high)
    return samples(draw, key, n, start)


def samples(draw: Callable, key: PRNGKeyArray, n: int, start: int = 0) -> Array:
    """draw(key of i) for i = `start` … `start + n − 1`, stacked.

    Each sample has a key of its own, so that noise drawn piece by piece is the same.
    """
    return _samples(draw, n, random_key(key), start)


@compiled(static=2)
def _samples(
    draw: Callable, n: int, key: PRNGKeyArray, start: int | Int[Array, ""]
) -> Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(n))
    return jax.vmap(draw)(keys)


def estimate_singularity(
    feature_fn: FeatureFn,
    variables: Variables,
    batches: Any,
    batch_size: int = 64,
    unit_range: bool = True,
    *,
    mesh: Mesh | None = None,
    progress: bool | str = False,
) -> Singularity:
    """F*_k = (1/S) Σ_s F_k(x_s) over noise or OoD validation samples (Algorithm 1).

    One pass, one compilation; memory is that of one batch.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      batches: noise [n, ...] or batches of it: see `pipeline.batches`.
      batch_size: samples per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      mesh: as of `pipeline.batches`.
      progress: whether to show a progress bar, or its title.

    Raises:
      InputError: no samples, or such as are not finite or out of range; a layer whose
        features are not finite, or depend on what else is in the batch.
    """
    total = None
    unit_range = unit_range and not getattr(feature_fn, "of_features", False)
    parts = pipeline.batches(
        batches, batch_size, "noise", unit_range=unit_range, mesh=mesh
    )
    with pipeline.progress_bar(batches, progress) as bar:
        for x, mask, _ in parts:
            part = _moments(feature_fn, variables, x, mask)
            if total is None:
                _check_mates(feature_fn, variables, x, mask, part)
            total = part if total is None else _merge(total, part)
            bar.update(int(mask.sum()))
    assert total is not None  # `batches` refuses an empty set
    bad = [k for k, spread in total.spread.items() if not np.isfinite(spread)]
    if bad:
        raise InputError(
            f"layers {bad} have features of noise that are NaN or infinite: the "
            "weights are not finite, or the network overflows; leave them out: "
            "make_feature_fn(model, layers=[...])"
        )
    return total


def _check_mates(feature_fn, variables, x, mask, part: Singularity) -> None:
    """Raise `InputError` if the first row's features depend on the other rows."""
    if mask.sum() < 2:
        return
    first = np.arange(len(mask)) == 0
    among_others = _moments(feature_fn, variables, x, first)
    moved = mates.first_as_last(x)
    in_last_place = _moments(feature_fn, variables, moved, first[::-1])
    # By NumPy: on arrays of JAX each operation would be compiled for each new layer.
    a, b, spread = jax.tree.map(
        np.asarray, (among_others.center, in_last_place.center, part.spread)
    )
    length = np.linalg.norm
    bad = [
        name
        for name in a
        if length(a[name] - b[name])
        > mates.MOST * spread[name] + 1e-3 * length(a[name])
    ]
    if bad:
        raise InputError(
            f"layer {bad[0]!r} (of {bad}): the features of an image depend on what "
            f"else is in its batch: {mates.TRAINING_MODE}"
        )


@compiled(static=1)
def _moments(feature_fn, variables, x, mask) -> Singularity:
    """Mean and spread of one batch; padded rows, where `mask` is false, are ignored."""
    count = mask.sum()
    n = count.astype(jnp.result_type(float))
    center, spread = OrderedDict(), OrderedDict()
    for name, f in pool(features_of(feature_fn, variables, x), "flatten").items():
        # `where`, not a product with the mask: a padded row may hold NaN.
        center[name] = jnp.where(mask[:, None], f, 0).sum(0) / n
        squares = jnp.where(mask, jnp.square(f - center[name][None]).sum(-1), 0)
        spread[name] = jnp.sqrt(squares.sum() / n)
    return Singularity(center, spread, count)


@compiled(static=0)
def _merge(a: Singularity, b: Singularity) -> Singularity:
    """Moments of two sets from the moments of each (Chan, Golub and LeVeque 1979)."""
    count = a.count + b.count
    share = b.count / count
    center, spread = OrderedDict(), OrderedDict()
    for name in a.center:
        gap = b.center[name] - a.center[name]
        center[name] = a.center[name] + share * gap
        variance = (1 - share) * a.spread[name] ** 2 + share * b.spread[name] ** 2
        between = share * (1 - share) * jnp.square(gap).sum()
        spread[name] = jnp.sqrt(variance + between)
    return Singularity(center, spread, count)


def norm(v: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """‖v‖₂ of each row, with gradient 0 (not NaN) at v = 0."""
    squares = jnp.square(v).sum(-1)
    zero = squares == 0
    # Both `where`s are needed: reverse mode multiplies 0 by the unused branch's slope.
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))


def distances(
    singularity: Singularity, features: OrderedDict[str, Float[Array, "batch ..."]]
) -> Float[Array, "batch layers"]:
    """Eq. (1): ‖F_k(x) − F*_k‖₂ for each layer k, on flattened, unscaled features."""
    same_layers(singularity.center, features)
    flat = pool(features, "flatten")
    same_sizes(singularity.center, flat)
    return jnp.stack(
        [norm(flat[k] - center[None]) for k, center in singularity.center.items()], -1
    )


def layer_distance(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    layer: str,
    x: Inputs,
) -> Float[Array, " batch"]:
    """Eq. (1) for one layer. Under `jit`, nothing above that layer is computed."""
    features = features_of(feature_fn, variables, x)
    same_layers(singularity.center, features)
    flat = pool(OrderedDict([(layer, features[layer])]), "flatten")
    same_sizes(singularity.center, flat)
    return norm(flat[layer] - singularity.center[layer][None])


def perturb(
    score_fn: Callable[[Any], Float[Array, " batch"]],
    x: Inputs,
    epsilon: float | Float[Array, ""],
) -> Any:
    """x̃ = x + ε · sign(∇ₓ score(x)) (Algorithm 1, step 2); ε in the units of x."""
    x = as_pixels(x)
    return step(x, sign(gradient(score_fn, x)), epsilon)


def fssd(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x: Inputs,
    epsilon: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch layers"]:
    """FSSD^(k)(x + ε · sign(∇ₓ FSSD^(k)(x))) for every layer k (Algorithm 1).

    Each layer takes its own step. A Python number ε = 0 costs one forward pass.
    """
    if isinstance(epsilon, int | float) and epsilon == 0:
        return distances(singularity, features_of(feature_fn, variables, x))
    of = _layers(feature_fn, singularity), (variables, singularity), as_pixels(x)
    return at_step(*of, signs(*of), epsilon)


@by_parts
def sweep(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x: Inputs,
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch layers"]:
    """`fssd` for many ε: sign(∇ₓ FSSD) does not depend on ε and is computed once."""
    return sweep_each(
        _layers(feature_fn, singularity), (variables, singularity), x, epsilons
    )


def _layers(feature_fn: FeatureFn, singularity: Singularity) -> "Scores":
    return Scores(layer_distance, feature_fn, tuple(singularity.center))
