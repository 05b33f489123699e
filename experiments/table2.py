"""Table 2: train a classifier, score in-distribution and OoD images, compare methods.

Examples:

  python -m experiments.table2 --benchmark digits
  python -m experiments.table2 --benchmark digits --methods fssd --seeds 0 1 2

For each seed and each OoD set this leaves a folder
OUT/table2/PAIR-PROTOCOL-SEED-DIGEST/ with metrics.json, metrics.csv, scores.npz,
config.json, timing.json, report.html and pictures, and above them aggregate.json and
the tables as Markdown. A folder that is already there is not computed again. Weights
are kept in OUT/weights: a run that was killed goes on from its last checkpoint.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from rich.console import Console

import fssd_jax
from experiments import common, protocols, report, tables
from experiments.methods import CONTROLS, METHODS, Setting
from experiments.protocols import PROTOCOLS, Protocol
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark, split_validation
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.features import FeatureFn, LogitFn
from fssd_jax.models import LeNet
from fssd_jax.train import Trained, accuracy

# What a key is for; each use folds its own number into the seed's key. The numbers
# differ from those of training, which starts from the same key.
_NOISE, _SPLIT_IND, _SPLIT_OOD = range(100, 103)


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["digits", "fmnist"] = "digits"
    """Which data. digits: digits 0-4 against 5-9 (near) and against photographs
    (far), embedded in scikit-learn. fmnist: FashionMNIST against MNIST (paper's A)."""
    methods: tuple[Literal["fssd", "msp"], ...] = ("fssd", "msp")
    """Which detectors. The controls are always run beside them."""
    protocol: Literal["paper", "released", "clean"] = "paper"
    """paper: layer weights and input step from labelled validation images of both
    sets. released: the same as the authors' code does it. clean: nothing is fitted
    or chosen on any OoD set."""
    seeds: tuple[int, ...] = (0,)
    """A network, a split and a results folder for each."""
    epochs: int | None = None
    """Training epochs; by default the benchmark's own number."""
    out: Path = Path("results")
    """Where results and weights go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""
    rerun: bool = False
    """Compute again although the results folder is already there."""
    tiny: bool = False
    """A smoke test of seconds: one epoch, few images. Its numbers mean nothing."""


class Prepared(NamedTuple):
    """A seed's network and what all its pairs share."""

    seed: int
    model: LeNet
    feature_fn: FeatureFn
    logit_fn: LogitFn
    network: Trained
    train: ArrayDataset
    epochs: int
    seconds: dict[str, float]


def run(config: Config) -> list[tables.Result]:
    """From data to report; returns the metrics of every seed and pair."""
    config = checked(config)
    folder = common.writable(config.out / "table2")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    results: dict[str, list[tables.Result]] = {pair: [] for pair in benchmark.ood}
    for seed in config.seeds:
        prepared = None  # trained only if a pair of this seed is still to do
        for pair in benchmark.ood:
            path = results_path(config, benchmark, pair, seed)
            if path.exists() and not config.rerun:
                print(f"already there (--rerun computes it again): {path}")
            else:
                prepared = prepared or prepare(
                    benchmark, seed, config.out, config.epochs, config.tiny
                )
                run_pair(config, benchmark, prepared, pair, path)
            results[pair].append(report.read(path))
    common.write_json(folder / "aggregate.json", report.aggregate(folder))
    # In a file or a pipe there is no width to fit the tables to.
    console = Console(width=None if sys.stdout.isatty() else 140)
    all_sheets = [s for of_pair in results.values() for s in tables.sheets(of_pair)]
    for sheet in all_sheets:
        tables.print_sheet(console, sheet)
    text = "\n".join(tables.to_markdown(sheet) for sheet in all_sheets)
    (folder / f"{config.benchmark}-{config.protocol}.md").write_text(text)
    for pair in benchmark.ood:
        for seed in config.seeds:
            path = results_path(config, benchmark, pair, seed)
            print(f"results: {path / 'report.html'}")
    return [result for of_pair in results.values() for result in of_pair]


def prepare(
    benchmark: Benchmark, seed: int, out: Path, epochs: int | None, tiny: bool
) -> Prepared:
    """Train the seed's network, or take it from the weights folder."""
    clock = common.Stopwatch()
    train = benchmark.train
    if tiny:
        train = train.select(slice(128))
    epochs = epochs or (1 if tiny else benchmark.epochs)
    model = LeNet(benchmark.num_classes, benchmark.mean, benchmark.std)
    with clock("training"):
        network = common.trained(
            model,
            train,
            cache=out / "weights",
            seed=seed,
            epochs=epochs,
            num_classes=benchmark.num_classes,
            save_every=benchmark.save_every,
        )
    return Prepared(
        seed,
        model,
        fssd_jax.make_feature_fn(model),
        fssd_jax.make_logit_fn(model),
        network,
        train,
        epochs,
        clock.seconds,
    )


def make_setting(
    benchmark: Benchmark, prepared: Prepared, pair: str, protocol: Protocol, tiny: bool
) -> Setting:
    """Draw noise and split validation from test, by the seed's keys."""
    key = jax.random.key(prepared.seed)
    count = 20 if tiny else benchmark.validation
    if tiny:
        few = protocol.epsilons[::10][:2]
        protocol = protocol._replace(samples=min(64, protocol.samples), epsilons=few)
    val_ind, test_ind = split_validation(
        benchmark.test, count, jax.random.fold_in(key, _SPLIT_IND)
    )
    val_ood, test_ood = split_validation(
        benchmark.ood[pair], count, jax.random.fold_in(key, _SPLIT_OOD)
    )
    if tiny:
        test_ind = test_ind.select(slice(200))
    if tiny or protocol.truncate:
        test_ood = test_ood.select(slice(len(test_ind.x)))
    noise = protocols.draw_noise(
        protocol,
        jax.random.fold_in(key, _NOISE),
        benchmark.train.x.shape[1:],
        benchmark.mean,
        benchmark.std,
    )
    return Setting(
        protocol=protocol,
        feature_fn=prepared.feature_fn,
        logit_fn=prepared.logit_fn,
        variables=prepared.network.variables,
        initial=prepared.network.initial,
        noise=noise,
        val_ind=val_ind.x,
        val_ood=val_ood.x,
        test_ind=test_ind.x,
        test_ood=test_ood.x,
        seed=prepared.seed,
    )


def run_pair(
    config: Config, benchmark: Benchmark, prepared: Prepared, pair: str, path: Path
) -> None:
    """Score one in-distribution set against one OoD set and write the folder."""
    protocol = PROTOCOLS[config.protocol]
    setting = make_setting(benchmark, prepared, pair, protocol, config.tiny)
    clock = common.Stopwatch()
    methods, controls = {}, {}
    for name in config.methods:
        with clock(name):
            methods[name] = METHODS[name](setting)
    for name, control in CONTROLS.items():
        with clock(name):
            controls[name] = control(setting)
    facts = {
        "benchmark": pair,
        "protocol": config.protocol,
        "switches": setting.protocol._asdict(),
        "seed": prepared.seed,
        "sources": sources(benchmark, pair),
        "model": {
            "name": repr(prepared.model),
            "accuracy": accuracy(
                setting.logit_fn, setting.variables, benchmark.test.x, benchmark.test.y
            ),
            "epochs": prepared.epochs,
            "parameters": sum(a.size for a in jax.tree.leaves(setting.variables)),
        },
        "counts": {
            "train": len(prepared.train.x),
            "noise": len(setting.noise),
            "val_ind": len(setting.val_ind),
            "val_ood": len(setting.val_ood),
            "test_ind": len(setting.test_ind),
            "test_ood": len(setting.test_ood),
        },
        "paper": benchmark.paper,
        "versions": common.versions(),
        "device": common.device(),
    }
    with common.results_folder(path) as folder:
        common.write_json(folder / "config.json", deciding(config, benchmark))
        report.write(folder, facts, setting, methods, controls)
        seconds = {**prepared.seconds, **clock.seconds}
        common.write_json(folder / "timing.json", {"seconds": seconds})


def sources(benchmark: Benchmark, pair: str) -> dict[str, dict[str, str]]:
    """Where each set came from, and its digest."""
    return {
        f"{d.name}/{d.split}": {
            "path" if Path(d.source).is_absolute() else "version": d.source,
            "sha256": d.sha256,
        }
        for d in (benchmark.train, benchmark.test, benchmark.ood[pair])
    }


def checked(config: Config) -> Config:
    """Raise `InputError` for what could not work; drop repeated seeds and methods."""
    if not config.seeds or not config.methods:
        raise InputError("at least one seed and one method are needed")
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise InputError(f"--seeds: expected 0 to 2³² − 1, got {config.seeds}")
    if config.epochs is not None and config.epochs < 1:
        raise InputError(f"--epochs: expected 1 or more, got {config.epochs}")
    return dataclasses.replace(
        config,
        seeds=tuple(dict.fromkeys(config.seeds)),
        methods=tuple(name for name in METHODS if name in config.methods),
    )


def deciding(config: Config, benchmark: Benchmark) -> dict[str, Any]:
    """All that decides a seed's numbers; its digest names the folder."""
    sets = (benchmark.train, benchmark.test, *benchmark.ood.values())
    return {
        "benchmark": config.benchmark,
        "methods": config.methods,
        "controls": tuple(CONTROLS),
        "protocol": config.protocol,
        "switches": PROTOCOLS[config.protocol]._asdict(),
        "epochs": config.epochs or benchmark.epochs,
        "validation": benchmark.validation,
        "tiny": config.tiny,
        "data": [d.sha256 for d in sets],
        "code": common.code_digest(),
        "versions": common.versions(),
        "device": common.device(),
    }


def results_path(config: Config, benchmark: Benchmark, pair: str, seed: int) -> Path:
    digest = common.config_digest(deciding(config, benchmark))
    return config.out / "table2" / f"{pair}-{config.protocol}-{seed}-{digest}"


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
