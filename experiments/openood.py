"""The table of OpenOOD 1.5: near- and far-OoD of its benchmarks, by its evaluator.

  fssd openood --root OpenOOD --benchmark cifar10

ROOT is a checkout of OpenOOD, or its folder data/: benchmark_imglist/, images_classic/
and images_largescale/, as its scripts/download get them. The networks are its
checkpoints, one a training run: best.ckpt in --checkpoints/s0, s1, …, by default below
ROOT/results; for imagenet a file of torchvision's ResNet-50. FSSD stands beside MSP,
energy (EBO), Mahalanobis (MDS) and k nearest neighbours (KNN), fitted as OpenOOD fits
them. Cells are mean ± standard deviation over the runs; what cannot be run, because
images or networks are not there, is "not run", and the notes say why. Leaves
OUT/openood/BENCHMARK-SEED-DIGEST/ with report.html, metrics.json, the tables, and the
scores of every image. Scores of each set are kept in OUT/scores: a run that was
interrupted fits anew, and goes on at the set it was in.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.harness import cli, files, results, sheets
from experiments.harness.records import Record, records
from experiments.harness.sheets import Sheet
from experiments.leaderboard import kept, measured
from experiments.leaderboard.measured import METHODS, Measured
from fssd_jax import checkpoint, checks, torch_weights
from fssd_jax.checks import InputError
from fssd_jax.data.folders import ImageStream
from fssd_jax.data.image_files import located
from fssd_jax.data.openood import BENCHMARKS, Benchmark, open_list
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.ensemble import EPSILONS
from fssd_jax.memory import LEAST

NOT_RUN = "not run"
# As OpenOOD's evaluator calls them, and `measured.Metrics`.
COLUMNS = {
    "FPR@95": "fpr95",
    "AUROC": "auroc",
    "AUPR_IN": "aupr_in",
    "AUPR_OUT": "aupr_out",
}


@dataclasses.dataclass(frozen=True)
class Config:
    root: Path
    """A checkout of OpenOOD, or its folder data/."""
    benchmark: Literal[tuple(BENCHMARKS)] = "cifar10"  # pyright: ignore
    """Which of its four."""
    checkpoints: Path | None = None
    """A folder with s0/best.ckpt, s1/best.ckpt, …, or a file of one network."""
    limit: int | None = None
    """At most as many images of each list, drawn by the seed: for a trial."""
    train_limit: int | None = None
    """At most as many training images, for MDS and KNN. OpenOOD takes all, of which KNN
    holds the features: of imagenet 10 GB."""
    epsilons: tuple[float, ...] = EPSILONS
    """Input steps of FSSD that are tried on the OoD validation set."""
    noise: int = 1000
    """Samples of uniform noise for F*."""
    batch_size: int | None = None
    """Images at a time, which changes scores but by rounding; by default 64 on a CPU,
    on an accelerator what fits in half of its memory, 4,096 at most."""
    seed: int = 0
    """Of the noise, the folds of cross-validation, and what --limit draws."""
    out: Path = Path("results")
    """Where results go."""


def run(config: Config) -> dict[str, Any]:
    if config.batch_size is not None:
        checks.at_least_one("--batch-size", config.batch_size)
    files.writable(config.out / "openood")
    benchmark = BENCHMARKS[config.benchmark]
    sets, missing = _open(config, benchmark)
    networks = _networks(config, benchmark, missing)
    sources = kept.as_sources(sets)
    options = {
        k: v
        for k, v in dataclasses.asdict(config).items()
        if k not in ("root", "checkpoints")
    }
    runs, loaded = {}, {}
    for name, path in networks.items() if "test" in sets else ():
        print(f"{name}: {path}", flush=True)
        model, variables = torch_weights.load(
            path, benchmark.model, mean=benchmark.mean, std=benchmark.std
        )
        _check_classes(path, model, benchmark)
        loaded[name] = checkpoint.tree_digest(variables)
        runs[name] = measured.measure(
            *(sets, (*benchmark.near, *benchmark.far), model, variables),
            benchmark.num_classes,
            noise=config.noise,
            seed=config.seed,
            batch_size=config.batch_size,
            epsilons=config.epsilons,
            files=_kept(config, {**options, "network": loaded[name]}, sources),
        )
    tables = to_sheets(config.benchmark, runs, missing)
    if not runs:
        sheets.show(tables)
        raise InputError(
            "nothing could be run, see above; images, lists and networks are what "
            "OpenOOD's scripts/download get"
        )
    there = results.place(
        *(config.out, "openood", f"{config.benchmark}-{config.seed}"),
        {**options, "networks": loaded},
        sources,
        measured_by=measured,
    )
    facts = to_facts(config, runs, missing)
    results.leave(
        *(there, facts, to_records(config.benchmark, runs), tables, {}),
        {
            f"{name}/{of}/{method}": s
            for name, run in runs.items()
            for of, scores in run.scores.items()
            for method, s in scores.items()
        },
    )
    return facts


# ---- what there is ------------------------------------------------------------------


def _open(
    config: Config, benchmark: Benchmark
) -> tuple[dict[str, ImageStream], dict[str, str]]:
    """The sets that are there, and why others are not."""
    found, missing = {}, {}
    for name, listed in benchmark.sets().items():
        limits = (config.limit, config.train_limit if name == "train" else None)
        try:
            found[name] = open_list(
                *(config.root, benchmark, listed),
                batch_size=config.batch_size or LEAST,
                limit=min((n for n in limits if n is not None), default=None),
                seed=config.seed,
            )
        except InputError as error:
            missing[name] = f"{name}: {error}"
    return found, missing


def _networks(
    config: Config, benchmark: Benchmark, missing: dict[str, str]
) -> dict[str, Path]:
    """Name → file, by the number of the training run."""
    where = config.checkpoints
    if where is None and benchmark.checkpoints:
        root = located(config.root)
        roots = (root / "results", root.parent / "results")
        folders = [folder / benchmark.checkpoints for folder in roots]
        where = next((folder for folder in folders if folder.is_dir()), folders[0])
    if where is None:
        missing["networks"] = "networks: give torchvision's ResNet-50 by --checkpoints"
        return {}
    where = located(where)
    if where.is_file():
        return {"s0": where}
    runs = [
        p for p in where.glob("s*/best.ckpt") if re.fullmatch(r"s\d+", p.parent.name)
    ]
    if not runs:
        missing["networks"] = f"networks: no s0/best.ckpt, s1/best.ckpt, … in {where}"
    runs.sort(key=lambda path: int(path.parent.name[1:]))
    return {path.parent.name: path for path in runs}


def _check_classes(path: Path, model: Any, benchmark: Benchmark) -> None:
    if model.num_classes != benchmark.num_classes:
        raise InputError(
            f"{path}: tells {model.num_classes} classes apart, expected "
            f"{benchmark.num_classes}; is it the network of another benchmark?"
        )


def _kept(
    config: Config, options: dict[str, Any], sources: dict[str, ArrayDataset]
) -> dict[str, Path]:
    """Where a network's scores of each set are, by that set and those of the fits."""
    benchmark = BENCHMARKS[config.benchmark]
    outside = (*benchmark.near, *benchmark.far)
    there = results.place(
        *(config.out, "scores", f"openood-{config.benchmark}-{config.seed}"),
        options,
        {name: data for name, data in sources.items() if name not in outside},
        measured_by=measured,
    )
    folder = files.writable(there.path)
    return {name: folder / f"{name}-{d.sha256[:16]}.npz" for name, d in sources.items()}


