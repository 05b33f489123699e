"""FSSD of the last layers and Mahalanobis' distance, each standardised, and summed.

    score(x) = z(Σ_k z(log FSSD^(k)(x))) + z(Σ_k z(M_k(x))),   z(a) = (a − mean) / std

Mean and std are of in-distribution validation images; M_k is as of `mahalanobis`. F* is
the mean feature of any images: means of 16 training images, say (`corruptions.mixed`).
No OoD image is seen. The two fail on different sets: FSSD where OoD lies farther from
F* than the data do, Mahalanobis where it lies near a class (docs/labelfree.md).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import fssd
from fssd_jax.data.inputs import Watched
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import mahalanobis
from fssd_jax.detectors.fssd import check_alive, chosen_layers, deep, tell_range
from fssd_jax.ensemble import Ensemble, combine, standardise
from fssd_jax.outputs import FeatureFn, Inputs, Variables, features_of, same_layers
from fssd_jax.shown import brief


class State(NamedTuple):
    singularity: fssd.Singularity
    gaussians: mahalanobis.Gaussians
    ensemble: Ensemble  # of log FSSD^(k) of all layers, then of M_k

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    images,
    gaussians: mahalanobis.Gaussians,
    ind,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
) -> State:
    """F* of `images`, and the standardisations, by one pass over each set.

    Args:
      feature_fn: see `make_feature_fn`; the logits should be its last layer
        (`head.with_logits` adds them).
      variables: the network's variables.
      images: those whose mean feature is F*, data as of `pipeline.batches`; or F*
        itself, a `Singularity`.
      gaussians: as of `mahalanobis.estimate_gaussians`, of all layers or of some.
      ind: in-distribution validation images, data likewise, not from the test set.
      layers: whose FSSD counts; by default that of the last two.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show progress bars.

    Raises:
      InputError: unusable images, constant features, an unknown layer.
    """
    of_features = getattr(feature_fn, "of_features", False)
    unit_range = unit_range and not of_features
    ind = Watched(ind, "in-distribution images", unit_range=unit_range)
    centre = None
    if isinstance(images, fssd.Singularity):
        singularity = images
    else:
        centre = Watched(images, "images of F*", unit_range=unit_range)
        singularity = fssd.estimate_singularity(
            *(feature_fn, variables, centre, batch_size),
            unit_range=unit_range,
            progress=progress and "F*",
        )
    check_alive(singularity)
    chosen = chosen_layers(singularity, layers)
    known = singularity, gaussians
    found = map_batches(
        *(_columns, feature_fn, variables, known, ind),
        batch_size=batch_size,
        unit_range=unit_range,
        progress=progress and "in-distribution images",
    )
    if not of_features:
        tell_range(centre, ind, unit_range)
    d, m = np.split(found, [len(singularity.center)], axis=1)
    parts = deep(singularity, d, chosen), standardise(m, list(gaussians.whitening))
    return State(singularity, gaussians, _joined(parts, (d, m)))


def _joined(parts: Sequence[Ensemble], found: Sequence[np.ndarray]) -> Ensemble:
    """One for all columns: α of each part over the deviation of its sum."""
    alphas, logs = [], []
    for part, d in zip(parts, found, strict=True):
        alphas.append(part.alpha / np.std(combine(part, jnp.asarray(d))))
        known = np.zeros(d.shape[1], bool) if part.logs is None else part.logs
        logs.append(jnp.asarray(known))
    center, scale = (
        jnp.concatenate([getattr(part, name) for part in parts])
        for name in ("center", "scale")
    )
    # The mean of each sum is 0, because that of each of its terms is.
    none = jnp.zeros(())
    return Ensemble(center, scale, jnp.concatenate(alphas), none, jnp.concatenate(logs))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """The sum of the two, each standardised."""
    known = state.singularity, state.gaussians
    return combine(state.ensemble, _columns(feature_fn, variables, known, x))


def _columns(
    feature_fn: FeatureFn,
    variables: Variables,
    known: tuple[fssd.Singularity, mahalanobis.Gaussians],
    x: Inputs,
) -> Float[Array, "batch columns"]:
    """FSSD^(k) of all layers, then M_k of those that have Gaussians."""
    singularity, gaussians = known
    features = features_of(feature_fn, variables, x)
    names = [k for k in features if k in gaussians.whitening]
    same_layers(gaussians.whitening, names)
    some = OrderedDict((k, features[k]) for k in names)
    d = fssd.distances(singularity, features)
    return jnp.concatenate([d, mahalanobis.of_features(gaussians, some)], 1)
