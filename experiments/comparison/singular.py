"""FSSD of a `Setting`: by labels, without them, and of each layer alone."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.comparison import protocols
from experiments.comparison.once import Once
from experiments.comparison.rivals import with_logits_of
from experiments.comparison.rows import (
    Ask,
    LayerScores,
    Rows,
    Scored,
    one_row,
    seconds_per_1000,
)
from experiments.comparison.setting import Setting
from experiments.harness.keys import Use, of_seed
from fssd_jax.checks import InputError
from fssd_jax.data import corruptions
from fssd_jax.data.embedded import photo_patches
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import fssd
from fssd_jax.ensemble import combine
from fssd_jax.fssd import Singularity
from fssd_jax.outputs import FeatureFn
from fssd_jax.questions import Question

SHUFFLED, TILES = 1000, 2  # images that F* is of, and the tiles of a side
Pair = tuple[np.ndarray, np.ndarray]  # of the in-distribution and of the OoD images


def run_fssd(name: str, s: Setting) -> Rows:
    """FSSD-Ensem as the protocol says."""
    network = (s.feature_fn, s.variables)
    assert s.val_ood is not None  # `needs`
    state = protocols.fit(s.protocol, *network, s.noise, s.val_ind, s.val_ood, s.seed)
    epsilon = chosen_epsilon(state)
    distances = partial(
        protocols.plain_and_stepped, s.protocol, *network, state.singularity, epsilon
    )
    ind, ood = distances(s.test_ind), distances(s.test_ood)
    row = fssd_row(s, state, (ind[0], ood[0]), (ind[1], ood[1]))
    seconds = seconds_per_1000(s, distances, s.protocol.batch_size)
    return {name: row._replace(seconds=seconds)}


def ask_fssd(name: str, s: Setting) -> list[Ask]:
    """FSSD-Ensem by protocol `clean`: a forward pass."""
    return [ask_combined(name, s, clean_state(s))]


def clean_state(s: Setting) -> fssd.State:
    network = s.feature_fn, s.variables
    return protocols.fit_clean(*network, singularity_of(s), s.val_ind, s.batch_size)


def default_state(s: Setting) -> fssd.State:
    """What `fssd.fit` gives by noise and in-distribution images."""
    return _fit(s, s.feature_fn, singularity_of(s))


def ask_without_labels(name: str, s: Setting) -> list[Ask]:
    """`clean`, the library's default beside it, and both against photographs, too.

    Nothing is easier than photographs, and on them `clean` may be worse than chance.
    """
    clean, default = clean_state(s), default_state(s)
    alpha = list(zip(clean.singularity.center, clean.ensemble.alpha, strict=True))
    turned = ", ".join(layer for layer, weight in alpha if weight < 0)
    names = zip(default.singularity.center, default.ensemble.alpha, strict=True)
    chosen = ", ".join(layer for layer, weight in names if weight)
    rows = {
        name: (clean, f"turned round: {turned}" if turned else ""),
        "fssd deep": (default, f"of {chosen}"),
    }
    asks = []
    for title, (state, note) in rows.items():
        ask = ask_combined(title, s, state, note)._replace(timed=title == name)
        asks += [ask, *against_photographs(s, ask)]
    return asks


def ask_tiles(s: Setting) -> list[Ask]:
    """The rule that the study of rules without labels chose (docs/labelfree.md)."""
    feature_fn, state = tiles_state(s)
    layers = zip(state.singularity.center, state.ensemble.alpha, strict=True)
    note = ", ".join(layer for layer, weight in layers if weight)
    facts = {
        "fitted_on": f"{len(s.val_ind)} in"
        + ("" if s.train is None else ", training set"),
        "note": f"of {note}; F* of {centre_of_tiles(s)}",
        "data": "F*",
    }
    question = Question(fssd.score, feature_fn, state)
    ask = Ask(question, one_row("fssd tiles", **facts))
    return [ask, *against_photographs(s, ask)]


def centre_of_tiles(s: Setting) -> str:
    source = "validation" if s.train is None else "training"
    return f"shuffled {TILES}×{TILES} tiles of {source} images"


def tiles_state(s: Setting) -> tuple[FeatureFn, fssd.State]:
    """F* of images whose 2×2 tiles are shuffled; the last hidden layer and the logits.

    The images are of the training set, or, where there is none, those of validation.
    """
    images = s.val_ind if s.train is None else s.train.x
    key = of_seed(s.seed, Use.TILES)
    feature_fn = with_logits_of(s)

    def fit() -> fssd.State:
        shuffled = corruptions.shuffled_tiles(images, SHUFFLED, TILES, key)
        return _fit(s, feature_fn, shuffled)

    inputs = s.feature_fn, s.logit_fn, s.variables, images, s.val_ind, s.seed
    return feature_fn, _of_tiles(inputs, fit)


_of_tiles = Once()  # a row's, and again what `score` saves of it


def _fit(s: Setting, feature_fn: FeatureFn, centre) -> fssd.State:
    with untold():
        of = feature_fn, s.variables, centre, s.val_ind
        return fssd.fit(*of, batch_size=s.batch_size)


@contextmanager
def untold() -> Iterator[None]:
    """Without the warning of a centre that may be none: rows of photographs tell."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "at layers .* noise, or")
        yield


