"""Why a centre is better than another: what of FSSD² it leaves, and where it lies.

    FSSD(x)² = ‖Δ‖² + 2⟨Δ, o⟩ + ‖o‖²,   Δ = F_T(x) − F_0(x),   o = F_0(x) − F*

The paper's step to the kernel, F* ≈ F_0(x), asks for a small o. If that were what makes
a centre good, its AUROC would rise as the offset's share falls. What is measured beside
it, of each centre c and layer, with means m over images of a set:

    nearness to F_0   ‖c − F_0(x)‖ over ‖F_T(x) − F_0(x)‖, both root mean square, of OoD
    nearness to OoD   ‖c − m(F_T, OoD)‖ / ‖c − m(F_T, in-distribution)‖
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from analysis.displacement import decompose
from experiments.centre_study.centres import ORACLE, singularities
from experiments.comparison import networks
from experiments.comparison.setting import Setting
from fssd_jax import metrics
from fssd_jax.features import make_feature_fn
from fssd_jax.fssd import estimate_singularity

IMAGES = 500  # of each test set


class Facts(NamedTuple):
    """Of one centre and layer of one network."""

    pair: str
    seed: int
    network: str
    layer: str
    centre: str
    auroc: float  # of the distance to it alone
    offset: float  # share of ‖o‖² in Σ FSSD² of OoD images
    cross: float
    moved: float
    near_start: float
    near_ood: float


# What may predict the AUROC, which is to fall as they rise.
PREDICTORS = ("offset", "near_start", "near_ood")


def explain(s: Setting, pair: str, name: str) -> list[Facts]:
    """Of each centre and layer of the setting's network."""
    ind, ood = s.test_ind[:IMAGES], s.test_ood[:IMAGES]
    means = [
        estimate_singularity(s.feature_fn, s.variables, x).center for x in (ind, ood)
    ]
    facts = []
    for centre, singularity in singularities(s).items():
        at = s.feature_fn, s.initial, s.variables, singularity
        terms = [decompose(*at, x, batch_size=s.batch_size) for x in (ind, ood)]
        distances = [
            np.sqrt(np.maximum(np.sum(of, axis=0, dtype=np.float64), 0)) for of in terms
        ]
        shares = terms[1].shares()
        for k, (layer, c) in enumerate(singularity.center.items()):
            to_ind, to_ood = (float(jnp.linalg.norm(c - m[layer])) for m in means)
            start = np.mean(terms[1].offset[:, k]) / np.mean(terms[1].moved[:, k])
            facts.append(
                Facts(
                    *(pair, s.seed, name, layer, centre),
                    auroc=metrics.auroc(distances[0][:, k], distances[1][:, k]),
                    offset=float(shares.offset[k]),
                    cross=float(shares.cross[k]),
                    moved=float(shares.moved[k]),
                    near_start=float(np.sqrt(start)),
                    near_ood=to_ood / to_ind,
                )
            )
    return facts


def of_perceptron(s: Setting) -> Setting:
    """The same data with a perceptron, trained on them."""
    assert s.training is not None
    trained = networks.other_architecture(s.training, s.seed)
    return s._replace(
        feature_fn=make_feature_fn(networks.perceptron(s.training.benchmark)),
        variables=trained.variables,
        initial=trained.initial,
    )


class Correlation(NamedTuple):
    """Spearman's ρ with the AUROC over centres but the oracle, and over networks."""

    network: str
    layer: str
    predictor: str
    rho: float  # mean of the networks
    low: float  # the lowest, and the highest
    high: float
    networks: int


def correlations(facts: Iterable[Facts]) -> list[Correlation]:
    """By network's kind, layer and predictor."""
    groups: dict[tuple[str, str], dict] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        if fact.centre != ORACLE:
            groups[fact.network, fact.layer][fact.pair, fact.seed].append(fact)
    found = []
    for (network, layer), of_networks in groups.items():
        for predictor in PREDICTORS:
            rhos = [_rho(of, predictor) for of in of_networks.values()]
            ends = min(rhos), max(rhos)
            mean = sum(rhos) / len(rhos)
            found.append(Correlation(network, layer, predictor, mean, *ends, len(rhos)))
    return found


def _rho(facts: list[Facts], predictor: str) -> float:
    found: Any = spearmanr(
        [fact.auroc for fact in facts], [getattr(fact, predictor) for fact in facts]
    )
    return float(found.statistic)
