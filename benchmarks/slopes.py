"""How time and memory grow with images, layers, ε, classes and parameters.

  python -m benchmarks.slopes            some ten minutes on two cores
  python -m benchmarks.slopes --tiny     seconds; its numbers mean nothing

Each measurement has a process of its own: seconds without compilation, and the most
memory that the process held, of which Python and JAX themselves hold some. A slope is
that of the logarithm over the last factor of four; 1 is linear. Leaves
OUT/benchmarks/slopes.json, .md, .png and .pdf.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from matplotlib.figure import Figure

import fssd_jax
from analysis import plots
from analysis.style import OTHERS, legend_below, page, styled
from benchmarks import results
from benchmarks.watched import watched
from experiments.harness import cli, files, sheets
from fssd_jax import fssd, map_batches
from fssd_jax.detectors import mahalanobis
from fssd_jax.detectors.fssd import fit
from fssd_jax.models import LeNet

WORKER = """
import json, sys
from benchmarks.slopes import work
print(json.dumps(work(*json.loads(sys.argv[1]))))
"""
BATCH, IMAGES, SHAPE, DEPTH = 64, 1024, (28, 28, 1), 16
MOST_GIB, MOST_SECONDS = 16.0, 600.0


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: the two smallest of each."""


class Growth(NamedTuple):
    sizes: tuple[int, ...]
    unit: str
    prepare: Callable[[int], Callable[[], Any]]  # size → what is timed
    most: float  # slope of the time that is no worse than linear, with its noise
    told: str  # what is done


def streamed(count: int, labels: bool = False) -> Iterator[Any]:
    """Batches that are made as they are asked for, so that none are held."""
    rng = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        x = rng.random((size, *SHAPE), np.float32)
        yield (x, np.arange(size) % 10) if labels else x


