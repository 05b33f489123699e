"""Tables and pictures of the study: rules by kind of pair, and each pair."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis import auroc_plots
from experiments.centre_study import summary
from experiments.centre_study.explained import PREDICTORS, Facts, correlations
from experiments.centre_study.pairs import NEAR, kind
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet

PHOTOGRAPHS = "photographs"  # a kind
BASE = "fssd clean"  # the row that rules are compared with
Aurocs = dict[str, dict[str, dict[int, float]]]  # rule → pair → seed → AUROC
# What follows a centre in the name of a rule that gives a whole score.
WHOLE = (": deep", ": all", ": learned", ": deep + mahalanobis")
RIVALS_OF_ALL = (
    *("control: untrained, clean", "control: nearest in pixels", "control: brightness"),
)
CENTRES = ("noise", "tiles 7", "mix 16", "origin", "noise, initial", "oracle")
PREDICTORS_IN_WORDS = {
    "offset": "offset's share of FSSD² of OoD",
    "near_start": "distance from F_0 of OoD over their displacement",
    "near_ood": "distance from OoD over that from in-distribution",
}


def complete(found: Aurocs) -> list[str]:
    """Rules that were measured on all pairs and networks, in their order."""
    networks = {rule: _networks(of) for rule, of in found.items()}
    every = set().union(*networks.values())
    return [rule for rule in found if networks[rule] == every]


def _networks(of: Mapping[str, Mapping[int, float]]) -> set[tuple[str, int]]:
    return {(pair, seed) for pair, seeds in of.items() for seed in seeds}


def whole(rules: Iterable[str]) -> list[str]:
    """Rules that give one score, which single layers do not."""
    return [
        rule
        for rule in rules
        if ": " not in rule or rule.endswith(WHOLE) or rule in RIVALS_OF_ALL
    ]


def near_kinds(found: Aurocs) -> list[str]:
    kinds = {kind(pair) for of in found.values() for pair in of}
    return [name for name in NEAR if name in kinds]


def rules(
    found: Aurocs,
    accuracies: Mapping[str, Mapping[int, float]],
    machines: Mapping[str, Mapping[int, str]],
) -> Sheet:
    """By kind of pair, the best first."""
    kinds = list(dict.fromkeys(kind(pair) for of in found.values() for pair in of))
    near, based = near_kinds(found), BASE in complete(found)
    rows = []
    for rule in whole(complete(found)):
        means = summary.by_kind(found[rule])
        easy = [of for pair, of in found[rule].items() if kind(pair) == PHOTOGRAPHS]
        worst = min((min(of.values()) for of in easy), default=None)
        row = [rule, "", ""]
        if near:
            row[1] = _cell(summary.near(found[rule], near))
            if based:
                less = summary.difference(found[rule], found[BASE], near)
                row[2] = _cell(less, "+")
        row += [f"{100 * means[name]:.1f}" for name in kinds]
        rows.append([*row, "" if worst is None else f"{100 * worst:.1f}"])
    rows.sort(key=lambda row: -float((row[1] or row[3]).split()[0]))
    headings = ["rule", "near", f"less {BASE}", *kinds, "worst of photographs"]
    right = "; ".join(
        f"{name} {100 * np.mean(list(of.values())):.1f} % ({len(of)} seeds)"
        for name, of in accuracies.items()
    )
    told = [
        f"AUROC in %. near: mean of {', '.join(near)}, each counted once; 95 % "
        "intervals by networks drawn anew within each pair, paired in the difference.",
        f"Accuracy of the networks: {right}.",
        f"Networks by where they were measured: {_counted(machines)}.",
    ]
    if missing := set(whole(found)) - set(complete(found)):
        told.append(
            f"Not of every network, and left out: {', '.join(sorted(missing))}."
        )
    screen = (*headings[:3], headings[-1])
    return Sheet("rules without labels", headings, rows, told, screen)


def explained(facts: list[Facts]) -> Sheet:
    """What goes with a centre's AUROC, by network and layer."""
    rows = [
        [
            *(of.network, of.layer, PREDICTORS_IN_WORDS[of.predictor]),
            f"{of.rho:+.2f} [{of.low:+.2f}, {of.high:+.2f}]",
            str(of.networks),
        ]
        for of in correlations(facts)
    ]
    note = (
        "Spearman's ρ over centres but the oracle: mean of the networks, and from "
        "which to which. −1: the smaller, the better the centre."
    )
    headings = ["network", "layer", "AUROC with", "ρ", "networks"]
    return Sheet("what goes with a centre's AUROC", headings, rows, [note])


