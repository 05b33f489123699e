"""The compared methods and their controls: from a `Setting` to scores.

Each takes a trained network, noise, validation and test images, and returns one row or
more; a new method is a function and an entry in a table at the end of its file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks, protocols
from experiments.scores import LayerScores, Rows, Scored, timed
from experiments.setting import Setting
from fssd_jax import metrics
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.detectors import (
    deep_ensemble,
    displacement,
    energy,
    knn,
    mahalanobis,
    max_logit,
    mc_dropout,
    msp,
    odin,
)
from fssd_jax.ensemble import combine
from fssd_jax.features import StochasticLogitFn, make_stochastic_logit_fn
from fssd_jax.train import accuracy

MEMBERS = 5
PASSES = 32
CHOOSING_PASSES = 8  # to choose among dropout rates, on the validation images
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # Evaluation
CLEAN_RATE = 0.1  # where nothing may be chosen by OoD images


def run_fssd(s: Setting) -> Scored:
    """FSSD-Ensem as the protocol says."""
    network = (s.feature_fn, s.variables)
    state = protocols.fit(s.protocol, *network, s.noise, s.val_ind, s.val_ood, s.seed)
    epsilon = chosen_epsilon(state)

    def distances(e, x):
        return protocols.sweep(s.protocol, *network, state.singularity, x, (e,))[0]

    *stepped, seconds = timed(partial(distances, epsilon), s.test_ind, s.test_ood)
    plain = [distances(0.0, x) for x in _tests(s)] if epsilon else stepped
    centers = state.singularity.center
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
        seconds=seconds,
        layers=layers,
        **s.labels,
    )


def run_layers(s: Setting) -> Rows:
    """FSSD of each layer alone, Eq. (1) as it stands: no labels, no input step."""
    found = run_fssd(s.under_clean()).layers
    assert found is not None
    return {
        f"fssd {name}": Scored(found.ind[:, k], found.ood[:, k], data="F*")
        for k, name in enumerate(found.names)
    }


def run_odin(s: Setting) -> Scored:
    ood = None if s.clean else s.val_ood
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = odin.fit(s.logit_fn, s.variables, s.val_ind, ood, epsilons=epsilons)
    return _scored(
        s,
        odin.score,
        state,
        note=f"T = {float(state.temperature):g}, {epsilon_note(state)}",
        passes=_passes(1, chosen_epsilon(state)),
        **_chosen_by_labels(s),
    )


def run_mahalanobis(s: Setting) -> Scored:
    train = s.schedule.train
    gaussians = mahalanobis.estimate_gaussians(
        s.feature_fn, s.variables, train.x, train.y, s.benchmark.num_classes
    )
    ood = None if s.clean else s.val_ood
    epsilons = s.protocol.epsilons if s.tiny else protocols.PROTOCOLS["paper"].epsilons
    state = mahalanobis.fit(
        s.feature_fn,
        s.variables,
        gaussians,
        s.val_ind,
        ood,
        epsilons=epsilons,
        seed=s.seed,
    )
    labels = s.labels
    return _scored(
        s,
        mahalanobis.score,
        state,
        feature_fn=s.feature_fn,
        note=epsilon_note(state),
        passes=_passes(len(gaussians.factor), chosen_epsilon(state)),
        data="class means, covariances",
        **labels | {"fitted_on": f"{labels['fitted_on']}, training set"},
    )


def run_deep_ensemble(s: Setting) -> Scored:
    """Members are the networks of this seed and the next ones."""
    seeds = range(s.seed, s.seed + MEMBERS)
    members = [networks.plain(s.benchmark, s.schedule, m).variables for m in seeds]
    epochs = [s.schedule.of_seed(m) for m in seeds]
    return _scored(
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
    ind, ood, seconds = timed(partial(both, logit_fn, variables, state), *_tests(s))
    test = s.benchmark.test  # without dropout the network is the benchmark's own
    right = accuracy(s.logit_fn, variables, test.x, test.y)
    note = f"rate {rate:g}, {s.schedule.short_epochs} epochs, accuracy {right:.1%}"
    facts = {
        "training": "1 network" if s.clean else f"1 network, {len(rates)} to choose",
        "passes": str(len(state.keys)),
        "seconds": seconds,
        **_chosen_by_labels(s),
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
        rows[f"outlier exposure, {kind}"] = _scored(
            s,
            msp.score,
            msp.fit(),
            variables=trained.variables,
            fitted_on=f"{len(auxiliary.x)} {auxiliary.name}",
            note=f"{epochs} epochs, accuracy {right:.1%}",
            training="fine-tuning" if finetune else "1 network",
        )
    return rows


def run_knn(s: Setting) -> Scored:
    """On the last layer before the logits."""
    layer = list(s.feature_fn(s.variables, as_float(s.val_ind[:1])))[-2]
    train = s.schedule.train.x
    state = knn.fit(s.feature_fn, s.variables, train, layer, k=min(50, len(train)))
    return _scored(
        s,
        knn.score,
        state,
        feature_fn=s.feature_fn,
        fitted_on="training set",
        note=f"{layer}, k = {len(state.ranks)}",
        data=f"{len(train):,} features",
    )


def run_displacement(s: Setting) -> Rows:
    """Layers standardised on in-distribution images and summed."""
    return {
        kind: _scored(
            s,
            displacement.score,
            displacement.fit(
                s.feature_fn,
                s.variables,
                s.initial,
                s.val_ind,
                relative=kind.startswith("relative"),
            ),
            feature_fn=s.feature_fn,
            fitted_on=f"{len(s.val_ind)} in",
            passes="2",
            data="initial weights",
        )
        for kind in ("displacement", "relative displacement")
    }


def _without_fit(module) -> Callable[[Setting], Scored]:
    return lambda s: _scored(s, module.score, module.fit())


# ---- what they share ----------------------------------------------------------------


def _scored(
    s: Setting, score: Callable, state, *, feature_fn=None, variables=None, **facts
) -> Scored:
    apply = partial(
        map_batches,
        score,
        feature_fn or s.logit_fn,
        s.variables if variables is None else variables,
        state,
    )
    ind, ood, seconds = timed(apply, s.test_ind, s.test_ood)
    return Scored(ind, ood, seconds=seconds, **facts)


def _tests(s: Setting) -> tuple[np.ndarray, np.ndarray]:
    return s.test_ind, s.test_ood


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


def _chosen_by_labels(s: Setting) -> dict[str, Any]:
    """Of a method that uses validation images to choose only: not in `clean`."""
    return {} if s.clean else s.labels


Method = Callable[[Setting], Scored | Rows]


def rows_of(name: str, method: Method, s: Setting) -> Rows:
    """All rows of a method; a single one goes by the method's own name."""
    found = method(s)
    return {name.replace("_", " "): found} if isinstance(found, Scored) else found


# In the order of the table: first what needs no label of any OoD image.
METHODS: dict[str, Method] = {
    "layers": run_layers,
    "fssd_clean": lambda s: run_fssd(s.under_clean()),
    "displacement": run_displacement,
    "msp": _without_fit(msp),
    "max_logit": _without_fit(max_logit),
    "energy": _without_fit(energy),
    "knn": run_knn,
    "deep_ensemble": run_deep_ensemble,
    "mc_dropout": run_mc_dropout,
    "outlier_exposure": run_outlier_exposure,
    "odin": run_odin,
    "mahalanobis": run_mahalanobis,
    "fssd": run_fssd,
}
