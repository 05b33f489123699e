"""The compared methods and their controls: from a `Setting` to scores.

Each takes a trained network, noise, validation and test images, and returns one row or
more; a new method is a function and an entry in a table at the end of its file.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np

from experiments import protocols, retrained
from experiments.scores import (
    LayerScores,
    Method,
    Rows,
    Scored,
    chosen_by_labels,
    scored,
    timed,
)
from experiments.setting import Setting
from fssd_jax.data.pipeline import as_float
from fssd_jax.detectors import (
    displacement,
    energy,
    knn,
    mahalanobis,
    max_logit,
    msp,
    odin,
)
from fssd_jax.ensemble import combine


def run_fssd(s: Setting) -> Scored:
    """FSSD-Ensem as the protocol says."""
    network = (s.feature_fn, s.variables)
    state = protocols.fit(s.protocol, *network, s.noise, s.val_ind, s.val_ood, s.seed)
    epsilon = chosen_epsilon(state)

    def distances(e, x):
        return protocols.sweep(s.protocol, *network, state.singularity, x, (e,))[0]

    *stepped, seconds = timed(partial(distances, epsilon), s.test_ind, s.test_ood)
    plain = (
        [distances(0.0, x) for x in (s.test_ind, s.test_ood)] if epsilon else stepped
    )
    centers = state.singularity.center
    layers = LayerScores(
        names=list(centers),
        dims=[center.size for center in centers.values()],
        alpha=np.asarray(state.ensemble.alpha),
        spread=np.array([float(v) for v in state.singularity.spread.values()]),
        epsilon=epsilon,
        epsilons=np.asarray(state.epsilons),
        criterion=np.asarray(state.epsilon_auroc),
        ind=stepped[0],
        ood=stepped[1],
        plain_ind=plain[0],
        plain_ood=plain[1],
    )
    ind, ood = (np.asarray(combine(state.ensemble, jnp.asarray(d))) for d in stepped)
    return Scored(
        ind,
        ood,
        note=epsilon_note(state),
        passes=_passes(len(centers), epsilon),
        data="F*",
        seconds=seconds,
        layers=layers,
        **s.labels,
    )


def run_layers(s: Setting) -> Rows:
    """FSSD of each layer alone, Eq. (1) as it stands: no labels, no input step."""
    found = run_fssd(s.under_clean()).layers
    assert found is not None
    return {
        f"fssd {name}": Scored(found.ind[:, k], found.ood[:, k], data="F*")
        for k, name in enumerate(found.names)
    }


def run_odin(s: Setting) -> Scored:
    ood = None if s.clean else s.val_ood
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = odin.fit(s.logit_fn, s.variables, s.val_ind, ood, epsilons=epsilons)
    return scored(
        s,
        odin.score,
        state,
        note=f"T = {float(state.temperature):g}, {epsilon_note(state)}",
        passes=_passes(1, chosen_epsilon(state)),
        **chosen_by_labels(s),
    )


def run_mahalanobis(s: Setting) -> Scored:
    train = s.schedule.train
    gaussians = mahalanobis.estimate_gaussians(
        s.feature_fn, s.variables, train.x, train.y, s.benchmark.num_classes
    )
    ood = None if s.clean else s.val_ood
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = mahalanobis.fit(
        s.feature_fn,
        s.variables,
        gaussians,
        s.val_ind,
        ood,
        epsilons=epsilons,
        seed=s.seed,
    )
    labels = s.labels
    return scored(
        s,
        mahalanobis.score,
        state,
        feature_fn=s.feature_fn,
        note=epsilon_note(state),
        passes=_passes(len(gaussians.factor), chosen_epsilon(state)),
        data="class means, covariances",
        **labels | {"fitted_on": f"{labels['fitted_on']}, training set"},
    )


def run_knn(s: Setting) -> Scored:
    """On the last layer before the logits."""
    layer = list(s.feature_fn(s.variables, as_float(s.val_ind[:1])))[-2]
    train = s.schedule.train.x
    state = knn.fit(s.feature_fn, s.variables, train, layer, k=min(50, len(train)))
    return scored(
        s,
        knn.score,
        state,
        feature_fn=s.feature_fn,
        fitted_on="training set",
        note=f"{layer}, k = {len(state.ranks)}",
        data=f"{len(train):,} features",
    )


def run_displacement(s: Setting) -> Rows:
    """Layers standardised on in-distribution images and summed."""
    return {
        kind: scored(
            s,
            displacement.score,
            displacement.fit(
                s.feature_fn,
                s.variables,
                s.initial,
                s.val_ind,
                relative=kind.startswith("relative"),
            ),
            feature_fn=s.feature_fn,
            fitted_on=f"{len(s.val_ind)} in",
            passes="2",
            data="initial weights",
        )
        for kind in ("displacement", "relative displacement")
    }


def _without_fit(module) -> Callable[[Setting], Scored]:
    return lambda s: scored(s, module.score, module.fit())


# ---- what they share ----------------------------------------------------------------


def _passes(gradients: int, epsilon: float) -> str:
    return f"{1 + gradients} + {gradients} backward" if epsilon else "1"


def chosen_epsilon(state) -> float:
    """The input step of a fitted state, without the noise of float32."""
    return 0.0 if state.epsilon is None else round(float(state.epsilon), 6)


def epsilon_note(state) -> str:
    """ε as chosen, and whether a larger one, which was not tried, may be better."""
    epsilon, tried = chosen_epsilon(state), np.asarray(state.epsilons)
    at_end = len(tried) > 1 and np.isclose(epsilon, tried.max())
    return f"ε = {epsilon:g}" + (", the largest tried" if at_end else "")


# In the order of the table: first what needs no label of any OoD image.
METHODS: dict[str, Method] = {
    "layers": run_layers,
    "fssd_clean": lambda s: run_fssd(s.under_clean()),
    "displacement": run_displacement,
    "msp": _without_fit(msp),
    "max_logit": _without_fit(max_logit),
    "energy": _without_fit(energy),
    "knn": run_knn,
    "deep_ensemble": retrained.run_deep_ensemble,
    "mc_dropout": retrained.run_mc_dropout,
    "outlier_exposure": retrained.run_outlier_exposure,
    "odin": run_odin,
    "mahalanobis": run_mahalanobis,
    "fssd": run_fssd,
}