def centres(facts: list[Facts]) -> Sheet:
    """Each layer about some centres, and what their AUROC goes with."""
    found = {(c.network, c.layer, c.predictor): c for c in correlations(facts)}
    rows = []
    for network, layer in dict.fromkeys((f.network, f.layer) for f in facts):
        here = [f for f in facts if (f.network, f.layer) == (network, layer)]
        cells = []
        for centre in CENTRES:
            about = [f for f in here if f.centre == centre]
            if not about:
                cells.append("")
                continue
            auroc = np.mean([f.auroc for f in about])
            offset = np.median([f.offset for f in about])
            cells.append(f"{100 * auroc:.0f} ({100 * offset:.0f})")
        rhos = [f"{found[network, layer, name].rho:+.2f}" for name in PREDICTORS]
        networks = len({(f.pair, f.seed) for f in here})
        rows.append([network, layer, *cells, *rhos, str(networks)])
    notes = [
        "AUROC in %, mean of the networks, and in brackets the offset's share of FSSD² "
        "of OoD images, median of them; it may be more than 100, the cross term being "
        "negative. ρ: Spearman's, of the AUROC over centres but the oracle, with the "
        "offset's share, with the distance from F_0 of OoD images over their "
        "displacement, and with the distance from OoD over that from in-distribution."
    ]
    rho = "ρ: offset", "ρ: F_0", "ρ: OoD"
    headings = ["network", "layer", *CENTRES, *rho, "networks"]
    return Sheet("centres, layer by layer", headings, rows, notes)


def pairs(found: Aurocs) -> Sheet:
    """Every row on every pair."""
    names = list(dict.fromkeys(pair for of in found.values() for pair in of))
    rows = [
        [rule, *(_seeds(found[rule][pair].values()) for pair in names)]
        for rule in complete(found)
    ]
    note = "AUROC in %: mean of the seeds, and from which to which."
    return Sheet("each pair", ["rule", *names], rows, [note])


def _cell(estimate: summary.Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return ""
    value, low, high = (100 * part for part in estimate)
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _counted(machines: Mapping[str, Mapping[int, str]]) -> str:
    of = Counter(machine for seeds in machines.values() for machine in seeds.values())
    return "; ".join(f"{n} on {machine}" for machine, n in of.most_common())


def _seeds(values) -> str:
    values = [100 * value for value in values]
    return f"{np.mean(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def to_records(found: Aurocs) -> list[Record]:
    return [
        record("AUROC", value, method=rule, benchmark=pair, seed=seed)
        for rule, pairs in found.items()
        for pair, of in pairs.items()
        for seed, value in of.items()
    ]


def pictures(found: Aurocs) -> dict[str, Any]:
    """Whole scores by their mean over near pairs."""
    near = near_kinds(found)
    if not near:
        return {}
    of = {rule: summary.near(found[rule], near) for rule in whole(complete(found))}
    ordered = sorted(of, key=lambda rule: -of[rule].value)
    return {
        "near": auroc_plots.dots(
            ordered,
            [of[rule].value for rule in ordered],
            "AUROC, mean of near pairs",
            "rules without labels",
            intervals=[(of[rule].low, of[rule].high) for rule in ordered],
        )
    }
