"""One file a method: `fit(...) -> state` and a pure, jittable
`score(feature_fn or logit_fn, variables, state, x) -> [batch]`; higher means more
in-distribution. A new method is a new file with these two functions, and its name here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from fssd_jax.detectors import (
        ash,
        deep_ensemble,
        dice,
        displacement,
        energy,
        fdbd,
        feature_norm,
        fssd,
        fssd_mahalanobis,
        gen,
        gram,
        kl_matching,
        knn,
        mahalanobis,
        max_logit,
        mc_dropout,
        msp,
        nnguide,
        odin,
        react,
        relative_mahalanobis,
        scale,
        she,
        vim,
    )
else:
    from fssd_jax.lazy import attach

    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "ash",
    "deep_ensemble",
    "dice",
    "displacement",
    "energy",
    "fdbd",
    "feature_norm",
    "fssd",
    "fssd_mahalanobis",
    "gen",
    "gram",
    "kl_matching",
    "knn",
    "mahalanobis",
    "max_logit",
    "mc_dropout",
    "msp",
    "nnguide",
    "odin",
    "react",
    "relative_mahalanobis",
    "scale",
    "she",
    "vim",
]
