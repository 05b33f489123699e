"""From the AUROC of each rule, pair and seed to means over kinds, with intervals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.centre_study.pairs import NEAR, kind
from fssd_jax.checks import InputError

DRAWS = 10_000
Found = Mapping[str, Mapping[int, float]]  # pair → seed → AUROC of one rule


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


def by_kind(found: Found) -> dict[str, float]:
    """Mean over the pairs of each kind of the mean over their seeds."""
    of_kind = defaultdict(list)
    for pair, seeds in found.items():
        of_kind[kind(pair)].append(np.mean(list(seeds.values())))
    return {name: float(np.mean(means)) for name, means in of_kind.items()}


def mean_near(found: Found, kinds: Sequence[str] = NEAR) -> float:
    """Mean over the kinds of near pairs, each of which counts as much."""
    means = by_kind(found)
    missing = [name for name in kinds if name not in means]
    if missing:
        raise InputError(f"no pair of kind {', '.join(missing)} was measured")
    return float(np.mean([means[name] for name in kinds]))


def near(found: Found, kinds: Sequence[str] = NEAR) -> Estimate:
    """With a 95 % percentile interval."""
    return _bootstrap(found, kinds)


def difference(one: Found, other: Found, kinds: Sequence[str] = NEAR) -> Estimate:
    """Of two rules on the same networks and images, `one` less `other`."""
    paired = {
        pair: {seed: seeds[seed] - other[pair][seed] for seed in seeds}
        for pair, seeds in one.items()
        if kind(pair) in kinds
    }
    return _bootstrap(paired, kinds)


def _bootstrap(found: Found, kinds: Sequence[str]) -> Estimate:
    """By networks drawn anew within each pair: of other trainings, not of other sets.

    The same draws for all rules, so that differences are paired.
    """
    rng = np.random.default_rng(0)
    of_kind: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for pair in sorted(found):
        if kind(pair) in of_kind:
            values = np.array([found[pair][seed] for seed in sorted(found[pair])])
            drawn = rng.integers(0, len(values), (DRAWS, len(values)))
            of_kind[kind(pair)].append(values[drawn].mean(1))
    value = mean_near(found, kinds)
    means = np.mean([np.mean(parts, axis=0) for parts in of_kind.values()], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
