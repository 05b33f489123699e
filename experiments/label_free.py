"""FSSD without labels: which centre F*, which layers, how combined?

  fssd label_free                          all pairs but those held back; hours
  fssd label_free --families digits fmnist
  fssd label_free --held-back              also the splits that decide nothing

What is compared, on what, and how it is judged was written down before any of it was
run: docs/labelfree.md. Networks are trained here, or taken from OUT/weights; what each
gives on a pair is kept in OUT/scores, so that a run that was killed goes on. Several
machines may share the work: --measured takes what the others found. Leaves
OUT/label_free/label_free-DIGEST/ with report.html, metrics.json and the tables.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.centre_study import gathered, summary, tables
from experiments.centre_study.centres import ORACLE, with_logits
from experiments.centre_study.explained import Facts, explain, of_perceptron
from experiments.centre_study.gathered import Measured
from experiments.centre_study.pairs import FAMILIES, NEAR, Family, kind
from experiments.centre_study.rules import RIVALS, RULES
from experiments.centre_study.tables import Aurocs
from experiments.comparison import answers
from experiments.comparison.answers import GROUPS, answer
from experiments.comparison.networks import Shared, network_of
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import (
    Options,
    Setting,
    make_setting,
    prepare,
)
from experiments.harness import cli, files, provenance, results, sheets
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data.benchmark import Benchmark


@dataclasses.dataclass(frozen=True)
class Config:
    families: tuple[str, ...] = tuple(FAMILIES)
    """In-distribution sets, each with its pairs."""
    seeds: tuple[int, ...] = ()
    """Which networks of each; by default as many as docs/labelfree.md says."""
    held_back: bool = False
    """Also the splits that are looked at when all is decided."""
    explain: bool = False
    """Also why a centre is better than another, for near pairs: the offset's share of
    FSSD² and where the centre lies, of these networks and of perceptrons."""
    out: Path = Path("results")
    """Where results and weights go."""
    data_dir: Path | None = None
    """As of table2."""
    measured: tuple[Path, ...] = ()
    """metrics.json of earlier runs, also of other machines: the pairs and networks that
    they have are not measured again."""
    tiny: bool = False
    """A smoke test: one epoch, few images. Its numbers mean nothing."""


def run(config: Config) -> dict[str, Any]:
    unknown = sorted(set(config.families) - set(FAMILIES))
    if unknown:
        raise InputError(f"--families: {unknown}; choose from {', '.join(FAMILIES)}")
    chosen = {
        name: FAMILIES[name]
        for name in config.families
        if config.held_back or not FAMILIES[name].held_back
    }
    if not chosen:
        raise InputError("--families: all of these are held back; give --held-back")
    files.writable(config.out / "label_free")
    own = gathered.settings(chosen, config.tiny)
    measured = gathered.gather(config.measured, own)
    failed, data, pairs = {}, [], {}
    for name, family in chosen.items():
        benchmark = family.load(config.data_dir if name != "digits" else None)
        data += [benchmark.train, benchmark.test, *benchmark.ood.values()]
        pairs[name] = list(benchmark.ood)
        for seed in config.seeds or range(family.seeds):
            failed |= _of_network(config, name, family, benchmark, seed, measured)
    told = dataclasses.asdict(config)
    told["measured"] = [hashlib.sha256(of.read_bytes()) for of in config.measured]
    told["measured"] = [of.hexdigest() for of in told["measured"]]
    there = results.place(
        config.out, "label_free", "label_free", told, data, measured_by=summary
    )
    found, accuracies, facts_of, machines = measured
    both = [tables.rules(found, accuracies, machines), tables.pairs(found)]
    if facts_of:
        both[1:1] = [tables.centres(facts_of), tables.explained(facts_of)]
    arrays = {
        f"{rule}/{pair}": np.array(list(of.values()))
        for rule, of_pairs in found.items()
        for pair, of in of_pairs.items()
    }
    facts = {"aurocs": found, "accuracies": accuracies, "failed": failed}
    facts |= {"pairs": pairs, "settings": own, "machines": machines}
    facts["explained"] = [fact._asdict() for fact in facts_of]
    numbers, drawn = tables.to_records(found), tables.pictures(found)
    results.leave(there, facts, numbers, both, drawn, arrays, show=False)
    sheets.show(both[:-1])
    return facts


def _of_network(
    config: Config,
    name: str,
    family: Family,
    benchmark: Benchmark,
    seed: int,
    measured: Measured,
) -> dict[str, str]:
    """Measure what is not there of this network; what failed, and why."""
    explained = {pair: config.explain and kind(pair) in NEAR for pair in benchmark.ood}
    missing = [p for p, of in explained.items() if not measured.has(p, seed, of)]
    if not missing:
        return {}
    options = _options(config, family)
    shared = _network(config, family, benchmark)
    prepared = prepare(benchmark, seed, options, shared)
    measured.accuracies.setdefault(name, {})[seed] = prepared.accuracy
    machine = f"{provenance.device()}, JAX {jax.__version__}"
    measured.machines.setdefault(name, {})[seed] = machine
    failed = {}
    for pair in missing:
        s = make_setting(prepared, pair, PROTOCOLS["clean"], tiny=config.tiny)
        s = s._replace(timed=False)
        kept = _kept(config, options, shared, benchmark, pair, seed)
        failed |= _measure(s, pair, kept, measured.aurocs)
        if explained[pair]:
            measured.facts.extend(_explained(s, pair, shared, kept))
    return failed


def _options(config: Config, family: Family) -> Options:
    return Options(
        epochs=1 if config.tiny else family.epochs,
        train_size=None if config.tiny else family.train_size,
        full_seeds=sys.maxsize,
        out=config.out,
        tiny=config.tiny,
    )


def _network(config: Config, family: Family, benchmark: Benchmark) -> Shared:
    how = {"width": family.width, "tiny": config.tiny}
    return network_of(benchmark, family.network, **how)


def _kept(config, options, shared, benchmark: Benchmark, pair: str, seed: int) -> Path:
    """Where the scores of a network and pair are kept."""
    there = results.place(
        config.out,
        "scores",
        f"label_free-{pair}-{seed}",
        {"network": shared.name, **dataclasses.asdict(options)},
        [benchmark.train, benchmark.test, benchmark.ood[pair]],
        measured_by=answers,
    )
    return files.writable(there.path)


def _measure(s: Setting, pair: str, kept: Path, found: Aurocs) -> dict[str, str]:
    """Add the AUROC of every rule to `found`; what failed, and why."""
    of = answer(
        *(s, (*RIVALS, *RULES), kept),
        groups={**GROUPS, "rules": RULES},
        told=lambda name: print(f"{pair}-{s.seed}: {name}", flush=True),
    )
    for rows in of.groups.values():
        for name, row in rows.items():
            # By labels of OoD images; or of photographs, which are pairs here.
            labelled = row.target_ood and not name.startswith(ORACLE)
            # What the library does by default, which is among the rules.
            labelled |= name == "fssd deep"
            if not labelled and not name.endswith(", photographs"):
                auroc = metrics.auroc(row.ind, row.ood)
                found[name].setdefault(pair, {})[s.seed] = auroc
    return {f"{pair}-{s.seed}: {name}": why for name, why in of.failed.items()}


def _explained(s: Setting, pair: str, shared: Shared, kept: Path) -> list[Facts]:
    """Of this network and of a perceptron, computed once."""
    path = kept / "explained.json"
    if not path.exists():
        facts = explain(with_logits(s), pair, shared.name)
        facts += explain(of_perceptron(s), pair, "perceptron")
        files.write_json(path, {"facts": [fact._asdict() for fact in facts]})
    told = files.load_json(path, "delete it, and run again")
    return [Facts(**fact) for fact in told["facts"]]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
