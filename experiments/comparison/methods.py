"""The compared methods: from a `Setting` to what is asked of its images, or to rows.

A new method is a function and a row in `METHODS`, at the end of this file.
"""

from functools import partial
from types import ModuleType

from experiments.comparison import protocols, retrained, rivals
from experiments.comparison.once import Once
from experiments.comparison.rows import (
    Ask,
    Method,
    Rows,
    Scored,
    one_row,
    seconds_per_1000,
)
from experiments.comparison.setting import Setting
from experiments.comparison.singular import (
    against_photographs,
    ask_layers,
    ask_noise,
    ask_tiles,
    ask_without_labels,
    chosen_epsilon,
    epsilon_note,
    passes,
    run_fssd,
    untold,
)
from experiments.harness.keys import Use, of_seed
from fssd_jax.data import corruptions
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import (
    ash,
    dice,
    displacement,
    energy,
    fdbd,
    fssd_mahalanobis,
    mahalanobis,
    max_logit,
    msp,
    odin,
    react,
    scale,
    vim,
)
from fssd_jax.questions import Question

MIXED, MIXES = 16, 1000  # training images of a mean, and how many means F* is of

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
    epsilons = _epsilons(s)
    state = odin.fit(s.logit_fn, s.variables, s.val_ind, s.val_ood, epsilons=epsilons)
    score = partial(map_batches, odin.score, s.logit_fn, s.variables, state)
    facts = {
        "note": f"T = {float(state.temperature):g}, {epsilon_note(state)}",
        "passes": passes(1, chosen_epsilon(state)),
        "seconds": seconds_per_1000(s, score),
        **s.labels_that_choose,
    }
    return {"odin": Scored(score(s.test_ind), score(s.test_ood), **facts)}


def _epsilons(s: Setting) -> tuple[float, ...]:
    """Those of the paper; of token ids, which have no gradient, 0 alone."""
    own = s.tiny or s.symbols
    return s.protocol.epsilons if own else protocols.PROTOCOLS["paper"].epsilons


def ask_mahalanobis(name: str, s: Setting) -> list[Ask]:
    """Layers standardised on in-distribution images; no step."""
    state = mahalanobis.fit(
        *(s.averaged_fn, s.variables, _gaussians(s), s.val_ind), batch_size=s.batch_size
    )
    question = Question(mahalanobis.score, s.averaged_fn, state)
    facts = _of_mahalanobis(s.under_clean(), state)
    return [Ask(question, one_row(name, **facts))]


def run_mahalanobis(s: Setting) -> Rows:
    gaussians = _gaussians(s)
    epsilons = _epsilons(s)
    state = mahalanobis.fit(
        *(s.averaged_fn, s.variables, gaussians, s.val_ind, s.val_ood),
        epsilons=epsilons,
        seed=s.seed,
    )
    score = partial(map_batches, mahalanobis.score, s.averaged_fn, s.variables, state)
    facts = _of_mahalanobis(s, state)
    seconds = seconds_per_1000(s, score)
    row = Scored(score(s.test_ind), score(s.test_ood), seconds=seconds, **facts)
    return {"mahalanobis": row}


_of_training = Once()


def _gaussians(s: Setting) -> mahalanobis.Gaussians:
    assert s.train is not None  # `needs`
    inputs = s.averaged_fn, s.variables, s.train.x, s.train.y
    estimate = partial(mahalanobis.estimate_gaussians, *inputs, s.num_classes)
    return _of_training(inputs, partial(estimate, batch_size=s.batch_size))


def _of_mahalanobis(s: Setting, state: mahalanobis.State) -> dict:
    return {
        "note": epsilon_note(state),
        "passes": passes(len(state.gaussians.whitening), chosen_epsilon(state)),
        "data": "class means, covariances",
        **s.labels | {"fitted_on": f"{s.labels['fitted_on']}, training set"},
    }


