"""The compared methods: from a `Setting` to what is asked of its images, or to rows.

A new method is a function and a row in `METHODS`, at the end of this file.
"""

from collections import OrderedDict, deque
from functools import cache, partial
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import fssd_jax
from experiments.comparison import protocols, retrained
from experiments.comparison.rows import (
    Ask,
    LayerScores,
    Method,
    Rows,
    Scored,
    one_row,
    seconds_per_1000,
)
from experiments.comparison.setting import Setting
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.detectors import (
    displacement,
    energy,
    fssd,
    knn,
    mahalanobis,
    max_logit,
    msp,
    odin,
)
from fssd_jax.ensemble import combine
from fssd_jax.features import FeatureFn, pool
from fssd_jax.fssd import Singularity
from fssd_jax.questions import Question

LOGITS = "logits"
Pair = tuple[np.ndarray, np.ndarray]  # of the in-distribution and of the OoD images


# ---- FSSD ---------------------------------------------------------------------------


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
    """FSSD-Ensem where no OoD image may be seen: a forward pass."""
    state = fssd.fit(
        *(s.feature_fn, s.variables, singularity_of(s), s.val_ind),
        batch_size=s.batch_size,
    )
    return [ask_combined(name, s, state)]


_ESTIMATED: deque = deque(maxlen=2)  # of the trained network and of the untrained


def singularity_of(s: Setting) -> Singularity:
    """F* of the setting's noise, estimated once for what all ask of one network.

    As one object, so that what is computed from it is computed once, too.
    """
    inputs = s.feature_fn, s.variables, s.noise
    for known, singularity in _ESTIMATED:
        if all(a is b for a, b in zip(known, inputs, strict=True)):
            return singularity
    singularity = fssd_jax.estimate_singularity(
        *inputs,
        batch_size=s.batch_size,
        unit_range=False,  # released noise may leave [0, 1]
    )
    _ESTIMATED.append((inputs, singularity))
    return singularity


def ask_combined(name: str, s: Setting, state: fssd.State) -> Ask:
    """A fitted detector without input step."""
    question = Question(fssd_jax.fssd.fssd, s.feature_fn, state.singularity)
    return Ask(question, lambda *d: {name: fssd_row(s, state, plain=d, stepped=d)})


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
        passes=_passes(len(centers), epsilon),
        data="F*",
        layers=layers,
        **s.labels,
    )


# ---- the rivals ---------------------------------------------------------------------


def ask_logits(name: str, detector: ModuleType, s: Setting) -> list[Ask]:
    """A detector of which nothing is fitted."""
    question = Question(detector.score, s.logit_fn, detector.fit())
    return [Ask(question, one_row(name))]


def ask_odin(s: Setting) -> list[Ask]:
    """Where nothing may be chosen by OoD images: the largest temperature, no step."""
    state = odin.fit()
    note = f"T = {float(state.temperature):g}, {epsilon_note(state)}"
    question = Question(odin.score, s.logit_fn, state)
    return [Ask(question, one_row("odin", note=note))]


def run_odin(s: Setting) -> Rows:
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = odin.fit(s.logit_fn, s.variables, s.val_ind, s.val_ood, epsilons=epsilons)
    score = partial(map_batches, odin.score, s.logit_fn, s.variables, state)
    facts = {
        "note": f"T = {float(state.temperature):g}, {epsilon_note(state)}",
        "passes": _passes(1, chosen_epsilon(state)),
        "seconds": seconds_per_1000(s, score),
        **s.labels_that_choose,
    }
    return {"odin": Scored(score(s.test_ind), score(s.test_ood), **facts)}


def ask_mahalanobis(name: str, s: Setting) -> list[Ask]:
    """Layers standardised on in-distribution images; no step."""
    state = mahalanobis.fit(
        *(s.feature_fn, s.variables, _gaussians(s), s.val_ind), batch_size=s.batch_size
    )
    question = Question(mahalanobis.score, s.feature_fn, state)
    facts = _of_mahalanobis(s.under_clean(), state)
    return [Ask(question, one_row(name, **facts))]


