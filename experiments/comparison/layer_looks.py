"""What Figures 1 and 6 look at: FSSD of each layer, features of one, images by FSSD."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

import fssd_jax
from analysis import pca, pixels
from experiments.comparison.rivals import last_hidden
from experiments.comparison.setting import Setting
from experiments.comparison.singular import singularity_of
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.outputs import pool
from fssd_jax.questions import Question, look

IND, OOD, NOISE = "in-distribution", "OoD", "noise"


def sets_of(s: Setting) -> dict[str, np.ndarray]:
    return {IND: s.test_ind, OOD: s.test_ood, NOISE: np.asarray(s.noise)}


class Distances(NamedTuple):
    layers: list[str]
    trained: dict[str, np.ndarray]  # set → FSSD [n, layers], Eq. (1) without a step
    untrained: dict[str, np.ndarray]  # of the network before training: a control


def distances(s: Setting) -> Distances:
    """FSSD of every image in every layer, after training and before it."""
    found = [_distances(of) for of in (s, s.untrained())]
    return Distances(list(singularity_of(s).center), *found)


def _distances(s: Setting) -> dict[str, np.ndarray]:
    asked = {"": Question(fssd_jax.fssd.fssd, s.feature_fn, singularity_of(s))}
    return {name: _look(s, asked, x)[""] for name, x in sets_of(s).items()}


def _look(s: Setting, asked: dict[str, Question], x) -> dict[str, np.ndarray]:
    return look(asked, s.variables, x, batch_size=s.batch_size, unit_range=False)


def layer_of(s: Setting, name: str | None) -> str:
    """The layer of that name; None: the last one before the logits.

    Raises:
      InputError: the network has no such layer.
    """
    layers = list(singularity_of(s).center)
    if name is not None and name not in layers:
        raise InputError(f"--layer {name}: choose from {', '.join(layers)}")
    return name or last_hidden(layers)


class Cloud(NamedTuple):
    points: dict[str, np.ndarray]  # set → [n, 2] in principal components
    star: np.ndarray  # [2], F*
    center: np.ndarray  # [dim], the same
    share: np.ndarray  # [2] of the variance
    features: dict[str, np.ndarray]  # set → [n, dim]


def cloud(s: Setting, layer: str) -> Cloud:
    """Features of one layer, in the principal components of both test sets together."""
    center = {layer: singularity_of(s).center[layer]}
    asked = {"": Question(_feature, s.feature_fn, center)}
    sets = {name: x for name, x in sets_of(s).items() if name != NOISE}
    features = {name: _look(s, asked, x)[""] for name, x in sets.items()}
    basis = pca.fit(np.concatenate([*features.values()]))
    star = np.asarray(center[layer]).reshape(-1)
    return Cloud(
        {name: pca.project(basis, f) for name, f in features.items()},
        pca.project(basis, star[None])[0],
        star,
        basis.share,
        features,
    )


def _feature(feature_fn, variables, center, x) -> Float[Array, "batch dim"]:
    (layer,) = center
    features = feature_fn(variables, x)
    return pool(OrderedDict([(layer, features[layer])]), "flatten")[layer]


def places(fssd: dict[str, np.ndarray], count: int) -> np.ndarray:
    """`count` values of FSSD, evenly spaced, that span both test sets."""
    together = np.concatenate([fssd[IND], fssd[OOD]])
    edges = np.linspace(together.min(), together.max(), count + 1)
    return (edges[:-1] + edges[1:]) / 2


def examples(fssd: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each value the image whose FSSD is nearest, within half the spacing; or −1.

    Args:
      fssd: [n] of one set.
      at: [k], evenly spaced.
    """
    gaps = np.abs(np.asarray(fssd)[:, None] - at[None])
    nearest = gaps.argmin(axis=0)
    within = gaps.min(axis=0) <= (at[1] - at[0]) / 2 + 1e-6 * np.abs(at).max()
    return np.where(within, nearest, -1)


def rivals(s: Setting) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scores of both test sets by what sees no network."""
    of = {
        "control: nearest in pixels": lambda x: pixels.nearest(s.val_ind, x),
        "control: brightness": pixels.brightness,
    }
    return {name: (score(s.test_ind), score(s.test_ood)) for name, score in of.items()}


def auroc(fssd: dict[str, np.ndarray], k: int) -> metrics.Metrics:
    return metrics.evaluate(fssd[IND][:, k], fssd[OOD][:, k])
