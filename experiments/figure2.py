"""Figure 2: features and their moving speed (Eq. 3) while a LeNet is trained.

  fssd figure2

MNIST in-distribution, FashionMNIST OoD, uniform noise for F*. At log-spaced steps: the
distance to F*, the displacement from initialisation, and the speed ‖dF/dt‖ of every
probe image, in every layer; the last layer in one fixed basis of principal components.
Leaves OUT/figure2/BENCHMARK-SEED-DIGEST/ with the three pictures, metrics.json and
scores.npz, the data behind them; and the same in motion: report.html has a slider over
the steps, training.gif is for slides. A killed run begins anew: it takes minutes.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from analysis import animation, dynamics_plots, pca
from analysis.dynamics import NOISE
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from experiments.kernel_study import movement
from experiments.kernel_study.movement import LAYER, QUANTITIES, STAR, sets_of
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.models import LeNet

QUARTILES = ("lower quartile", "median", "upper quartile")
SHOWN = 5  # moments, in tables and pictures


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["mnist", "fmnist", "digits"] = "mnist"
    """mnist: MNIST in-distribution, FashionMNIST OoD, as in the paper's figure."""
    epochs: int = 3
    """Of the released recipe (Adadelta). The paper does not say how many it shows."""
    seed: int = 0
    """Of the weights and the order of the images."""
    probes: int = 500
    """Images of each probe set, drawn once."""
    gradient: int = 2000
    """Training images, drawn once, of which −∇L of Eq. (3) is taken; 0: those of the
    step itself."""
    moments: int = 24
    """Log-spaced steps at which to look."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    if min(config.epochs, config.probes, config.moments) < 2:
        raise InputError("--epochs, --probes and --moments: 2 or more each")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    ood = next(iter(benchmark.ood.values()))
    place = results.place(
        config.out,
        "figure2",
        f"{benchmark.name}-{config.seed}",
        dataclasses.asdict(config),
        [benchmark.train, benchmark.test, ood],
        movement,
    )
    arrays = movement.record(
        benchmark,
        config.seed,
        epochs=config.epochs,
        probes=config.probes,
        gradient=config.gradient,
        moments=config.moments,
    )
    facts = {
        "benchmark": benchmark.name,
        "epochs": config.epochs,
        "seed": config.seed,
        "probes": config.probes,
        "gradient": config.gradient,
        "steps": arrays["steps"].tolist(),
        "layers": {
            layer: movement.summary(arrays, k)
            for k, layer in enumerate(LeNet.feature_layers)
        },
    }
    shown = spread_out(len(facts["steps"]), SHOWN)
    last = LeNet.feature_layers.index(LAYER)
    speeds = {name: of[:, :, last] for name, of in sets_of(arrays, "speed").items()}
    moving = animation.from_arrays(
        *(LAYER, arrays["steps"], sets_of(arrays, LAYER), arrays[STAR], speeds)
    )
    results.leave(
        place,
        facts,
        to_records(facts),
        to_sheets(facts, shown),
        draw_figures(facts, arrays, shown, title_of(benchmark.test.name, ood.name)),
        arrays,
        extras={
            animation.FILE: partial(
                files.save_arrays, arrays=animation.to_arrays(moving)
            ),
            "training.gif": partial(animation.save_gif, of=moving),
        },
    )
    return facts


def spread_out(moments: int, count: int) -> list[int]:
    """The first, the last, and some between, about evenly."""
    chosen = np.linspace(0, moments - 1, min(count, moments))
    return np.rint(chosen).astype(int).tolist()


def to_records(facts: dict[str, Any]) -> list[Record]:
    """Quartiles of each set; the AUROC has the quantity as its method."""
    keys = {k: facts[k] for k in ("benchmark", "seed")} | {"network": "lenet"}
    numbers = []
    for layer, quantities in facts["layers"].items():
        for name, of in quantities.items():
            quantity = "moved by a step" if name == "moved" else name
            # "moved" is not known at the end.
            for i, step in enumerate(facts["steps"][: len(of["auroc"])]):
                at = {"layer": layer, "step": step, **keys}
                numbers.append(record("AUROC", of["auroc"][i], method=quantity, **at))
                numbers += [
                    record(quantity, value, set=s, statistic=statistic, **at)
                    for s in ("in-distribution", "OoD", NOISE)
                    for statistic, value in zip(QUARTILES, of[s][i], strict=True)
                ]
    return numbers


def to_sheets(facts: dict[str, Any], shown: Sequence[int]) -> list[Sheet]:
    """At the moments shown: the AUROC of each quantity, and its medians."""
    aurocs, medians = [], []
    for layer, of in facts["layers"].items():
        for quantity in QUANTITIES:
            auroc = of[quantity]["auroc"]
            aurocs.append([layer, quantity, *(f"{100 * auroc[i]:.1f}" for i in shown)])
            for name in ("in-distribution", "OoD", NOISE):
                cells = [f"{of[quantity][name][i][1]:.3g}" for i in shown]
                medians.append([layer, quantity, name, *cells])
    steps = [f"step {facts['steps'][i]:,}" for i in shown]
    whole = f"{facts['benchmark']}, seed {facts['seed']}"
    images = f"{facts['probes']} images of each set"
    return [
        Sheet(
            f"{whole}: who moves (Eq. 3), as a detector",
            ["layer", "quantity", *steps],
            aurocs,
            [f"AUROC in %, in-distribution first; {images}."],
        ),
        Sheet(
            f"{whole}: who moves, and how fast (Eq. 3)",
            ["layer", "quantity", "set", *steps],
            medians,
            [f"Medians over {images}."],
        ),
    ]


def title_of(ind: str, ood: str) -> str:
    return f"LeNet on {ind} (in-distribution); OoD: {ood}"


def draw_figures(
    facts: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    shown: Sequence[int],
    title: str,
) -> dict[str, Figure]:
    """name → picture, of the arrays of `movement.record`."""
    speeds = sets_of(arrays, "speed")
    last = {
        facts["steps"][i]: {name: speed[i, :, -1] for name, speed in speeds.items()}
        for i in shown
    }
    return {
        "figure2a": scatter(arrays, shown, title),
        "figure2b": dynamics_plots.speeds(last, LAYER, title),
        "dynamics": dynamics_plots.over_time(
            facts["steps"], facts["layers"], QUANTITIES, title
        ),
    }


def scatter(
    arrays: Mapping[str, np.ndarray], shown: Sequence[int], title: str
) -> Figure:
    """The last layer at some moments, in the basis of the end."""
    features, stars = sets_of(arrays, LAYER), arrays[STAR]
    basis = pca.fit(np.concatenate([f[-1] for f in features.values()]))
    panels = {
        f"step {arrays['steps'][i]:,}": (
            {name: pca.project(basis, f[i]) for name, f in features.items()},
            pca.project(basis, stars[i][None])[0],
        )
        for i in shown
    }
    return dynamics_plots.moments(panels, basis.share, title)


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
