"""Out-of-distribution detection by feature space singularity distance, in JAX.

What has a name here is imported when it is first used, so that `import fssd_jax` and
`fssd --help` take no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from fssd_jax import (
        adapters,
        checks,
        conformal,
        data,
        detectors,
        ensemble,
        features,
        fssd,
        head,
        losses,
        metrics,
        models,
        noise,
        recipes,
        torch_weights,
        train,
    )
    from fssd_jax.checks import InputError
    from fssd_jax.comparison import Comparison, compare
    from fssd_jax.conformal import threshold
    from fssd_jax.data.pipeline import map_batches
    from fssd_jax.features import layer_names, make_feature_fn, make_logit_fn
    from fssd_jax.fssd import estimate_singularity, uniform_noise
    from fssd_jax.metrics import evaluate
    from fssd_jax.questions import Question, look
    from fssd_jax.saving import Fitted, load, save
else:
    from fssd_jax.lazy import attach

    __getattr__, __dir__ = attach(
        __name__,
        {
            "Comparison": "comparison",
            "Fitted": "saving",
            "InputError": "checks",
            "Question": "questions",
            "compare": "comparison",
            "estimate_singularity": "fssd",
            "evaluate": "metrics",
            "layer_names": "features",
            "load": "saving",
            "look": "questions",
            "make_feature_fn": "features",
            "make_logit_fn": "features",
            "map_batches": "data.pipeline",
            "save": "saving",
            "threshold": "conformal",
            "uniform_noise": "fssd",
        },
    )

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Fitted",
    "InputError",
    "Question",
    "adapters",
    "checks",
    "compare",
    "conformal",
    "data",
    "detectors",
    "ensemble",
    "estimate_singularity",
    "evaluate",
    "features",
    "fssd",
    "head",
    "layer_names",
    "load",
    "look",
    "losses",
    "make_feature_fn",
    "make_logit_fn",
    "map_batches",
    "metrics",
    "models",
    "noise",
    "recipes",
    "save",
    "threshold",
    "torch_weights",
    "train",
    "uniform_noise",
]
