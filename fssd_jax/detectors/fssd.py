"""FSSD-Ensem: Algorithm 1 of Huang et al. (2021), from what data you have.

    score(x) = Σ_k α_k (FSSD^(k)(x̃_k) − center_k) / scale_k + intercept

x̃_k is the input step of layer k; α, center, scale and intercept are of the `ensemble`.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import fssd
from fssd_jax.checks import InputError
from fssd_jax.data.inputs import Watched
from fssd_jax.data.pipeline import map_batches
from fssd_jax.ensemble import (
    EPSILONS,
    Ensemble,
    check_validation,
    combine,
    fit_swept,
    standardise,
)
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief


class State(NamedTuple):
    """A fitted FSSD detector."""

    singularity: fssd.Singularity
    # None is ε = 0: known when compiling, so that no gradient is computed.
    epsilon: Float[Array, ""] | None
    ensemble: Ensemble
    # Why this ε: mean AUROC in cross-validation for each ε tried; empty if none were.
    epsilons: Float[Array, " epsilon"]
    epsilon_auroc: Float[Array, " epsilon"]

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    noise,
    ind=None,
    ood=None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
) -> State:
    """Estimate F*, and the weights from as much validation data as there is.

    - `noise` alone: ε = 0 and the mean over layers of FSSD^(k) / spread_k, the noise's
      own root-mean-square distance. No data and no labels are used.
    - and `ind`: ε = 0, layers standardised on `ind` and summed. A layer where noise
      lies farther from F* than the data do has weight 0, and a warning tells: there an
      OoD image may lie on either side of the data.
    - and `ood`: α from logistic regression and ε from nested cross-validation
      (the paper; see `ensemble`).

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      noise: samples for F*, data as of `pipeline.batches`; or OoD validation samples;
        or F* itself, a `Singularity` that was estimated before.
      ind: in-distribution validation images, data likewise, not from the test set.
      ood: OoD validation images, data likewise, not from the test set.
      epsilons: input steps to try, ascending, in the units of x; (0.,) takes no
        gradient.
      seed: of the cross-validation folds.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar.

    Raises:
      InputError: unusable images, too few of them, constant features, or noise that at
        every layer lies farther from F* than the data do.
    """
    if ood is not None:
        check_validation(ind, ood, epsilons)
    unit_range = unit_range and not getattr(feature_fn, "of_features", False)
    of_noise = None
    if ind is not None:
        ind = Watched(ind, "in-distribution images", unit_range=unit_range)
    if isinstance(noise, fssd.Singularity):
        singularity = noise
    else:
        of_noise = Watched(noise, "noise", unit_range=unit_range)
        singularity = fssd.estimate_singularity(
            *(feature_fn, variables, of_noise, batch_size, unit_range),
            progress=progress and "F* of noise",
        )
    check_alive(singularity)
    apply = partial(
        map_batches,
        apply_fn=feature_fn,
        variables=variables,
        state=singularity,
        batch_size=batch_size,
        unit_range=unit_range,
    )

    def distances(x, title: str, *epsilons: float) -> np.ndarray:
        """[epsilon, n, layers]; no gradient is taken where ε = 0 alone is tried."""
        shown = progress and title
        if not any(epsilons):
            return apply(fssd.fssd, x=x, progress=shown)[None]
        steps = jnp.asarray(epsilons, jnp.float32)
        return apply(fssd.sweep, x=x, epsilons=steps, batch_axis=1, progress=shown)

    def tell_range() -> None:
        # Features from elsewhere have the range that they have: see `adapters.given`.
        if not getattr(feature_fn, "of_features", False):
            _tell_range(of_noise, ind, unit_range)

    if ood is None:
        none = jnp.zeros(0)
        d = None if ind is None else distances(ind, "FSSD, in")[0]
        tell_range()
        return State(singularity, None, _label_free(singularity, d), none, none)
    ind_d = distances(ind, "sweep ε, in", *epsilons)
    tell_range()
    ood_d = distances(ood, "sweep ε, OoD", *epsilons)
    layers = list(singularity.center)
    choice, weights = fit_swept(
        *(ind_d, ood_d, epsilons, layers, seed), progress=bool(progress)
    )
    return State(
        singularity,
        jnp.float32(choice.epsilon) if choice.epsilon else None,
        weights,
        jnp.asarray(epsilons, jnp.float32),
        jnp.asarray(choice.auroc, jnp.float32),
    )


def _tell_range(noise: Watched | None, ind: Watched | None, unit_range: bool) -> None:
    """Warn if noise is plainly not in the range of the data, where that is known."""
    if noise is None or noise.range is None:
        return
    low, high = noise.range
    what = f"noise lies in [{low:.3g}, {high:.3g}]"
    use = "fssd_jax.noise.noise_like(key, n, data) draws noise in the range of data"
    if ind is None or ind.range is None:
        if not unit_range and 0 <= low < high <= 1:
            warnings.warn(
                f"unit_range=False, but {what}: are the data there? {use}", stacklevel=3
            )
        return
    least, most = ind.range
    width, wide = high - low, most - least
    if not width / 5 <= wide <= 2 * width or abs(high + low - most - least) > 2 * width:
        warnings.warn(
            f"{what}, in-distribution images in [{least:.3g}, {most:.3g}]: F* of noise "
            f"in another range may tell nothing of these data; {use}",
            stacklevel=3,
        )


def check_alive(singularity: fssd.Singularity) -> None:
    """Raise if noise has the same features at some layer, up to rounding."""
    dead = [
        name
        for name, center in singularity.center.items()
        if singularity.spread[name] <= 1e-5 * np.linalg.norm(np.asarray(center))
    ]
    if dead:
        raise InputError(
            f"layers {dead} have constant features: the same for all noise samples "
            "(dead units, or a single sample?); leave them out: "
            "make_feature_fn(model, layers=[...])"
        )


def _label_free(singularity: fssd.Singularity, d: np.ndarray | None) -> Ensemble:
    """Weights without OoD data; `d` [n, layers] are in-distribution distances."""
    layers = list(singularity.center)
    if d is not None:
        kept = beyond_noise(singularity, d)
        names = [k for k, keep in zip(layers, kept, strict=True) if not keep]
        _tell_left_out(names, layers)
        return standardise(d, layers, kept)
    spread = np.array([float(s) for s in singularity.spread.values()])
    mean = np.full(len(layers), 1 / len(layers))
    arrays = (np.zeros(len(layers)), spread, mean, 0)
    return Ensemble(*(jax.device_put(np.float32(a)) for a in arrays))


def beyond_noise(singularity: fssd.Singularity, d: np.ndarray) -> np.ndarray:
    """[layers] whether the data lie farther from F* than noise does, as FSSD presumes.

    Noise lies at `spread`; `d` [n, layers] are distances of in-distribution images.
    """
    spread = np.array([float(s) for s in singularity.spread.values()])
    return np.median(d, axis=0) >= spread


def _tell_left_out(names: list[str], layers: list[str]) -> None:
    """Warn, or raise if no layer is left."""
    if not names:
        return
    why = (
        "noise lies farther from F* there than the in-distribution images do, so that "
        "the distance does not tell which are in-distribution"
    )
    what_to_do = (
        "give OoD validation images (ood=...), or F* of other noise, or choose other "
        "layers"
    )
    if names == layers:
        raise InputError(
            f"none of the layers {layers} can be used: {why}; {what_to_do}"
        )
    warnings.warn(
        f"layers {names} are left out: {why}; to use them {what_to_do}", stacklevel=4
    )


def score(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, " batch"]:
    """FSSD-Ensem(x), with the input step if the fit chose one."""
    return combine(state.ensemble, layer_scores(feature_fn, variables, state, x))


def layer_scores(
    feature_fn: FeatureFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, "batch layers"]:
    """FSSD^(k)(x̃_k) of every layer, before they are combined."""
    epsilon = 0.0 if state.epsilon is None else state.epsilon
    return fssd.fssd(feature_fn, variables, state.singularity, x, epsilon)
