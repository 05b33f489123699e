"""Out-of-distribution detection by feature space singularity distance, in JAX."""

from fssd_jax import checks, ensemble, features, fssd, metrics
from fssd_jax.checks import InputError
from fssd_jax.conformal import threshold
from fssd_jax.data.pipeline import map_batches
from fssd_jax.features import layer_names, make_feature_fn, make_logit_fn
from fssd_jax.fssd import estimate_singularity, uniform_noise
from fssd_jax.metrics import evaluate
from fssd_jax.questions import Question, look
from fssd_jax.saving import Fitted, load, save

__version__ = "0.1.0"

__all__ = [
    "Fitted",
    "InputError",
    "Question",
    "checks",
    "ensemble",
    "estimate_singularity",
    "evaluate",
    "features",
    "fssd",
    "layer_names",
    "load",
    "look",
    "make_feature_fn",
    "make_logit_fn",
    "map_batches",
    "metrics",
    "save",
    "threshold",
    "uniform_noise",
]
