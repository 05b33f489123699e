"""Relative Mahalanobis: how much nearer a class is than the training set as a whole.

    score(x) = −min_c (d_c(h) − d_0(h)),   d_c = (h − μ_c)ᵀ Σ⁻¹ (h − μ_c)

h is a layer averaged over space; d_0 is of one Gaussian of all training images, with
their mean μ_0 and covariance Σ_0.

Ren, Fort, Liu, Roy, Padhy and Lakshminarayanan (2021), "A Simple Fix to Mahalanobis
Distance for Improving Near-OOD Detection".
"""

from collections import OrderedDict
from typing import NamedTuple

from jaxtyping import Array, Float

from fssd_jax import moments
from fssd_jax.checks import InputError
from fssd_jax.detectors.mahalanobis import Gaussians, confidence, gaussian
from fssd_jax.labelled import moments_of_classes
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    Variables,
    features_of,
    pool,
    same_sizes,
)
from fssd_jax.shown import brief


class State(NamedTuple):
    classes: Gaussians
    background: Gaussians  # of all as one class

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    train,
    y,
    num_classes: int,
    layer: str,
    *,
    ridge: float = 1e-6,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """Both Gaussians, in one pass; memory is that of Σ and some thousand features.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      train: training images, data as of `pipeline.batches`.
      y: their classes [n], 0 to num_classes − 1; None if train are batches (x, y).
      num_classes: how many classes there are.
      layer: one of the layers, averaged over space: the last before the logits is
        usual.
      ridge: as of `mahalanobis.estimate_gaussians`, of both covariances.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: as of `mahalanobis.estimate_gaussians`.
    """
    of_layer = OrderedDict([(layer, None)])
    found = moments_of_classes(
        *(_layer, feature_fn, variables, train, y, num_classes),
        state=of_layer,
        batch_size=batch_size,
        unit_range=unit_range,
    )[layer]

    def named(of) -> Gaussians:
        whitening, center = (
            OrderedDict([(layer, a)]) for a in gaussian(layer, of, ridge)
        )
        return Gaussians(whitening, center)

    return State(named(found), named(moments.all_as_one(found)))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """d_0 − min_c d_c."""
    f = _layer(feature_fn, variables, state.classes.whitening, x)
    same_sizes(state.classes.whitening, f)
    ((layer, h),) = f.items()
    return confidence(state.classes, layer, h) - confidence(state.background, layer, h)


def _layer(feature_fn, variables, of_layer, x) -> OrderedDict[str, Array]:
    (layer,) = of_layer
    features = features_of(feature_fn, variables, x)
    if layer not in features:
        raise InputError(f"unknown layer {layer!r}; choose from {list(features)}")
    return pool(OrderedDict([(layer, features[layer])]), "mean")
