"""The rows of the table: each takes one setting and returns scores of the test sets."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.svm import SVC

from experiments import protocols
from experiments.protocols import Protocol
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.detectors import fssd, msp
from fssd_jax.ensemble import combine, logistic_regression
from fssd_jax.features import FeatureFn, LogitFn, Variables


class Setting(NamedTuple):
    """One network, one pair of data sets, one protocol."""

    protocol: Protocol
    feature_fn: FeatureFn
    logit_fn: LogitFn
    variables: Variables
    initial: Variables
    noise: jax.Array  # [samples, ...]
    val_ind: np.ndarray  # images
    val_ood: np.ndarray
    test_ind: np.ndarray
    test_ood: np.ndarray
    seed: int


class LayerScores(NamedTuple):
    """What FSSD-Ensem combined: distances [images, layers] of the test sets."""

    state: fssd.State
    epsilon: float
    ind: np.ndarray  # after the input step
    ood: np.ndarray
    plain_ind: np.ndarray  # Eq. (1) as it stands, ε = 0
    plain_ood: np.ndarray


class Scored(NamedTuple):
    ind: np.ndarray  # [n] scores of the in-distribution test images
    ood: np.ndarray  # [m]
    labels: str  # which labelled images were used to fit, for the reader
    layers: LayerScores | None = None


def run_fssd(s: Setting) -> Scored:
    network = (s.feature_fn, s.variables)
    state = protocols.fit(s.protocol, *network, s.noise, s.val_ind, s.val_ood, s.seed)
    epsilon = 0.0 if state.epsilon is None else round(float(state.epsilon), 6)
    sets = {"score in": s.test_ind, "score OoD": s.test_ood}
    plain, stepped = (
        [
            protocols.sweep(s.protocol, *network, state.singularity, x, (e,), title)[0]
            for title, x in sets.items()
        ]
        for e in (0.0, epsilon)
    )
    return Scored(
        *(np.asarray(combine(state.ensemble, jnp.asarray(d))) for d in stepped),
        labels=f"{len(s.val_ind)} in" if s.protocol.ensemble == "clean" else _labels(s),
        layers=LayerScores(state, epsilon, *stepped, *plain),
    )


def run_msp(s: Setting) -> Scored:
    apply = partial(map_batches, msp.score, s.logit_fn, s.variables, msp.fit())
    return Scored(apply(s.test_ind), apply(s.test_ood), "nothing")


def control_untrained(s: Setting) -> Scored:
    """The whole FSSD procedure on the network as it was before training."""
    return run_fssd(s._replace(variables=s.initial))


def control_pixel_statistics(s: Setting) -> Scored:
    """Logistic regression on two numbers an image: mean and deviation of its pixels."""
    view = lambda flat: np.stack([flat.mean(1), flat.std(1)], axis=1)  # noqa: E731
    return _without_network(s, logistic_regression(), view)


def control_raw_pixels(s: Setting) -> Scored:
    """A support vector machine on the pixels themselves."""
    return _without_network(s, SVC(), lambda flat: flat)


def _without_network(s: Setting, model, view: Callable) -> Scored:
    """Fit a classifier on a view of the flat validation images; score the test sets."""

    def seen(x):
        return view(as_float(x).reshape(len(x), -1).astype(np.float64))

    y = np.concatenate([np.ones(len(s.val_ind)), np.zeros(len(s.val_ood))])
    model.fit(np.concatenate([seen(s.val_ind), seen(s.val_ood)]), y)
    tested = (model.decision_function(seen(x)) for x in (s.test_ind, s.test_ood))
    return Scored(*tested, labels=_labels(s))


def _labels(s: Setting) -> str:
    return f"{len(s.val_ind)} in, {len(s.val_ood)} target OoD"


METHODS: dict[str, Callable[[Setting], Scored]] = {"fssd": run_fssd, "msp": run_msp}

# Rivals that know nothing of the trained network: what the labels alone are worth.
CONTROLS: dict[str, Callable[[Setting], Scored]] = {
    "control: untrained": control_untrained,
    "control: pixel stats": control_pixel_statistics,
    "control: raw pixels": control_raw_pixels,
}