def ask_fssd_mahalanobis(s: Setting) -> list[Ask]:
    """FSSD of the last layers about means of training images, plus Mahalanobis."""
    assert s.train is not None  # `needs`
    key = of_seed(s.seed, Use.MIXED)
    mixes = corruptions.mixed(s.train.x, MIXES, MIXED, key)
    feature_fn = rivals.with_logits_of(s)
    with untold():
        state = fssd_mahalanobis.fit(
            *(feature_fn, s.variables, mixes, _gaussians(s), s.val_ind),
            batch_size=s.batch_size,
        )
    names = zip(state.singularity.center, state.ensemble.alpha, strict=False)
    facts = {
        "fitted_on": f"{len(s.val_ind)} in, training set",
        "note": "of "
        + ", ".join(layer for layer, weight in names if weight)
        + f"; F* of means of {MIXED} training images",
        "data": "F*, class means, covariances",
    }
    question = Question(fssd_mahalanobis.score, feature_fn, state)
    ask = Ask(question, one_row("fssd + mahalanobis", **facts))
    return [ask, *against_photographs(s, ask)]


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


# In the order of the table: first what needs no label of any OoD image.
METHODS: dict[str, Method] = {
    "layers": Method(partial(ask_layers, "fssd ")),
    "fssd_noise": Method(ask_noise),
    "fssd_clean": Method(lambda s: ask_without_labels("fssd clean", s.under_clean())),
    "fssd_tiles": Method(ask_tiles, needs=("pixels",)),
    "displacement": Method(ask_displacement, needs=("training",)),
    "msp": Method(partial(ask_logits, "msp", msp), needs=("logit_fn",)),
    "max_logit": Method(
        partial(ask_logits, "max logit", max_logit), needs=("logit_fn",)
    ),
    "energy": Method(partial(ask_logits, "energy", energy), needs=("logit_fn",)),
    "gen": Method(rivals.ask_gen, needs=("logit_fn",)),
    "kl_matching": Method(rivals.ask_kl_matching, needs=("logit_fn",)),
    "ash": Method(partial(rivals.ask_shaped, "ash", ash), needs=("head",)),
    "scale": Method(partial(rivals.ask_shaped, "scale", scale), needs=("head",)),
    "react": Method(
        partial(rivals.ask_head, "react", react, rivals.of_react),
        needs=("train", "head"),
    ),
    "dice": Method(
        partial(rivals.ask_head, "dice", dice, rivals.of_dice), needs=("train", "head")
    ),
    "vim": Method(
        partial(rivals.ask_head, "vim", vim, rivals.of_vim), needs=("train", "head")
    ),
    "fdbd": Method(
        partial(rivals.ask_head, "fdbd", fdbd, rivals.of_fdbd), needs=("train", "head")
    ),
    "knn": Method(rivals.ask_knn, needs=("train",)),
    "nnguide": Method(rivals.ask_nnguide, needs=("train", "logit_fn")),
    "she": Method(rivals.ask_she, needs=("train", "logit_fn")),
    "gram": Method(rivals.ask_gram, needs=("train", "logit_fn")),
    "feature_norm": Method(rivals.ask_feature_norm, needs=("train", "pixels")),
    "relative_mahalanobis": Method(rivals.ask_relative_mahalanobis, needs=("train",)),
    "mahalanobis_clean": Method(
        partial(ask_mahalanobis, "mahalanobis clean"), needs=("train",)
    ),
    "fssd_mahalanobis": Method(ask_fssd_mahalanobis, needs=("train", "pixels")),
    "deep_ensemble": Method(run=retrained.run_deep_ensemble, needs=("training",)),
    "mc_dropout": Method(run=retrained.run_mc_dropout, needs=("training", "val_ood")),
    "outlier_exposure": Method(
        run=retrained.run_outlier_exposure, needs=("training", "outliers")
    ),
    "odin": Method(ask_odin, run_odin, needs=("logit_fn",)),
    "mahalanobis": Method(
        partial(ask_mahalanobis, "mahalanobis"), run_mahalanobis, needs=("train",)
    ),
    "fssd": Method(partial(ask_without_labels, "fssd"), partial(run_fssd, "fssd")),
}
