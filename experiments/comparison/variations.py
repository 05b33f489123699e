"""What the gaps between our numbers and the published ones depend on, by variation."""

from functools import partial

from experiments.comparison import networks, retrained
from experiments.comparison.setting import Setting
from experiments.harness.keys import Use, of_seed
from fssd_jax import metrics
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import deep_ensemble, mc_dropout, msp

Row = tuple[str, str, float]  # method, what was varied, AUROC


def vary(s: Setting, auxiliary: list[ArrayDataset]) -> list[Row]:
    """All variations; the setting is one of benchmark A."""
    return [*of_members(s), *rates(s), *auxiliary_sets(s, auxiliary)]


def of_members(s: Setting) -> list[Row]:
    """MSP of each member of the deep ensemble alone, and ensembles of fewer."""
    assert s.training is not None
    seeds = range(s.seed, s.seed + retrained.MEMBERS)
    members = {m: networks.plain(s.training, m).variables for m in seeds}
    epochs = {m: s.training.epochs_of(m) for m in seeds}
    rows = [
        ("msp", f"seed {m}, {_epochs(epochs[m])}", _auroc(s, msp, members[m]))
        for m in seeds
    ]
    longest = max(epochs.values())
    groups = {
        tuple(seeds),
        tuple(m for m in seeds if epochs[m] == longest),
        tuple(m for m in seeds if epochs[m] < longest),
    }
    for group in sorted(groups, key=len):
        if len(group) > 1:
            stacked = deep_ensemble.stack([members[m] for m in group])
            what = f"seeds {', '.join(map(str, group))}"
            rows.append(("deep ensemble", what, _auroc(s, deep_ensemble, stacked)))
    return rows


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def rates(s: Setting) -> list[Row]:
    """MC dropout by mean and by variance at every rate; fewer passes than in table2."""
    assert s.training is not None
    key = of_seed(s.seed, Use.MC_DROPOUT)
    state = mc_dropout.fit(key, retrained.CHOOSING_PASSES)
    rows = []
    for rate in retrained.RATES[:2] if s.tiny else retrained.RATES:
        variables = networks.with_dropout(s.training, 0, rate).variables
        logit_fn = retrained.stochastic(s.training, rate)
        of = partial(map_batches, mc_dropout.scores, logit_fn, variables, state)
        ind, ood = of(s.test_ind), of(s.test_ood)
        rows += [
            (
                f"mc dropout, {name}",
                f"rate {rate:g}",
                metrics.auroc(ind[:, c], ood[:, c]),
            )
            for c, name in enumerate(retrained.COLUMNS)
        ]
    return rows


def auxiliary_sets(s: Setting, sets: list[ArrayDataset]) -> list[Row]:
    """Fine-tuning with each set beside."""
    assert s.training is not None
    rows = []
    for auxiliary in sets:
        if s.tiny:
            auxiliary = auxiliary.select(slice(64))
        trained = networks.exposed(s.training, s.seed, auxiliary, finetune=True)
        what = f"{len(auxiliary.x):,} {auxiliary.name}/{auxiliary.split}"
        auroc = _auroc(s, msp, trained.variables)
        rows.append(("outlier exposure, fine-tuned", what, auroc))
    return rows


def _auroc(s: Setting, detector, variables) -> float:
    of = partial(map_batches, detector.score, s.logit_fn, variables, detector.fit())
    return metrics.auroc(of(s.test_ind), of(s.test_ood))
