"""Methods that need networks of their own: ensembles, dropout, Outlier Exposure."""

from functools import partial

import jax

from experiments import networks
from experiments.scores import Rows, Scored, chosen_by_labels, scored, timed
from experiments.setting import Setting
from fssd_jax import metrics
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import deep_ensemble, mc_dropout, msp
from fssd_jax.features import StochasticLogitFn, make_stochastic_logit_fn
from fssd_jax.train import accuracy

MEMBERS = 5
PASSES = 32
CHOOSING_PASSES = 8  # to choose among dropout rates, on the validation images
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # Evaluation
CLEAN_RATE = 0.1  # where nothing may be chosen by OoD images


def run_deep_ensemble(s: Setting) -> Scored:
    """Members are the networks of this seed and the next ones."""
    seeds = range(s.seed, s.seed + MEMBERS)
    members = [networks.plain(s.benchmark, s.schedule, m).variables for m in seeds]
    epochs = [s.schedule.of_seed(m) for m in seeds]
    return scored(
        s,
        deep_ensemble.score,
        deep_ensemble.fit(),
        variables=deep_ensemble.stack(members),
        note=f"epochs {', '.join(map(str, epochs))}",
        training=f"{MEMBERS - 1} networks",
        passes=str(MEMBERS),
    )


def run_mc_dropout(s: Setting) -> Rows:
    """The rate, and whether mean or variance, are chosen on the validation images.

    The rates are tried on networks of seed 0.
    """
    key = jax.random.fold_in(jax.random.key(s.seed), 104)
    state = mc_dropout.fit(key, 2 if s.tiny else PASSES)

    def network(rate: float, seed: int):
        logit_fn = stochastic_lenet(s.benchmark, rate)
        trained = networks.with_dropout(s.benchmark, s.schedule, seed, rate)
        return logit_fn, trained.variables

    both = partial(map_batches, mc_dropout.scores)
    columns = ("mean", "variance")
    rates = RATES[:2] if s.tiny else RATES
    rate, better, few = CLEAN_RATE, 0, state._replace(keys=state.keys[:CHOOSING_PASSES])
    if not s.clean:
        quality = {}
        for tried in rates:
            of = partial(both, *network(tried, 0), few)
            ind, ood = of(s.val_ind), of(s.val_ood)
            for c in range(len(columns)):
                quality[tried, c] = metrics.auroc(ind[:, c], ood[:, c])
        rate, better = max(quality, key=quality.__getitem__)
    logit_fn, variables = network(rate, s.seed)
    ind, ood, seconds = timed(
        partial(both, logit_fn, variables, state), s.test_ind, s.test_ood
    )
    test = s.benchmark.test  # without dropout the network is the benchmark's own
    right = accuracy(s.logit_fn, variables, test.x, test.y)
    note = f"rate {rate:g}, {s.schedule.short_epochs} epochs, accuracy {right:.1%}"
    facts = {
        "training": "1 network" if s.clean else f"1 network, {len(rates)} to choose",
        "passes": str(len(state.keys)),
        "seconds": seconds,
        **chosen_by_labels(s),
    }
    rows = {
        f"mc dropout, {name}": Scored(ind[:, c], ood[:, c], note=note, **facts)
        for c, name in enumerate(columns)
    }
    chosen = rows[f"mc dropout, {columns[better]}"]
    note = f"{columns[better]}, {note}"
    return {"mc dropout": chosen._replace(note=note), **rows}


def stochastic_lenet(benchmark: Benchmark, rate: float) -> StochasticLogitFn:
    """LeNet with its dropout on: one object a rate, compiled once for all seeds."""
    key = (benchmark.num_classes, benchmark.mean, benchmark.std, rate)
    if key not in _STOCHASTIC:
        model = networks.dropout_lenet(benchmark, rate)
        _STOCHASTIC[key] = make_stochastic_logit_fn(model, train=True)
    return _STOCHASTIC[key]


_STOCHASTIC: dict[tuple, StochasticLogitFn] = {}


def run_outlier_exposure(s: Setting) -> Rows:
    """Fine-tuned for every seed, and from scratch for seed 0."""
    auxiliary = s.outliers
    assert auxiliary is not None  # loaded where this method is asked for
    if s.tiny:
        auxiliary = auxiliary.select(slice(64))
    rows = {}
    for kind in ("fine-tuned", "from scratch") if s.seed == 0 else ("fine-tuned",):
        finetune = kind == "fine-tuned"
        trained = networks.exposed(s.benchmark, s.schedule, s.seed, auxiliary, finetune)
        epochs = networks.FINETUNE_EPOCHS if finetune else s.schedule.short_epochs
        test = s.benchmark.test
        right = accuracy(s.logit_fn, trained.variables, test.x, test.y)
        rows[f"outlier exposure, {kind}"] = scored(
            s,
            msp.score,
            msp.fit(),
            variables=trained.variables,
            fitted_on=f"{len(auxiliary.x)} {auxiliary.name}",
            note=f"{epochs} epoch{'s' * (epochs > 1)}, accuracy {right:.1%}",
            training="fine-tuning" if finetune else "1 network",
        )
    return rows