def against_photographs(s: Setting, ask: Ask) -> list[Ask]:
    """The same score of patches of photographs, as if they were the OoD set.

    Nothing if the images are larger than photographs, or none.
    """
    if not s.pixels:
        return []
    try:
        photographs = photo_patches(s.test_ind.shape[1:])
    except InputError:
        return []
    score, apply_fn, state = ask.question[:3]
    of_photographs = map_batches(
        *(score, apply_fn, s.variables, state, photographs), batch_size=s.batch_size
    )

    def to_rows(ind: np.ndarray, _) -> Rows:
        note = f"{len(photographs)} patches as OoD"
        return {
            f"{name}, photographs": row._replace(note=note, layers=None)
            for name, row in ask.to_rows(ind, of_photographs).items()
        }

    return [Ask(ask.question, to_rows, timed=False)]


_of_noise = Once(2)  # of the trained network and of the untrained


def singularity_of(s: Setting) -> Singularity:
    """F* of the setting's noise, estimated once for what all ask of one network.

    As one object, so that what is computed from it is computed once, too.
    """
    inputs = s.feature_fn, s.variables, s.noise
    # Released noise may leave [0, 1].
    how = {"batch_size": s.batch_size, "unit_range": False}
    return _of_noise(inputs, lambda: fssd_jax.estimate_singularity(*inputs, **how))


def ask_combined(name: str, s: Setting, state: fssd.State, note: str = "") -> Ask:
    """A fitted detector without input step."""
    question = Question(fssd_jax.fssd.fssd, s.feature_fn, state.singularity)

    def to_rows(*d) -> Rows:
        row = fssd_row(s, state, plain=d, stepped=d)
        return {name: row._replace(note="; ".join(filter(None, (row.note, note))))}

    return Ask(question, to_rows)


def ask_noise(s: Setting) -> list[Ask]:
    """FSSD of all layers by nothing but noise: their mean, in units of its spread."""
    state = fssd.fit(s.feature_fn, s.variables, singularity_of(s))
    question = Question(fssd.score, s.feature_fn, state)
    return [Ask(question, one_row("fssd noise", data="F*"))]


def ask_layers(prefix: str, s: Setting) -> list[Ask]:
    """FSSD of each layer alone, Eq. (1) as it stands: no labels, no input step."""
    singularity = singularity_of(s)
    question = Question(fssd_jax.fssd.fssd, s.feature_fn, singularity)
    names = [f"{prefix}{layer}" for layer in singularity.center]
    return [Ask(question, partial(columns, names, data="F*"), timed=False)]


def columns(names: list[str], ind: np.ndarray, ood: np.ndarray, **facts) -> Rows:
    """A row for each column of the answers; `facts` are other fields of `Scored`."""
    return {name: Scored(ind[:, k], ood[:, k], **facts) for k, name in enumerate(names)}


def fssd_row(s: Setting, state: fssd.State, plain: Pair, stepped: Pair) -> Scored:
    """The row of a fitted detector, from the distances of the test images."""
    epsilon, centers = chosen_epsilon(state), state.singularity.center
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
        passes=passes(len(centers), epsilon),
        data="F*",
        layers=layers,
        **s.labels,
    )


def passes(gradients: int, epsilon: float) -> str:
    return f"{1 + gradients} + {gradients} backward" if epsilon else "1"


def chosen_epsilon(state) -> float:
    """The input step of a fitted state, without the noise of float32."""
    return 0.0 if state.epsilon is None else round(float(state.epsilon), 6)


def epsilon_note(state) -> str:
    """ε as chosen, and whether a larger one, which was not tried, may be better."""
    epsilon, tried = chosen_epsilon(state), np.asarray(state.epsilons)
    at_end = len(tried) > 1 and np.isclose(epsilon, tried.max())
    return f"ε = {epsilon:g}" + (", the largest tried" if at_end else "")