# ---- tables -------------------------------------------------------------------------


def groups(benchmark: Benchmark) -> dict[str, tuple[str, ...]]:
    """Rows of OpenOOD's evaluator: each set, and the mean of each group."""
    rows = {}
    for title, sets in (("nearood", benchmark.near), ("farood", benchmark.far)):
        rows |= {name: (name,) for name in sets} | {title: tuple(sets)}
    return rows


def values(run: Measured, method: str, sets: Sequence[str]) -> dict[str, float] | None:
    """The mean over these sets of each metric; None if one of them was not run."""
    of_sets = [run.metrics.get(name, {}).get(method) for name in sets]
    if None in of_sets:
        return None
    return {
        column: float(np.mean([getattr(m, field) for m in of_sets]))
        for column, field in COLUMNS.items()
    }


def cell(numbers: Sequence[float]) -> str:
    """Mean ± deviation over runs in %, as by OpenOOD: of n, not of n − 1."""
    if not numbers:
        return NOT_RUN
    mean = f"{100 * np.mean(numbers):.2f}"
    return mean if len(numbers) == 1 else f"{mean} ± {100 * np.std(numbers):.2f}"


def to_sheets(
    name: str, runs: dict[str, Measured], missing: dict[str, str]
) -> list[Sheet]:
    """As the leaderboard ranks methods, and as the evaluator tells them."""
    rows = groups(BENCHMARKS[name])

    def of(method: str, row: str, column: str) -> str:
        found = [values(run, method, rows[row]) for run in runs.values()]
        return NOT_RUN if None in found else cell([v[column] for v in found if v])

    accuracy = cell([run.accuracy for run in runs.values()])
    shown = [(row, column) for column in ("AUROC", "FPR@95") for row in _MEANS]
    board = [
        [method, *(of(method, row, column) for row, column in shown), accuracy]
        for method in METHODS
    ]
    headings = [f"{_MEANS[row]} {column}" for row, column in shown]
    each = [
        [method, row, *(of(method, row, column) for column in COLUMNS), accuracy]
        for method in METHODS
        for row in rows
    ]
    notes = [
        f"In %, {len(runs)} networks; mean ± standard deviation. OoD is positive, but "
        "in AUPR_IN: FPR@95 is the share of in-distribution images that are taken for "
        "OoD where 95 % of OoD ones are found.",
        f"{measured.LABELLED}: ε and weights are chosen on OpenOOD's OoD validation "
        f"set, as KNN's k is. All others see no OoD image: {measured.LABEL_FREE} sees "
        "noise, and in-distribution validation images.",
        *dict.fromkeys(
            f"{method}: {NOT_RUN}: {why}" if method in METHODS else f"{method}: {why}"
            for run in runs.values()
            for method, why in run.not_run.items()
        ),
        *(f"{NOT_RUN}: {why}" for why in missing.values()),
    ]
    title = f"OpenOOD 1.5, {name}"
    return [
        Sheet(title, ["method", *headings, "ID accuracy"], board, notes),
        Sheet(f"{title}, each set", ["method", "set", *COLUMNS, "ACC"], each, []),
    ]


_MEANS = {"nearood": "near-OoD", "farood": "far-OoD"}
_RECORDED = {"AUPR_IN": "AUPR in", "AUPR_OUT": "AUPR out"}


def to_records(name: str, runs: dict[str, Measured]) -> list[Record]:
    found = []
    for run_name, run in runs.items():
        keys = {"benchmark": name, "network": run_name}
        found += records({"accuracy": run.accuracy}, **keys)
        for method in METHODS:
            for row, sets in groups(BENCHMARKS[name]).items():
                of_row = values(run, method, sets) or {}
                told = {_RECORDED.get(k, k): v for k, v in of_row.items()}
                found += records(told, method=method, condition=row, **keys)
    return found


def to_facts(
    config: Config, runs: dict[str, Measured], missing: dict[str, str]
) -> dict[str, Any]:
    return {
        "benchmark": config.benchmark,
        "networks": {
            name: {"accuracy": run.accuracy, **run.chosen, "not run": run.not_run}
            for name, run in runs.items()
        },
        "missing": missing,
    }


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
