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
import tyro
from rich.console import Console

import fssd_jax
from experiments import common, report, tables
from experiments.methods import CONTROLS, METHODS, Setting
from fssd_jax.allocator import keep_memory
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark, split_validation
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors.fssd import EPSILONS
from fssd_jax.models import LeNet
from fssd_jax.train import Trained, accuracy

# What a key is for; each use folds its own number into the seed's key. The numbers
# differ from those of training, which starts from the same key.
_NOISE, _SPLIT_IND, _SPLIT_OOD = range(100, 103)


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["digits"] = "digits"
    """Which data. digits: digits 0-4 against 5-9 (near) and against photographs
    (far), embedded in scikit-learn."""
    methods: tuple[Literal["fssd", "msp"], ...] = ("fssd", "msp")
    """Which detectors. The controls are always run beside them."""
    protocol: Literal["paper", "clean"] = "paper"
    """paper: layer weights and input step from labelled validation images of both
    sets. clean: nothing is fitted or chosen on any OoD set."""
    seeds: tuple[int, ...] = (0,)
    """A network, a split and a results folder for each."""
    epochs: int | None = None
    """Training epochs; by default the benchmark's own number."""
    out: Path = Path("results")
    """Where results and weights go."""
    noise: int = 1000
    """Uniform noise samples for the singularity F*."""
    batch_size: int = 50
    """Images scored at once. (Training has its own, 64.)"""
    rerun: bool = False
    """Compute again although the results folder is already there."""
    tiny: bool = False
    """A smoke test of seconds: one epoch, few images. Its numbers mean nothing."""


class Prepared(NamedTuple):
    """A seed's network and what all its pairs share."""

    seed: int
    model: LeNet
    network: Trained
    train: ArrayDataset
    epochs: int
    seconds: dict[str, float]


def run(config: Config) -> list[tables.Result]:
    """From data to report; returns the metrics of every seed and pair."""
    config = checked(config)
    folder = common.writable(config.out / "table2")
    benchmark = load_benchmark(config.benchmark)
    results: dict[str, list[tables.Result]] = {pair: [] for pair in benchmark.ood}
    for seed in config.seeds:
        prepared = None  # trained only if a pair of this seed is still to do
        for pair in benchmark.ood:
            path = results_path(config, pair, seed)
            if path.exists() and not config.rerun:
                print(f"already there (--rerun computes it again): {path}")
            else:
                prepared = prepared or prepare(config, benchmark, seed)
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
            print(f"results: {results_path(config, pair, seed) / 'report.html'}")
    return [result for of_pair in results.values() for result in of_pair]


def prepare(config: Config, benchmark: Benchmark, seed: int) -> Prepared:
    """Train the seed's network, or take it from the weights folder."""
    clock = common.Stopwatch()
    train = benchmark.train.select(slice(128 if config.tiny else None))
    epochs = config.epochs or (1 if config.tiny else benchmark.epochs)
    model = LeNet(benchmark.num_classes, benchmark.mean, benchmark.std)
    with clock("training"):
        network = common.trained(
            model,
            train,
            cache=config.out / "weights",
            seed=seed,
            epochs=epochs,
            num_classes=benchmark.num_classes,
            save_every=benchmark.save_every,
        )
    return Prepared(seed, model, network, train, epochs, clock.seconds)


def run_pair(
    config: Config, benchmark: Benchmark, prepared: Prepared, pair: str, path: Path
) -> None:
    """Score one in-distribution set against one OoD set and write the folder."""
    key = jax.random.key(prepared.seed)
    count = 20 if config.tiny else benchmark.validation
    ood = benchmark.ood[pair]
    val_ind, test_ind = split_validation(
        benchmark.test, count, jax.random.fold_in(key, _SPLIT_IND)
    )
    val_ood, test_ood = split_validation(
        ood, count, jax.random.fold_in(key, _SPLIT_OOD)
    )
    noise = fssd_jax.uniform_noise(
        jax.random.fold_in(key, _NOISE),
        64 if config.tiny else config.noise,
        benchmark.train.x.shape[1:],
    )
    setting = Setting(
        protocol=config.protocol,
        feature_fn=fssd_jax.make_feature_fn(prepared.model),
        logit_fn=fssd_jax.make_logit_fn(prepared.model),
        variables=prepared.network.variables,
        initial=prepared.network.initial,
        noise=noise,
        val_ind=val_ind.x,
        val_ood=val_ood.x,
        test_ind=test_ind.x,
        test_ood=test_ood.x,
        epsilons=(0.0, 0.1) if config.tiny else EPSILONS,
        batch_size=config.batch_size,
        seed=prepared.seed,
    )
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
        "seed": prepared.seed,
        "sources": {
            role: {"name": d.name, "source": d.source, "sha256": d.sha256}
            for role, d in (("train", prepared.train), ("test", val_ind), ("ood", ood))
        },
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
            "noise": len(noise),
            "val_ind": len(val_ind.x),
            "val_ood": len(val_ood.x),
            "test_ind": len(test_ind.x),
            "test_ood": len(test_ood.x),
        },
        "paper": benchmark.paper,
        "versions": common.versions(),
        "device": common.device(),
    }
    with common.results_folder(path) as folder:
        common.write_json(folder / "config.json", deciding(config))
        report.write(folder, facts, setting, methods, controls)
        seconds = {**prepared.seconds, **clock.seconds}
        common.write_json(folder / "timing.json", {"seconds": seconds})


def checked(config: Config) -> Config:
    """Raise `InputError` for what could not work; drop repeated seeds and methods."""
    if not config.seeds or not config.methods:
        raise InputError("at least one seed and one method are needed")
    if config.epochs is not None and config.epochs < 1:
        raise InputError(f"--epochs: expected 1 or more, got {config.epochs}")
    for name in ("noise", "batch_size"):
        if getattr(config, name) < 2:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: expected 2 or more")
    return dataclasses.replace(
        config,
        seeds=tuple(dict.fromkeys(config.seeds)),
        methods=tuple(name for name in METHODS if name in config.methods),
    )


def deciding(config: Config) -> dict[str, Any]:
    """The options that decide a seed's numbers; its digest names the folder."""
    options = dataclasses.asdict(config)
    for name in ("seeds", "out", "rerun"):
        del options[name]
    return options


def results_path(config: Config, pair: str, seed: int) -> Path:
    digest = common.config_digest(deciding(config))
    return config.out / "table2" / f"{pair}-{config.protocol}-{seed}-{digest}"


def main(args: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=args, description=__doc__)
    keep_memory()
    return common.run_main(lambda: run(config))


if __name__ == "__main__":
    sys.exit(main())
