"""Methods that need networks of their own: ensembles, dropout, Outlier Exposure."""

from functools import partial

from experiments.comparison import networks
from experiments.comparison.networks import Training
from experiments.comparison.rows import Rows, Scored, seconds_per_1000
from experiments.comparison.setting import Setting
from experiments.harness.keys import Use, of_seed
from fssd_jax import metrics
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import deep_ensemble, mc_dropout, msp
from fssd_jax.features import make_stochastic_logit_fn
from fssd_jax.outputs import StochasticLogitFn
from fssd_jax.train import accuracy

MEMBERS = 5
CHOOSING_PASSES = 8  # to choose among dropout rates, on the validation images
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # Evaluation
CLEAN_RATE = 0.1  # where nothing may be chosen by OoD images


def run_deep_ensemble(s: Setting) -> Rows:
    """Members are the networks of this seed and the next ones."""
    assert s.training is not None  # `needs`
    seeds = range(s.seed, s.seed + MEMBERS)
    members = [networks.plain(s.training, m).variables for m in seeds]
    epochs = [s.training.epochs_of(m) for m in seeds]
    score = partial(
        map_batches,
        *(deep_ensemble.score, s.logit_fn, deep_ensemble.stack(members)),
        deep_ensemble.fit(),
        batch_size=s.batch_size,
    )
    row = Scored(
        score(s.test_ind),
        score(s.test_ood),
        note=f"epochs {', '.join(map(str, epochs))}",
        training=f"{MEMBERS - 1} networks",
        passes=str(MEMBERS),
        seconds=seconds_per_1000(s, score),
    )
    return {"deep ensemble": row}


COLUMNS = ("mean", "variance")  # of `mc_dropout.scores`


def run_mc_dropout(s: Setting) -> Rows:
    """The rate, and whether mean or variance, are chosen on the validation images.

    The rates are tried on networks of seed 0.
    """
    training = s.training
    assert training is not None  # `needs`
    state = mc_dropout.fit(of_seed(s.seed, Use.MC_DROPOUT), s.passes)
    rates = RATES[:2] if s.tiny else RATES
    few = state._replace(keys=state.keys[:CHOOSING_PASSES])
    rate, better = (CLEAN_RATE, 0) if s.clean else best_rate(s, few, rates)
    trained = networks.with_dropout(training, s.seed, rate)
    logit_fn = stochastic(training, rate)
    both = partial(
        map_batches,
        *(mc_dropout.scores, logit_fn, trained.variables, state),
        batch_size=s.batch_size,
    )
    ind, ood = both(s.test_ind), both(s.test_ood)
    # Without dropout the network is an ordinary one.
    test, network = training.benchmark.test, (s.logit_fn, trained.variables)
    right = accuracy(*network, test.x, test.y)
    note = f"rate {rate:g}, {training.short_epochs} epochs, accuracy {right:.1%}"
    facts = {
        "training": "1 network" if s.clean else f"1 network, {len(rates)} to choose",
        "passes": str(len(state.keys)),
        "seconds": seconds_per_1000(s, both),
        **s.labels_that_choose,
    }
    rows = {
        f"mc dropout, {name}": Scored(ind[:, c], ood[:, c], note=note, **facts)
        for c, name in enumerate(COLUMNS)
    }
    chosen = rows[f"mc dropout, {COLUMNS[better]}"]
    note = f"{COLUMNS[better]}, {note}"
    return {"mc dropout": chosen._replace(note=note), **rows}


def best_rate(
    s: Setting, state: mc_dropout.State, rates: tuple[float, ...]
) -> tuple[float, int]:
    """The rate and column with the best AUROC on the validation images."""
    assert s.training is not None
    quality = {}
    for rate in rates:
        variables = networks.with_dropout(s.training, 0, rate).variables
        logit_fn = stochastic(s.training, rate)
        of = partial(
            map_batches,
            *(mc_dropout.scores, logit_fn, variables, state),
            batch_size=s.batch_size,
        )
        ind, ood = of(s.val_ind), of(s.val_ood)
        for c in range(len(COLUMNS)):
            quality[rate, c] = metrics.auroc(ind[:, c], ood[:, c])
    return max(quality, key=quality.__getitem__)


def stochastic(training: Training, rate: float) -> StochasticLogitFn:
    """The network with its dropout on: one object, compiled once for all seeds."""
    model = training.model(rate)
    key = repr(model)
    if key not in _STOCHASTIC:
        _STOCHASTIC[key] = make_stochastic_logit_fn(model, train=True)
    return _STOCHASTIC[key]


_STOCHASTIC: dict[str, StochasticLogitFn] = {}


def run_outlier_exposure(s: Setting) -> Rows:
    """Fine-tuned for every seed, and from scratch for seed 0."""
    auxiliary, training = s.outliers, s.training
    assert auxiliary is not None  # `needs`
    assert training is not None
    if s.tiny:
        auxiliary = auxiliary.select(slice(64))
    rows = {}
    for kind in ("fine-tuned", "from scratch") if s.seed == 0 else ("fine-tuned",):
        finetune = kind == "fine-tuned"
        trained = networks.exposed(training, s.seed, auxiliary, finetune)
        epochs = networks.FINETUNE_EPOCHS if finetune else training.short_epochs
        test, network = training.benchmark.test, (s.logit_fn, trained.variables)
        right = accuracy(*network, test.x, test.y)
        score = partial(
            map_batches, msp.score, *network, msp.fit(), batch_size=s.batch_size
        )
        rows[f"outlier exposure, {kind}"] = Scored(
            score(s.test_ind),
            score(s.test_ood),
            fitted_on=f"{len(auxiliary.x)} {auxiliary.name}",
            note=f"{epochs} epoch{'s' * (epochs > 1)}, accuracy {right:.1%}",
            training="fine-tuning" if finetune else "1 network",
            seconds=seconds_per_1000(s, score),
        )
    return rows