def run_mahalanobis(s: Setting) -> Rows:
    gaussians = _gaussians(s)
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = mahalanobis.fit(
        *(s.feature_fn, s.variables, gaussians, s.val_ind, s.val_ood),
        epsilons=epsilons,
        seed=s.seed,
    )
    score = partial(map_batches, mahalanobis.score, s.feature_fn, s.variables, state)
    facts = _of_mahalanobis(s, state)
    seconds = seconds_per_1000(s, score)
    row = Scored(score(s.test_ind), score(s.test_ood), seconds=seconds, **facts)
    return {"mahalanobis": row}


def _gaussians(s: Setting) -> mahalanobis.Gaussians:
    assert s.train is not None  # `needs`
    return mahalanobis.estimate_gaussians(
        *(s.feature_fn, s.variables, s.train.x, s.train.y, s.num_classes),
        batch_size=s.batch_size,
    )


def _of_mahalanobis(s: Setting, state: mahalanobis.State) -> dict:
    return {
        "note": epsilon_note(state),
        "passes": _passes(len(state.gaussians.factor), chosen_epsilon(state)),
        "data": "class means, covariances",
        **s.labels | {"fitted_on": f"{s.labels['fitted_on']}, training set"},
    }


def ask_knn(s: Setting) -> list[Ask]:
    """On the last layer before the logits, averaged over space."""
    assert s.train is not None  # `needs`
    train = s.train.x
    layer = last_hidden(list(s.feature_fn(s.variables, as_float(train[:1]))))
    pooled = _pooled(s.feature_fn, layer)
    state = knn.fit(
        *(pooled, s.variables, train, layer),
        k=min(50, len(train)),
        batch_size=s.batch_size,
    )
    facts = {
        "fitted_on": "training set",
        "note": f"{layer}, k = {len(state.ranks)}",
        "data": f"{len(train):,} features",
    }
    return [Ask(Question(knn.score, pooled, state), one_row("knn", **facts))]


@cache
def _pooled(feature_fn: FeatureFn, layer: str) -> FeatureFn:
    """That layer as Sun et al. (2022) take it of a convolutional network.

    One function for one network, because compilations are kept by its identity.
    """

    def pooled(variables, x) -> OrderedDict[str, Float[Array, "batch dim"]]:
        return pool(OrderedDict([(layer, feature_fn(variables, x)[layer])]), "mean")

    return pooled


def last_hidden(layers: list[str]) -> str:
    """The last layer before the logits; the logits, if there is no other."""
    return ([layer for layer in layers if layer != LOGITS] or layers)[-1]


def ask_displacement(s: Setting) -> list[Ask]:
    """Layers standardised on in-distribution images and summed."""
    asks = []
    for kind in ("displacement", "relative displacement"):
        state = displacement.fit(
            *(s.feature_fn, s.variables, s.initial, s.val_ind),
            relative=kind.startswith("relative"),
            batch_size=s.batch_size,
        )
        facts = {
            "fitted_on": f"{len(s.val_ind)} in",
            "passes": "2",
            "data": "initial weights",
        }
        question = Question(displacement.score, s.feature_fn, state)
        asks.append(Ask(question, one_row(kind, **facts)))
    return asks


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
    "layers": Method(partial(ask_layers, "fssd ")),
    "fssd_noise": Method(ask_noise),
    "fssd_clean": Method(lambda s: ask_fssd("fssd clean", s.under_clean())),
    "displacement": Method(ask_displacement, needs=("training",)),
    "msp": Method(partial(ask_logits, "msp", msp)),
    "max_logit": Method(partial(ask_logits, "max logit", max_logit)),
    "energy": Method(partial(ask_logits, "energy", energy)),
    "knn": Method(ask_knn, needs=("train",)),
    "mahalanobis_clean": Method(
        partial(ask_mahalanobis, "mahalanobis clean"), needs=("train",)
    ),
    "deep_ensemble": Method(run=retrained.run_deep_ensemble, needs=("training",)),
    "mc_dropout": Method(run=retrained.run_mc_dropout, needs=("training", "val_ood")),
    "outlier_exposure": Method(
        run=retrained.run_outlier_exposure, needs=("training", "outliers")
    ),
    "odin": Method(ask_odin, run_odin),
    "mahalanobis": Method(
        partial(ask_mahalanobis, "mahalanobis"), run_mahalanobis, needs=("train",)
    ),
    "fssd": Method(partial(ask_fssd, "fssd"), partial(run_fssd, "fssd")),
}
