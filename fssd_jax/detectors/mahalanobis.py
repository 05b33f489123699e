"""Mahalanobis: distance of the features to the nearest class-conditional Gaussian.

    M_k(x) = max_c −(F_k(x) − μ_kc)ᵀ Σ_k⁻¹ (F_k(x) − μ_kc),   score Σ_k α_k M_k(x̃_k)

μ_kc is the mean feature of class c of the training set at layer k, Σ_k the covariance
tied over classes, F_k averaged over space; x̃_k = x + ε · sign(∇ₓ M_k(x)).

Lee, Lee, Lee and Shin (2018), "A Simple Unified Framework for Detecting
Out-of-Distribution Samples and Adversarial Attacks".
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from fssd_jax import checks, moments
from fssd_jax.compiled import by_parts, compiled
from fssd_jax.data.pipeline import map_batches
from fssd_jax.ensemble import (
    EPSILONS,
    Ensemble,
    check_validation,
    combine,
    fit_swept,
    standardise,
)
from fssd_jax.labelled import moments_of_classes
from fssd_jax.moments import Moments
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    Variables,
    features_of,
    pool,
    same_layers,
)
from fssd_jax.shown import brief
from fssd_jax.steps import Scores, sweep_each

BLOCK = 64  # classes compared with at once


class Gaussians(NamedTuple):
    """Class-conditional Gaussians of every layer, with Σ⁻¹ = Wᵀ W."""

    # W, the inverse of Cholesky's factor: lower triangular. Scoring then needs products
    # only; a triangular solve calls OpenBLAS, whose waiting threads take the cores of a
    # CPU from XLA's, which halves the speed.
    whitening: OrderedDict[str, Float[Array, "dim dim"]]
    center: OrderedDict[str, Float[Array, "classes dim"]]  # W μ_c

    __repr__ = brief


class State(NamedTuple):
    gaussians: Gaussians
    epsilon: Float[Array, ""] | None  # None is ε = 0: then no gradient is compiled
    ensemble: Ensemble
    # Why this ε: mean AUROC in cross-validation for each ε tried; empty if none were.
    epsilons: Float[Array, " epsilon"]
    epsilon_auroc: Float[Array, " epsilon"]

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    gaussians: Gaussians,
    ind,
    ood=None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
) -> State:
    """Layer weights and ε from validation images, as for FSSD.

    With in-distribution images alone: ε = 0, layers standardised on them and summed.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      gaussians: see `estimate_gaussians`.
      ind: in-distribution validation images [n, ...], not from the test set.
      ood: OoD validation images [m, ...], not from the test set.
      epsilons: input steps to try, ascending, in the units of x.
      seed: of the cross-validation folds.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar.
    """
    layers = list(gaussians.whitening)
    apply = partial(
        map_batches,
        apply_fn=feature_fn,
        variables=variables,
        state=gaussians,
        batch_size=batch_size,
        unit_range=unit_range,
    )
    if ood is None:
        none = jnp.zeros(0)
        weights = standardise(apply(confidences, x=ind), layers)
        return State(gaussians, None, weights, none, none)
    check_validation(ind, ood, epsilons)
    steps = jnp.asarray(epsilons, jnp.float32)
    swept = [
        apply(sweep, x=x, epsilons=steps, batch_axis=1, progress=progress and title)
        if any(epsilons)
        else apply(confidences, x=x, progress=progress and title)[None]
        for title, x in (("sweep ε, in", ind), ("sweep ε, OoD", ood))
    ]
    choice, weights = fit_swept(
        *(swept[0], swept[1], epsilons, layers, seed), progress=bool(progress)
    )
    return State(
        gaussians,
        jnp.float32(choice.epsilon) if choice.epsilon else None,
        weights,
        steps,
        jnp.asarray(choice.auroc, jnp.float32),
    )


def score(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, " batch"]:
    """Σ_k α_k (M_k(x̃_k) − center_k) / scale_k + intercept."""
    return combine(state.ensemble, layer_scores(feature_fn, variables, state, x))


def layer_scores(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, "batch layers"]:
    """M_k(x̃_k) of every layer, before they are combined."""
    if state.epsilon is None:
        return confidences(feature_fn, variables, state.gaussians, x)
    step = state.epsilon[None]
    return sweep(feature_fn, variables, state.gaussians, x, step)[0]


def confidences(
    feature_fn: FeatureFn,
    variables: Variables,
    gaussians: Gaussians,
    x: Inputs,
) -> Float[Array, "batch layers"]:
    """M_k(x) of every layer from one forward pass."""
    return of_features(gaussians, features_of(feature_fn, variables, x))


def of_features(
    gaussians: Gaussians, features: OrderedDict[str, Float[Array, "batch ..."]]
) -> Float[Array, "batch layers"]:
    """M_k of the features that a network has given."""
    same_layers(gaussians.whitening, features)
    pooled = pool(features, "mean")
    return jnp.stack([confidence(gaussians, k, f) for k, f in pooled.items()], -1)


@by_parts
def sweep(
    feature_fn: FeatureFn,
    variables: Variables,
    gaussians: Gaussians,
    x: Inputs,
    epsilons: Float[Array, " epsilon"],
) -> Float[Array, "epsilon batch layers"]:
    """M_k(x + ε · sign(∇ₓ M_k(x))) for many ε; one gradient a layer."""
    scores = Scores(layer_confidence, feature_fn, tuple(gaussians.whitening))
    return sweep_each(scores, (variables, gaussians), x, epsilons)


def layer_confidence(
    feature_fn: FeatureFn,
    variables: Variables,
    gaussians: Gaussians,
    layer: str,
    x: Inputs,
) -> Float[Array, " batch"]:
    """M_k(x) of one layer. Under `jit`, nothing above that layer is computed."""
    features = features_of(feature_fn, variables, x)
    same_layers(gaussians.whitening, features)
    feature = OrderedDict([(layer, features[layer])])
    return confidence(gaussians, layer, pool(feature, "mean")[layer])


def confidence(
    gaussians: Gaussians, layer: str, f: Float[Array, "batch dim"]
) -> Float[Array, " batch"]:
    """M_k of pooled features."""
    center = gaussians.center[layer]
    # Of W's long rows all but little cancels: TF32 or bfloat16 would leave no digit.
    white = jnp.matmul(f, gaussians.whitening[layer].T, precision="highest")
    # The gradient of the minimum is that of the nearest centre's distance: found apart,
    # no [batch, classes, dim] is held for the others.
    nearest = _nearest(jax.lax.stop_gradient(white), center)
    return -jnp.square(white - center[nearest]).sum(-1)


@jax.jit  # so that the loop is compiled where the caller does not compile
def _nearest(
    w: Float[Array, "batch dim"], center: Float[Array, "classes dim"]
) -> Int[Array, " batch"]:
    """argmin_c ‖w − c‖; the differences are held for `BLOCK` classes at once.

    Not −2 w·c + ‖c‖², one matrix product, which loses the digits that tell classes
    apart where others lie far away.
    """
    classes, size = len(center), min(BLOCK, len(center))
    # The last block begins among classes that were seen, and so is full.
    starts = np.minimum(np.arange(0, classes, size), classes - size)

    def squares(start):
        block = jax.lax.dynamic_slice_in_dim(center, start, size)
        return jnp.square(block[:, None] - w[None]).sum(-1)

    apart = jax.lax.map(squares, starts).reshape(-1, len(w))
    return jnp.asarray((starts[:, None] + np.arange(size)).ravel())[apart.argmin(0)]


# ---- estimation, in one pass over the training set ----------------------------------


def estimate_gaussians(
    feature_fn: FeatureFn,
    variables: Variables,
    x,
    y,
    num_classes: int,
    *,
    ridge: float = 1e-6,
    batch_size: int = 64,
    unit_range: bool = True,
    mesh: Mesh | None = None,
) -> Gaussians:
    """Σ_k⁻¹ and μ_kc, in one pass; memory is that of Σ_k and some thousand features.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      x: training images, as of `pipeline.batches`.
      y: their classes [n], 0 to num_classes − 1; None if x are batches (x, y).
      num_classes: how many classes there are.
      ridge: added to Σ's diagonal, as a share of its mean: Σ is singular where a unit
        is dead on all training images, or units or classes are many and images few.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      mesh: as of `pipeline.batches`.

    Raises:
      InputError: unusable images or labels, a class without images, or a layer whose
        features are all the same or not finite.
    """
    if not ridge >= 0:
        raise checks.InputError(f"ridge: expected 0 or more, got {ridge}")
    found = moments_of_classes(
        *(_pooled, feature_fn, variables, x, y, num_classes),
        batch_size=batch_size,
        unit_range=unit_range,
        mesh=mesh,
    )
    whitening, center = OrderedDict(), OrderedDict()
    for name, of_layer in found.items():
        whitening[name], center[name] = gaussian(name, of_layer, ridge)
    return Gaussians(whitening, center)


def gaussian(
    name: str, of_layer: Moments, ridge: float
) -> tuple[Float[Array, "dim dim"], Float[Array, "classes dim"]]:
    """W and W μ_c of a layer's classes."""
    lower = moments.lower_factor(name, of_layer, ridge)
    whitening = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    white = of_layer.mean @ whitening.T
    return jax.device_put(np.float32(whitening)), jax.device_put(np.float32(white))


@compiled(static=1)
def _pooled(feature_fn, variables, _, x) -> OrderedDict[str, Array]:
    return pool(features_of(feature_fn, variables, x), "mean")
