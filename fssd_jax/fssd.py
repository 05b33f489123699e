"""Feature Space Singularity Distance: Eq. (1) and Algorithm 1 of Huang et al. (2021).

    FSSD^(k)(x) = ‖F_k(x) − F*_k‖,   F*_k = mean feature of noise at layer k   (Eq. 1)
    x̃ = x + ε · sign(∇ₓ FSSD^(k)(x))                                  (input step)

Everything here is a pure function of arrays, to be used under `jax.jit`;
`fssd_jax.map_batches` runs such a function over a data set.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from fssd_jax.checks import InputError
from fssd_jax.compiled import by_parts, compiled
from fssd_jax.data.pipeline import padded_batches
from fssd_jax.features import FeatureFn, Variables, pool, same_layers
from fssd_jax.shown import brief


class Singularity(NamedTuple):
    """F*: the centre of the noise features (Algorithm 1, step 1)."""

    center: OrderedDict[str, Float[Array, " dim"]]  # F*_k, the mean feature, by layer
    # Root mean squared ‖F_k(noise) − F*_k‖: how singular the singularity is.
    spread: OrderedDict[str, Float[Array, ""]]
    count: Int[Array, ""]  # how many noise samples

    __repr__ = brief


def uniform_noise(
    key: PRNGKeyArray, n: int, shape: tuple[int, ...], start: int = 0
) -> Float[Array, "n ..."]:
    """Samples `start` … `start + n − 1` of an endless U[0, 1] noise data set.

    Each sample has a key of its own, so that noise drawn piece by piece is the same.
    """
    keys = jax.vmap(partial(jax.random.fold_in, key))(start + jnp.arange(n))
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)


def estimate_singularity(
    feature_fn: FeatureFn,
    variables: Variables,
    batches: Num[Array, "n ..."] | Iterable,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Singularity:
    """F*_k = (1/S) Σ_s F_k(x_s) over noise or OoD validation samples (Algorithm 1).

    One pass, one compilation; memory is that of one batch.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      batches: one array [n, ...], or an iterable of arrays [batch, ...].
      batch_size: used when one array is given; otherwise the first batch's size.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: no samples, or samples that are not finite or out of range.
    """
    total = None
    for x, mask in padded_batches(batches, batch_size, "noise", unit_range=unit_range):
        part = _moments(feature_fn, variables, x, mask)
        total = part if total is None else _merge(total, part)
    if total is None:
        raise InputError("noise: the set is empty; at least one batch is needed")
    return total


@compiled(static=1)
def _moments(feature_fn, variables, x, mask) -> Singularity:
    """Mean and spread of one batch; padded rows, where `mask` is false, are ignored."""
    count = mask.sum()
    center, spread = OrderedDict(), OrderedDict()
    for name, f in pool(feature_fn(variables, x), "flatten").items():
        # `where`, not a product with the mask: a padded row may hold NaN.
        center[name] = jnp.where(mask[:, None], f, 0).sum(0) / count
        squares = jnp.where(mask, jnp.square(f - center[name][None]).sum(-1), 0)
        spread[name] = jnp.sqrt(squares.sum() / count)
    return Singularity(center, spread, count)


@jax.jit
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
    return jnp.stack(
        [norm(flat[k] - center[None]) for k, center in singularity.center.items()], -1
    )


def layer_distance(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    layer: str,
    x: Num[Array, "batch ..."],
) -> Float[Array, " batch"]:
    """Eq. (1) for one layer. Under `jit`, nothing above that layer is computed."""
    features = feature_fn(variables, x)
    same_layers(singularity.center, features)
    feature = OrderedDict([(layer, features[layer])])
    return norm(pool(feature, "flatten")[layer] - singularity.center[layer][None])


def gradient_sign(
    score_fn: Callable[[Array], Float[Array, " batch"]], x: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """sign(∇ₓ score(x)) per example: no example's score may depend on another's."""
    return jnp.sign(jax.grad(lambda x: score_fn(x).sum())(x))


def perturb(
    score_fn: Callable[[Array], Float[Array, " batch"]],
    x: Float[Array, "batch ..."],
    epsilon: float | Float[Array, ""],
) -> Float[Array, "batch ..."]:
    """x̃ = x + ε · sign(∇ₓ score(x)) (Algorithm 1, step 2); ε in the units of x."""
    return x + epsilon * gradient_sign(score_fn, x)


def fssd(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x: Float[Array, "batch ..."],
    epsilon: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch layers"]:
    """FSSD^(k)(x + ε · sign(∇ₓ FSSD^(k)(x))) for every layer k (Algorithm 1).

    Each layer takes its own step. A Python number ε = 0 costs one forward pass.
    """
    if isinstance(epsilon, int | float) and epsilon == 0:
        return distances(singularity, feature_fn(variables, x))
    of = _layers(feature_fn, singularity), (variables, singularity), x
    return at_step(*of, signs(*of), epsilon)


@by_parts
def sweep(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x: Float[Array, "batch ..."],
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch layers"]:
    """`fssd` for many ε: sign(∇ₓ FSSD) does not depend on ε and is computed once."""
    return sweep_each(
        _layers(feature_fn, singularity), (variables, singularity), x, epsilons
    )


def _layers(feature_fn: FeatureFn, singularity: Singularity) -> "Scores":
    return Scores(layer_distance, feature_fn, tuple(singularity.center))


# ---- several scores of one image, each with a step of its own -----------------------


class Scores(NamedTuple):
    """Scores that read one network: of(apply_fn, variables, state, name, x) → [batch].

    It is what programs are found again by: functions of a module, and no arrays.
    """

    of: Callable[..., Float[Array, " batch"]]
    apply_fn: Callable  # a FeatureFn or LogitFn
    names: tuple  # of the scores: layers, …


def sweep_each(
    scores: Scores,
    arrays: tuple,
    x: Float[Array, "batch ..."],
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch score"]:
    """score(x + ε · sign(∇ₓ score(x))) for many ε and several scores of one image.

    Args:
      scores: what they are; each takes its own step.
      arrays: (variables, state), which they take.
      x: images.
      epsilons: input steps, in the units of x.
    """
    return at_steps(scores, arrays, x, signs(scores, arrays, x), epsilons)


def signs(scores: Scores, arrays: tuple, x: Float[Array, "batch ..."]) -> list[Array]:
    """sign(∇ₓ score(x)) of each score."""
    return [jnp.sign(gradient) for gradient in gradients(scores, arrays, x)]


@compiled(static=1)
def gradients(
    scores: Scores, arrays: tuple, x: Float[Array, "batch ..."]
) -> list[Float[Array, "batch ..."]]:
    """∇ₓ score(x) of each score; they share the forward pass."""
    evaluate = _traced_once(scores, arrays)
    return [jax.grad(lambda x, k=k: evaluate(k, x).sum())(x) for k in scores.names]


@compiled(static=1)
def at_step(
    scores: Scores,
    arrays: tuple,
    x: Float[Array, "batch ..."],
    steps: Sequence[Float[Array, "batch ..."]],
    epsilon: float | Float[Array, ""],
) -> Float[Array, "batch score"]:
    """score(x + ε · step) of each score, with a step each."""
    evaluate = _traced_once(scores, arrays)
    stepped = zip(scores.names, steps, strict=True)
    return jnp.stack([evaluate(k, x + epsilon * step) for k, step in stepped], -1)


def at_steps(
    scores: Scores,
    arrays: tuple,
    x: Float[Array, "batch ..."],
    steps: Sequence[Float[Array, "batch ..."]],
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch score"]:
    """`at_step` for many ε, compiled for one: a call each, or a loop under `jit`."""
    epsilons = jnp.asarray(epsilons, x.dtype)
    if epsilons.ndim != 1 or not len(epsilons):
        raise InputError(f"epsilons: one or more, [epsilon]; got {epsilons.shape}")
    at = partial(at_step, scores, arrays, x, steps)
    if any(isinstance(a, Tracer) for a in (x, epsilons)):
        return jax.lax.map(at, epsilons)
    return jnp.stack([at(epsilon) for epsilon in epsilons])


def _traced_once(scores: Scores, arrays: tuple) -> Callable:
    """(name, x) → score, for use under `jit`: the network is traced once for all.

    XLA sees each call, merges what they have in common, and drops what is not used.
    """
    network = jax.jit(scores.apply_fn)
    variables, state = arrays
    return lambda name, x: scores.of(network, variables, state, name, x)


def each(f: Callable, values):
    """Stack f(value) over the first axis, one after the other in one compiled call."""
    # Rolled loops around convolutions are slow on a CPU.
    if jax.default_backend() == "cpu":
        f = jax.jit(f)  # traced once
        return jnp.stack([f(value) for value in values])
    return jax.lax.map(f, values)
