"""Rivals that know nothing of the trained network."""

from collections.abc import Callable

import numpy as np
from sklearn.svm import SVC

from experiments.methods import run_fssd, run_layers
from experiments.scores import Method, Rows, Scored
from experiments.setting import Setting
from fssd_jax.data.pipeline import as_float
from fssd_jax.ensemble import logistic_regression


def control_untrained(s: Setting) -> Scored:
    """The whole FSSD procedure on the network as it was before training."""
    return run_fssd(s._replace(variables=s.initial))


def control_untrained_layers(s: Setting) -> Rows:
    """Each layer alone of the network as it was before training."""
    return {
        f"control: untrained, {name.removeprefix('fssd ')}": row
        for name, row in run_layers(s._replace(variables=s.initial)).items()
    }


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
    fitted_on = f"{len(s.val_ind)} in, {len(s.val_ood)} target OoD"
    return Scored(*tested, fitted_on=fitted_on, target_ood=True, passes="0")


CONTROLS: dict[str, Method] = {
    "control: untrained": control_untrained,
    "control: untrained, clean": lambda s: control_untrained(s.under_clean()),
    "control: untrained, layers": control_untrained_layers,
    "control: pixel stats": control_pixel_statistics,
    "control: raw pixels": control_raw_pixels,
}