def network(model, layers=None):
    """(feature_fn, variables), untrained: speed does not depend on the weights."""
    variables = model.init(jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    return fssd_jax.make_feature_fn(model, layers), variables


class Perceptron(nn.Module):
    """Hidden layers "fc1", … of equally many units, and logits."""

    units: int
    depth: int

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        for k in range(self.depth):
            x = nn.relu(nn.Dense(self.units, name=f"fc{k + 1}")(x))
        return nn.Dense(10, name="logits")(x)


def swept(model, count: int, epsilons: int, layers=None) -> Callable[[], Any]:
    of = network(model, layers)
    state = fit(*of, next(streamed(BATCH)))
    values = np.linspace(0, 0.01, epsilons, dtype=np.float32)
    how = {"batch_axis": 1, "epsilons": values}
    return lambda: map_batches(
        fssd.sweep, *of, state.singularity, streamed(count), **how
    )


def scored(model, count: int, layers: list[str]) -> Callable[[], Any]:
    of = network(model, layers)
    state = fit(*of, next(streamed(BATCH)))
    score = fssd_jax.detectors.fssd.score
    return lambda: map_batches(score, *of, state, streamed(count))


def fitted(count: int) -> Callable[[], Any]:
    of = network(LeNet(), ["fc1", "logits"])
    estimate = partial(mahalanobis.estimate_gaussians, *of, num_classes=10)
    return lambda: estimate(streamed(count, labels=True), None)


def compared(classes: int) -> Callable[[], Any]:
    """Mahalanobis' distance of 512 features to so many classes, with its gradient."""
    of = network(Perceptron(512, 1), ["fc1"])
    y = np.arange(max(2048, 2 * classes)) % classes  # more than features
    x = np.random.default_rng(0).random((len(y), *SHAPE), np.float32)
    gaussians = mahalanobis.estimate_gaussians(*of, x, y, classes)
    state = mahalanobis.fit(*of, gaussians, x)
    return lambda: map_batches(mahalanobis.score, *of, state, streamed(IMAGES))


def some_layers(count: int) -> Callable[[], Any]:
    """So many layers of one network, the last always among them."""
    chosen = [f"fc{k}" for k in range(DEPTH // count, DEPTH + 1, DEPTH // count)]
    # The feature is before the ReLU, which does not matter for what it costs.
    return swept(Perceptron(256, DEPTH), IMAGES, 4, chosen)


GROWTHS = {
    "images, sweep": Growth(
        (256, 512, 1024, 2048, 4096),
        "images",
        lambda n: swept(LeNet(), n, 4),
        1.15,
        "LeNet, four layers, four ε",
    ),
    "images, fit": Growth(
        (1024, 2048, 4096, 8192, 16384),
        "images",
        fitted,
        1.15,
        "Mahalanobis' means and covariance, LeNet's last two layers",
    ),
    "layers": Growth(
        (1, 2, 4, 8, 16),
        "layers",
        some_layers,
        1.15,
        f"sweep over four ε, so many layers of a perceptron of {DEPTH}",
    ),
    "values of ε": Growth(
        (2, 4, 8, 16, 32),
        "ε",
        lambda n: swept(LeNet(), 256, n),
        1.15,
        "sweep, LeNet, four layers, 256 images",
    ),
    "classes": Growth(
        (64, 256, 1024, 4096),
        "classes",
        compared,
        1.15,
        f"Mahalanobis, 512 features, {IMAGES} images",
    ),
    "parameters": Growth(
        (128, 256, 512, 1024, 2048),
        "units a layer",
        lambda n: scored(Perceptron(n, 3), IMAGES, ["fc1", "fc2", "fc3", "logits"]),
        2.15,
        "plain score, a perceptron of three hidden layers: its parameters are the "
        "square of its units",
    ),
}


def work(name: str, size: int) -> dict[str, float]:
    """Of one measurement, in its own process: the second of two is timed."""
    cli.start()
    run = GROWTHS[name].prepare(size)
    run()
    start = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start}


def run(config: Config) -> dict[str, Any]:
    folder = files.writable(config.out / "benchmarks")
    found: dict[str, Any] = {"growths": {}}
    for name, growth in GROWTHS.items():
        found["growths"][name] = []
        for size in growth.sizes[: 2 if config.tiny else None]:
            told = watched(WORKER, [name, size], MOST_GIB, MOST_SECONDS)
            found["growths"][name].append({"size": size, **told})
            print(f"{name}, {size}: {told}", flush=True)
    found |= results.machine()
    results.leave(folder, "slopes", found, to_sheet(found))
    plots.save(picture(found), folder / "slopes")
    return found


def slope(points: list[dict[str, Any]], of: str) -> float | None:
    """Of the logarithms, over the last factor of four; None where one was stopped."""
    last = [p for p in points if 4 * p["size"] >= points[-1]["size"]]
    if any(of not in p for p in last):
        return None
    x, y = (np.log([p[key] for p in last]) for key in ("size", of))
    return float(np.polyfit(x, y, 1)[0])


def missed(found: dict[str, Any]) -> list[str]:
    """Growths whose time is worse than linear, or whose memory grows with images."""
    names = []
    for name, points in found["growths"].items():
        steep = slope(points, "seconds")
        if steep is None:
            names.append(f"{name}: stopped")
        elif steep > GROWTHS[name].most:
            names.append(f"{name}: time grows by a slope of {steep:.2f}")
        held = [p["peak_gib"] for p in points]
        if "images" in name and held[-1] > 1.2 * held[0]:
            names.append(f"{name}: memory grows")
    return names


def to_sheet(found: dict[str, Any]) -> sheets.Sheet:
    rows = []
    for name, points in found["growths"].items():
        growth, ends = GROWTHS[name], (points[0], points[-1])
        steep = slope(points, "seconds")
        rows.append(
            [
                name,
                growth.told,
                " to ".join(f"{p['size']:,}" for p in ends) + f" {growth.unit}",
                " to ".join(_seconds(p) for p in ends),
                "stopped" if steep is None else f"{steep:.2f}",
                " to ".join(f"{p['peak_gib']:.2f}" for p in ends) + " GiB",
            ]
        )
    return sheets.Sheet(
        "How time and memory grow",
        ["with", "what is done", "from, to", "time", "slope", "memory"],
        rows,
        ["Slope: of the logarithms, over the last factor of four; 1 is linear."],
    )


def _seconds(point: dict[str, Any]) -> str:
    return f"{point['seconds']:.2f} s" if "seconds" in point else "stopped"


@styled
def picture(found: dict[str, Any]) -> Figure:
    figure, axes = page(1, 2, 2.6)
    times, memory = axes[0]
    for (name, points), style in zip(
        found["growths"].items(), itertools.cycle(OTHERS), strict=False
    ):
        x = np.array([p["size"] for p in points]) / points[0]["size"]
        for ax, key in ((times, "seconds"), (memory, "peak_gib")):
            y = np.array([p.get(key, np.nan) for p in points])
            ax.plot(x, y / y[0], **style.of_line(), label=name)
    for ax, what in ((times, "time"), (memory, "memory")):
        ax.set(xscale="log", yscale="log", xlabel="size, over the smallest")
        ax.set_ylabel(f"{what}, over the smallest")
        ends = np.array(ax.get_xlim())
        ax.plot(ends, ends, color="0.6", linestyle=":", linewidth=1, label="linear")
    legend_below(figure, times, 4)
    return figure


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=missed)


if __name__ == "__main__":
    sys.exit(main())
