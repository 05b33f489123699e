"""What the study has measured, here and on other machines."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.centre_study.explained import Facts
from experiments.centre_study.pairs import Family
from experiments.centre_study.tables import BASE, Aurocs
from experiments.harness.files import load_json
from fssd_jax.checks import InputError

WANTED = "give the metrics.json of a run of label_free"
Accuracies = dict[str, dict[int, float]]  # family → seed → accuracy
Machines = dict[str, dict[int, str]]  # family → seed → device and JAX's version


class Measured(NamedTuple):
    """All that tables are made of."""

    aurocs: Aurocs
    accuracies: Accuracies
    facts: list[Facts]
    machines: Machines

    def has(self, pair: str, seed: int, explained: bool) -> bool:
        """Whether this pair of this network is there, and explained if it is to be."""
        of = (pair, seed)
        told = not explained or any((f.pair, f.seed) == of for f in self.facts)
        return told and seed in self.aurocs.get(BASE, {}).get(pair, {})


def settings(families: Mapping[str, Family], tiny: bool) -> dict[str, Any]:
    """What the numbers of each family depend on, beside the data."""
    deciding = ("epochs", "train_size", "network", "width")
    return {
        name: {**{k: getattr(of, k) for k in deciding}, "tiny": tiny}
        for name, of in families.items()
    }


def gather(paths: Iterable[Path], own: Mapping[str, Any]) -> Measured:
    """Join what these files have of families of this run.

    A pair and network of which anything failed is not taken; of one that several files
    have, the first counts.

    Args:
      paths: metrics.json of earlier runs.
      own: `settings` of this run.

    Raises:
      InputError: a file is none of this study, or of other settings.
    """
    found = Measured(defaultdict(dict), {}, [], {})
    for path in paths:
        told = load_json(path, WANTED)
        known = isinstance(told, dict) and "aurocs" in told
        if not known or not isinstance(told.get("settings"), dict):
            raise InputError(f"{path}: has no rules without labels; {WANTED}")
        for name in set(own) & set(told["settings"]):
            if own[name] != told["settings"][name]:
                raise InputError(
                    f"{path}: {name} was measured with {told['settings'][name]}, and "
                    f"here it is {own[name]}; leave the file out"
                )
            try:
                _add(found, told, name)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
                raise InputError(
                    f"{path}: is damaged or of another version ({why}); {WANTED}"
                ) from error
    return found


def _add(found: Measured, told: Mapping[str, Any], family: str) -> None:
    failed = {name.partition(": ")[0] for name in told["failed"]}
    new = {
        (pair, int(seed))
        for pair in told["pairs"][family]
        for seed in told["aurocs"][BASE].get(pair, {})
        if f"{pair}-{seed}" not in failed and not found.has(pair, int(seed), False)
    }
    for rule, of_pairs in told["aurocs"].items():
        for pair, of_seeds in of_pairs.items():
            for seed, value in of_seeds.items():
                if (pair, int(seed)) in new:
                    found.aurocs[rule].setdefault(pair, {})[int(seed)] = value
    for seed, value in told["accuracies"].get(family, {}).items():
        found.accuracies.setdefault(family, {}).setdefault(int(seed), value)
        machine = told["machines"][family][seed]
        found.machines.setdefault(family, {}).setdefault(int(seed), machine)
    facts = [Facts(**fact) for fact in told["explained"]]
    found.facts.extend(fact for fact in facts if (fact.pair, fact.seed) in new)
