"""A detector without training: how far an infinitely wide network would move x.

  fssd infinite_width

E‖f_t(x) − f_0(x)‖² of the infinitely wide perceptron and convolutional network (Eq. 4
in expectation, squared), its share that is owed to the labels, and the whole relative
to E‖f_0(x)‖²; at several times ηt, all of them shown. Beside them what needs no kernel
of a network: the nearest training image in pixels, RBF kernel regression, brightness.
No method sees an OoD image. Leaves OUT/infinite_width/BENCHMARK-DIGEST/ with
metrics.json, the table, a picture, and every image's scores in scores.npz.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from analysis import kernel_plots
from experiments.harness import cli, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet, mean_cell
from experiments.kernel_study import infinite
from experiments.kernel_study.infinite import MEASURES
from experiments.kernel_study.setting import TWINS
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark

# What a row is called.
TITLES = {
    "movement": "E‖Δ‖²",
    "labels": "‖AY‖², the labels' part",
    "relative": "E‖Δ‖²/E‖f_0‖²",
}
TIMES_SHOWN = 5  # columns on the screen, at most


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["fmnist", "mnist", "digits"] = "fmnist"
    """Which data; of several OoD sets the first is taken."""
    train: int = 1000
    """Training images; an n × n matrix is decomposed."""
    points: int = 500
    """Images of each test set."""
    times: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0, float("inf"))
    """ηt: learning rate × steps of gradient descent on the mean squared loss."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the choice of images; there is nothing else to draw."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    seeds = tuple(dict.fromkeys(config.seeds))  # each of them once
    config = dataclasses.replace(config, seeds=seeds)
    if min(config.train, config.points) < 2 or not config.seeds or not config.times:
        raise InputError(
            "--train and --points: 2 or more; --seeds and --times: one or more"
        )
    if not all(time >= 0 for time in config.times):
        raise InputError("--times: 0 or more each")
    cli.need_neural_tangents()
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    place = results.place(
        config.out,
        "infinite_width",
        benchmark.name,
        dataclasses.asdict(config),
        [benchmark.train, benchmark.test, next(iter(benchmark.ood.values()))],
        infinite,
    )
    scores = infinite.of_seeds(
        benchmark, config.seeds, config.times, train=config.train, points=config.points
    )
    facts = {
        "benchmark": benchmark.name,
        "train": min(config.train, len(benchmark.train.x)),
        "points": len(scores["brightness"][0]) // 2,
        "seeds": config.seeds,
        "auroc": infinite.aurocs(scores),
    }
    sheet = to_sheet(facts, config.times)
    picture = kernel_plots.infinite_width(*named(facts["auroc"]))
    numbers = to_records(facts)
    results.leave(place, facts, numbers, [sheet], {"times": picture}, scores)
    return facts


def to_records(facts: dict[str, Any]) -> list[Record]:
    """The network is a twin; the condition is the time, or the RBF's length."""
    auroc = facts["auroc"]
    found: dict[tuple[str | None, str, str | None], list[float]] = {
        (None, "control: nearest in pixels", None): auroc["nearest"],
        (None, "control: brightness", None): auroc["brightness"],
    }
    for length, of in auroc["rbf_regression"].items():
        found[None, "control: RBF regression", f"ℓ = {length} medians"] = of
    for twin in TWINS:
        found[twin, "initial", None] = auroc[twin]["initial"]
        for measure in MEASURES:
            for time, of in auroc[twin][measure].items():
                found[twin, measure, f"ηt = {time}"] = of
    keys = {"benchmark": facts["benchmark"], "train_images": facts["train"]}
    return [
        record(
            *("AUROC", value),
            network=network, method=method, condition=condition, seed=seed, **keys,
        )
        for (network, method, condition), of in found.items()
        for seed, value in zip(facts["seeds"], of, strict=True)
    ]  # fmt: skip


def named(auroc: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics.json tells, by what a reader calls it.

    Returns:
      Of the twins: name → time → AUROC of each seed; of what has no time: name → that.
    """
    over_time = {
        f"{twin}, {TITLES[measure]}": auroc[twin][measure]
        for twin in TWINS
        for measure in MEASURES
    }
    timeless = {
        "nearest training image": auroc["nearest"],
        "brightness": auroc["brightness"],
        **{f"{twin}, E‖f_0‖²": auroc[twin]["initial"] for twin in TWINS},
        **{
            f"RBF regression, ℓ = {length} medians": of_seeds
            for length, of_seeds in auroc["rbf_regression"].items()
        },
    }
    return over_time, timeless


def to_sheet(facts: dict[str, Any], times: Sequence[float]) -> Sheet:
    """Rows of the twins, a column a time; then the rivals, which have no time."""

    def cell(of_seeds: Sequence[float]) -> str:
        return mean_cell([100 * auroc for auroc in of_seeds], ".1f")

    over_time, timeless = named(facts["auroc"])
    rows = [
        [name, *(cell(of_times[f"{time:g}"]) for time in times)]
        for name, of_times in over_time.items()
    ]
    empty = [""] * (len(times) - 1)
    rows += [[f"control: {n}", cell(of), *empty] for n, of in timeless.items()]
    headings = ["score", *(f"ηt = {time:g}" for time in times)]
    return Sheet(
        f"{facts['benchmark']}: AUROC of the movement at infinite width",
        headings,
        rows,
        [
            f"In %, mean and deviation over {len(facts['seeds'])} choices of "
            f"{facts['train']:,} training images and {facts['points']} of each test "
            "set. Labels used: those of the training images' classes; of OoD none, and "
            "nothing is chosen by them.",
        ],
        tuple(headings[: 1 + TIMES_SHOWN]),
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
