"""Today's rivals, as published: what is asked of each image, and what is fitted.

Those that read the layer before the logits share one pass over the training set. Of
their numbers none is chosen here; of no OoD image one is used.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from experiments.comparison.once import Once
from experiments.comparison.rows import Ask, one_row
from experiments.comparison.setting import Setting
from experiments.harness.keys import Use, of_seed
from fssd_jax.data.benchmarks import draw
from fssd_jax.data.pipeline import scored_batches
from fssd_jax.detectors import (
    dice,
    fdbd,
    feature_norm,
    gen,
    gram,
    kl_matching,
    knn,
    nnguide,
    react,
    relative_mahalanobis,
    she,
    vim,
)
from fssd_jax.head import LOGITS, Head, hidden, with_logits
from fssd_jax.outputs import FeatureFn, features_of, pool
from fssd_jax.questions import Question

PUZZLES = 2000  # training images that FeatureNorm's block is chosen by
TRAINING = {"fitted_on": "training set"}


def last_hidden(layers: list[str]) -> str:
    """The last layer before the logits; the logits, if there is no other."""
    return ([layer for layer in layers if layer != LOGITS] or layers)[-1]


# ---- the training set, gone through once --------------------------------------------


class Kept(NamedTuple):
    layer: str  # the last hidden one
    # [n, …] of training images: that layer averaged over space, "logits" if there are
    # such, and what the last layer takes, if it is something else.
    arrays: dict[str, np.ndarray]
    taken: str  # the name of what the last layer takes


TAKEN = "taken by the last layer"
_of_network = Once()


def kept_of(s: Setting) -> Kept:
    """As one object, of the trained network."""
    assert s.train is not None  # `needs`
    inputs = s.averaged_fn, s.logit_fn, s.variables, s.train.x
    return _of_network(inputs, lambda: _kept(s))


def _kept(s: Setting) -> Kept:
    assert s.train is not None
    parts: dict[str, list[np.ndarray]] = {}
    layer = ""
    for by_name, mask, _ in scored_batches(
        *(_of_training, with_logits_of(s), s.variables, s.head, s.train.x),
        batch_size=s.batch_size,
        name="training images",
    ):
        layer = last_hidden([name for name in by_name if name != TAKEN])
        for name in by_name:
            parts.setdefault(name, []).append(np.asarray(by_name[name])[mask])
    arrays = {name: np.concatenate(of) for name, of in parts.items()}
    return Kept(layer, arrays, TAKEN if TAKEN in arrays else layer)


def _of_training(apply_fn, variables, head: Head | None, x) -> OrderedDict[str, Array]:
    features = features_of(apply_fn, variables, x)
    layer = last_hidden(list(features))
    names = dict.fromkeys((layer, LOGITS))
    some = OrderedDict((name, features[name]) for name in names if name in features)
    found = pool(some, "mean")
    if head is not None:
        h = hidden(head, features)
        if [*head.kernel] != [layer] or h.shape != found[layer].shape:
            found[TAKEN] = h
    return found


@cache
def _of_kept(name: str, taken: str) -> FeatureFn:
    """What was kept under `taken`, as the layer `name`, and the logits."""

    def feature_fn(variables, x) -> OrderedDict[str, Array]:
        found = OrderedDict([(name, x[taken])])
        if LOGITS in x:
            found[LOGITS] = x[LOGITS]
        return found

    feature_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return feature_fn


# One function for one network, because compilations are kept by its identity.
_with_logits = cache(with_logits)


def with_logits_of(s: Setting) -> FeatureFn:
    """Of all layers, channels last, with the logits if there are such."""
    if s.logit_fn is None:
        return s.averaged_fn
    return _with_logits(s.averaged_fn, s.logit_fn)


@cache
def _pooled(feature_fn: FeatureFn, layer: str) -> FeatureFn:
    """That layer as Sun et al. (2022) take it of a convolutional network."""

    def pooled(variables, x) -> OrderedDict[str, Float[Array, "batch dim"]]:
        return pool(OrderedDict([(layer, feature_fn(variables, x)[layer])]), "mean")

    of_features = getattr(feature_fn, "of_features", False)
    pooled.of_features = of_features  # pyright: ignore[reportFunctionMemberAccess]
    return pooled


# ---- the last layer's input ---------------------------------------------------------


def ask_shaped(name: str, detector: ModuleType, s: Setting) -> list[Ask]:
    """Of which nothing is fitted: ASH and SCALE."""
    state = detector.fit(s.head)
    (kernel,) = state.head.kernel.values()
    note = f"{len(state.ranks)} of {len(kernel)}"
    question = Question(detector.score, s.averaged_fn, state)
    return [Ask(question, one_row(name, note=note))]


def ask_head(
    name: str,
    detector: ModuleType,
    told: Callable[[Any], dict[str, str]],
    s: Setting,
) -> list[Ask]:
    """ReAct, DICE, ViM, fDBD; `told` are fields of `Scored` of a fitted state."""
    kept = kept_of(s)
    assert s.head is not None  # `needs`
    (layer,) = s.head.kernel
    fn = _of_kept(layer, kept.taken)
    state = detector.fit(fn, {}, s.head, kept.arrays, batch_size=s.batch_size)
    question = Question(detector.score, s.averaged_fn, state)
    return [Ask(question, one_row(name, **TRAINING, **told(state)))]


def of_react(state: react.State) -> dict[str, str]:
    return {"note": f"c = {float(state.clip):.3g}", "data": "1 number"}


def of_dice(state: dice.State) -> dict[str, str]:
    (kernel,) = state.head.kernel.values()
    kept = int((np.asarray(kernel) != 0).sum())
    return {"note": f"{kept:,} of {kernel.size:,} weights", "data": "a last layer"}


def of_vim(state: vim.State) -> dict[str, str]:
    size, rest = state.residual.shape
    return {"note": f"D = {size - rest} of {size}", "data": "directions"}


def of_fdbd(state: fdbd.State) -> dict[str, str]:
    return {"data": "mean feature"}


# ---- the last hidden layer ----------------------------------------------------------


def ask_knn(s: Setting) -> list[Ask]:
    """On the last layer before the logits, averaged over space."""
    kept = kept_of(s)
    state = knn.fit(
        *(_of_kept(kept.layer, kept.layer), {}, kept.arrays, kept.layer),
        k=min(50, _count(kept)),
        batch_size=s.batch_size,
    )
    facts = {
        "note": f"{kept.layer}, k = {len(state.ranks)}",
        "data": f"{_count(kept):,} features",
    }
    question = Question(knn.score, _pooled(s.averaged_fn, kept.layer), state)
    return [Ask(question, one_row("knn", **TRAINING, **facts))]


def ask_nnguide(s: Setting) -> list[Ask]:
    kept = kept_of(s)
    state = nnguide.fit(
        *(_of_kept(kept.layer, kept.layer), {}, kept.arrays, kept.layer),
        k=min(10, _count(kept)),
        batch_size=s.batch_size,
    )
    facts = {
        "note": f"{kept.layer}, k = {len(state.ranks)}",
        "data": f"{_count(kept):,} features",
    }
    question = Question(nnguide.score, with_logits_of(s), state)
    return [Ask(question, one_row("nnguide", **TRAINING, **facts))]


def _count(kept: Kept) -> int:
    return len(kept.arrays[kept.layer])


def ask_she(s: Setting) -> list[Ask]:
    state = _fit_labelled(she, s)
    question = Question(she.score, with_logits_of(s), state)
    note = kept_of(s).layer
    return [Ask(question, one_row("she", **TRAINING, note=note, data="class means"))]


def ask_relative_mahalanobis(s: Setting) -> list[Ask]:
    state = _fit_labelled(relative_mahalanobis, s)
    question = Question(relative_mahalanobis.score, s.averaged_fn, state)
    facts = {"note": kept_of(s).layer, "data": "class means, covariances"}
    return [Ask(question, one_row("relative mahalanobis", **TRAINING, **facts))]


def _fit_labelled(detector: ModuleType, s: Setting):
    kept = kept_of(s)
    assert s.train is not None  # `needs`
    return detector.fit(
        *(_of_kept(kept.layer, kept.layer), {}, kept.arrays, s.train.y),
        *(s.num_classes, kept.layer),
        batch_size=s.batch_size,
    )


# ---- logits, or all layers ----------------------------------------------------------


def ask_gen(s: Setting) -> list[Ask]:
    state = gen.fit()
    note = f"γ = {float(state.gamma):g}"
    return [Ask(Question(gen.score, s.logit_fn, state), one_row("gen", note=note))]


def ask_kl_matching(s: Setting) -> list[Ask]:
    of = s.logit_fn, s.variables, s.val_ind
    state = kl_matching.fit(*of, batch_size=s.batch_size)
    facts = {
        "fitted_on": f"{len(s.val_ind)} in",
        "note": f"{len(state.logs)} of {s.num_classes} classes",
        "data": "class probabilities",
    }
    question = Question(kl_matching.score, s.logit_fn, state)
    return [Ask(question, one_row("kl matching", **facts))]


def ask_gram(s: Setting) -> list[Ask]:
    """A pass of its own: all layers."""
    assert s.train is not None  # `needs`
    of = with_logits_of(s), s.variables, s.train.x, s.val_ind
    state = gram.fit(*of, batch_size=s.batch_size)
    facts = {
        "fitted_on": f"{len(s.val_ind)} in, training set",
        "data": "bounds of sums",
    }
    question = Question(gram.score, with_logits_of(s), state)
    return [Ask(question, one_row("gram", **facts))]


def ask_feature_norm(s: Setting) -> list[Ask]:
    """A pass over some training images, and their puzzles."""
    assert s.train is not None  # `needs`
    some = draw(s.train.x, PUZZLES, of_seed(s.seed, Use.JIGSAWS))
    state = feature_norm.fit(
        *(s.averaged_fn, s.variables, some), seed=s.seed, batch_size=s.batch_size
    )
    facts = {
        "fitted_on": f"{len(some):,} of training set",
        "note": next(iter(state.block)),
    }
    question = Question(feature_norm.score, s.averaged_fn, state)
    return [Ask(question, one_row("feature norm", **facts))]
