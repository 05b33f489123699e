"""What people would use instead of parts that need no network, or no PyTorch.

scikit-learn's logistic regression, and neural-tangents' explicit kernel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from benchmarks import inputs, kernel
from benchmarks.ours import LAYERS
from fssd_jax.logistic import FOLDS, STRENGTHS


def prepare(task: str, _: str, count: int, batch: int = 64) -> Callable[[], Any]:
    """A function that does the task once and returns its numbers."""
    del batch
    return TASKS[task](count)


def _regression(count: int) -> Callable[[], np.ndarray]:
    d, y = inputs.table(count, LAYERS)
    how: Any = {"l1_ratios": (0.0,), "use_legacy_attributes": False}
    how |= {"Cs": STRENGTHS.tolist(), "cv": FOLDS, "scoring": "accuracy"}
    model = LogisticRegressionCV(tol=1e-8, max_iter=10_000, **how)

    def run():
        z = StandardScaler().fit_transform(d)
        return model.fit(z, y).coef_

    return run


def _kernel(count: int) -> Callable[[], np.ndarray]:
    of = kernel.network(), *kernel.drawn(count)
    return lambda: kernel.explicit(*of, size=count).reshape(-1, 1)


TASKS: dict[str, Callable[[int], Callable]] = {
    "regression": _regression,
    "kernel": _kernel,
}
