"""FSSD-Ensem: Algorithm 1 of Huang et al. (2021), from what data you have.

    score(x) = Σ_k α_k (FSSD^(k)(x̃_k) − center_k) / scale_k + intercept

x̃_k is the input step of layer k; α, center, scale and intercept are of the `ensemble`.
With in-distribution images and no OoD ones it is log FSSD, of the last two layers.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import fssd
from fssd_jax.checks import InputError, warn
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

DEEP = 2  # layers at the end that count where no OoD image is given


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
    layers: Sequence[str] | None = None,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
) -> State:
    """Estimate F*, and the weights from as much validation data as there is.

    - `noise` alone: ε = 0 and the mean over layers of FSSD^(k) / spread_k, the noise's
      own root-mean-square distance. No data and no labels are used.
    - and `ind`: ε = 0 and Σ_k (log FSSD^(k) − mean) / std over `layers`, mean and
      standard deviation those of `ind`. A warning tells where noise lies farther from
      F* than the data do, against what FSSD presumes.
    - and `ood`: α from logistic regression and ε from nested cross-validation
      (the paper; see `ensemble`).

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      noise: samples for F*, data as of `pipeline.batches`; or OoD validation samples;
        or F* itself, a `Singularity` that was estimated before.
      ind: in-distribution validation images, data likewise, not from the test set.
      ood: OoD validation images, data likewise, not from the test set.
      layers: which of the network's count where `ind` and no `ood` is given; by default
        the last two. Early layers may order OoD and data the other way. (`jit` sorts
        a plain dict by name: of a jitted feature_fn "last" is so of an OrderedDict.)
      epsilons: input steps to try, ascending, in the units of x; (0.,) takes no
        gradient.
      seed: of the cross-validation folds.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar.

    Raises:
      InputError: unusable images, too few of them, constant features, an unknown layer,
        or layers where they do not count.
    """
    if ood is not None:
        check_validation(ind, ood, epsilons)
    if layers is not None and (ind is None or ood is not None):
        raise InputError(
            "layers: they are chosen where in-distribution images are given and no OoD "
            "ones; else choose them by make_feature_fn(model, layers=[...])"
        )
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
    chosen = chosen_layers(singularity, layers)
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

    def tell() -> None:
        # Features from elsewhere have the range that they have: see `adapters.given`.
        if not getattr(feature_fn, "of_features", False):
            tell_range(of_noise, ind, unit_range)

    if ood is None:
        none = jnp.zeros(0)
        d = None if ind is None else distances(ind, "FSSD, in")[0]
        tell()
        of = _of_noise(singularity) if d is None else deep(singularity, d, chosen)
        return State(singularity, None, of, none, none)
    ind_d = distances(ind, "sweep ε, in", *epsilons)
    tell()
    ood_d = distances(ood, "sweep ε, OoD", *epsilons)
    choice, weights = fit_swept(
        *(ind_d, ood_d, epsilons, list(singularity.center), seed),
        progress=bool(progress),
    )
    return State(
        singularity,
        jnp.float32(choice.epsilon) if choice.epsilon else None,
        weights,
        jnp.asarray(epsilons, jnp.float32),
        jnp.asarray(choice.auroc, jnp.float32),
    )


def tell_range(noise: Watched | None, ind: Watched | None, unit_range: bool) -> None:
    """Warn if noise is plainly not in the range of the data, where that is known."""
    if noise is None or noise.range is None:
        return
    low, high = noise.range
    verb = "lies" if noise.name == "noise" else "lie"
    what = f"{noise.name} {verb} in [{low:.3g}, {high:.3g}]"
    use = "fssd_jax.noise.noise_like(key, n, data) draws noise in the range of data"
    if ind is None or ind.range is None:
        if not unit_range and 0 <= low < high <= 1:
            warn(f"unit_range=False, but {what}: are the data there? {use}")
        return
    least, most = ind.range
    width, wide = high - low, most - least
    if not width / 5 <= wide <= 2 * width or abs(high + low - most - least) > 2 * width:
        warn(
            f"{what}, in-distribution images in [{least:.3g}, {most:.3g}]: F* of what "
            f"is in another range may tell nothing of these data; {use}"
        )


def check_alive(singularity: fssd.Singularity) -> None:
    """Raise if noise has the same features at some layer, up to rounding."""
    dead = [
        name
        for name, center in singularity.center.items()
        if float(singularity.spread[name]) <= 1e-5 * np.linalg.norm(np.asarray(center))
    ]
    if dead:
        raise InputError(
            f"layers {dead} have constant features: the same for all noise samples, or "
            "what else F* is the mean of (dead units, or a single sample?); leave them "
            "out: "
            "make_feature_fn(model, layers=[...])"
        )


def _of_noise(singularity: fssd.Singularity) -> Ensemble:
    """The mean over layers of the distance over that of noise."""
    spread = np.array([float(s) for s in singularity.spread.values()])
    zeros = np.zeros_like(spread)
    arrays = (zeros, spread, np.full_like(spread, 1 / len(spread)), 0)
    return Ensemble(*(jax.device_put(np.float32(a)) for a in arrays))


def chosen_layers(
    singularity: fssd.Singularity, layers: Sequence[str] | None
) -> list[str]:
    """The layers that count, of those that there are."""
    if isinstance(layers, str):
        raise InputError(
            f"layers: expected a list of names, got {layers!r}: [{layers!r}]"
        )
    known = list(singularity.center)
    chosen = known[-DEEP:] if layers is None else list(layers)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"layers: {chosen}; choose one or more of {known}, each once")
    return chosen


def deep(singularity: fssd.Singularity, d: np.ndarray, chosen: list[str]) -> Ensemble:
    """Σ of standardised log distances; `d` [n, layers] are in-distribution ones."""
    known = list(singularity.center)
    taken = np.array([name in chosen for name in known])
    beyond = taken & ~beyond_noise(singularity, d)
    if beyond.any():
        names = [name for name, b in zip(known, beyond, strict=True) if b]
        warn(
            f"at layers {names} noise, or what else F* is the mean of, lies farther "
            "from it than the in-distribution images do, so that OoD images may lie "
            "on either side of these: give F* of other noise or of images, or OoD "
            "validation images (ood=...), or choose other layers (layers=[...])"
        )
    _tell_twins(known, d, np.flatnonzero(taken))
    return standardise(d, known, taken, logs=True)


def _tell_twins(known: list[str], d: np.ndarray, taken: np.ndarray) -> None:
    """Warn of a layer that counts twice, as logits do under two names."""
    for i, j in combinations(taken, 2):
        if np.allclose(d[:, i], d[:, j], rtol=1e-5, atol=0):
            warn(
                f"layers {known[i]!r} and {known[j]!r} have the same distances, as one "
                "layer under two names, which counts twice: leave one of them out of "
                "the feature_fn, or choose others (layers=[...])"
            )


def beyond_noise(singularity: fssd.Singularity, d: np.ndarray) -> np.ndarray:
    """[layers] whether the data lie farther from F* than noise does, as FSSD presumes.

    Noise lies at `spread`; `d` [n, layers] are distances of in-distribution images.
    """
    spread = np.array([float(s) for s in singularity.spread.values()])
    return np.median(d, axis=0) >= spread


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
