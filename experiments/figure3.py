"""Figure 3: are features concentrated near F* before training?

  python -m experiments.figure3

For each layer of networks as they are drawn: root mean squared ‖F_0(x) − F*‖ / ‖F*‖
and the mean cosine with F*, for in-distribution images, OoD images and noise, beside
the same of the pixels themselves, and the AUROC of FSSD before training. Leaves
OUT/figure3/BENCHMARK-NETWORK-DIGEST/ with metrics.json, the table and, for the first
seed, the picture. For a network of yours: analysis.concentration.
"""

import dataclasses
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console

import fssd_jax
from analysis import pca, plots
from analysis.concentration import concentration
from experiments import common, pages, tables
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.features import pool
from fssd_jax.fssd import distances
from fssd_jax.models import MLP, LeNet

NETWORKS = {"lenet": LeNet, "mlp": MLP}
PIXELS, NORMALISED = "pixels", "normalised pixels"
_NOISE, _IND, _OOD = range(300, 303)  # what a key is for


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["mnist", "fmnist", "digits"] = "mnist"
    """mnist: MNIST in-distribution, FashionMNIST OoD, as in the paper's figure."""
    network: Literal["lenet", "mlp"] = "lenet"
    """LeNet, or a three-layer perceptron, as Flax draws their weights."""
    seeds: tuple[int, ...] = tuple(range(10))
    """Of the weights; the images are the same for all."""
    images: int = 1000
    """Of each set, drawn once."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    if config.images < 2 or not config.seeds:
        raise InputError("--images: 2 or more; --seeds: one or more")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair, ood = next(iter(benchmark.ood.items()))
    sets = {
        "in-distribution": draw(benchmark.test.x, config.images, _IND),
        "OoD": draw(ood.x, config.images, _OOD),
    }
    shape = sets["OoD"].shape[1:]
    sets["noise"] = np.asarray(
        fssd_jax.uniform_noise(jax.random.key(_NOISE), config.images, shape)
    )
    model = NETWORKS[config.network](
        benchmark.num_classes, benchmark.mean, benchmark.std
    )
    layers_fn = fssd_jax.make_feature_fn(model)

    mean, std = (
        np.asarray(a, np.float32)[None, None, None]
        for a in (benchmark.mean, benchmark.std)
    )

    def feature_fn(variables, x):
        pixels = ((PIXELS, x), (NORMALISED, (x - mean) / std))
        return OrderedDict([*pixels, *layers_fn(variables, x).items()])

    found = [measure(feature_fn, model, sets, seed) for seed in config.seeds]
    facts = {
        "benchmark": pair,
        "network": repr(model),
        "seeds": config.seeds,
        "images": config.images,
        "data": [benchmark.test.sha256, ood.sha256],
        "layers": {layer: [of[layer] for of in found] for layer in found[0]},
        "versions": common.versions(),
        "device": common.device(),
    }
    own = ("fssd_jax/**/*.py", "analysis/concentration.py", "experiments/figure3.py")
    digest = common.config_digest([dataclasses.asdict(config), common.code_digest(own)])
    folder = common.writable(config.out / "figure3")
    path = folder / f"{pair}-{config.network}-{digest}"
    sheet = to_sheet(facts)
    figure = picture(
        feature_fn, model, sets, config.seeds[0], f"{pair}, before training"
    )
    with common.results_folder(path) as target:
        options = dataclasses.asdict(config)
        pages.leave(target, options, facts, sheet, {"figure3": figure})
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {path}")
    return facts


def draw(x: np.ndarray, count: int, purpose: int) -> np.ndarray:
    order = jax.random.permutation(jax.random.key(purpose), len(x))
    return as_float(x[np.sort(np.asarray(order)[:count])])


def measure(feature_fn, model, sets, seed: int) -> dict[str, dict[str, float]]:
    """layer → "distance, SET", "cosine, SET" and "auroc" of one untrained network."""
    variables = jax.jit(model.init)(jax.random.key(seed), sets["noise"][:1])
    star = fssd_jax.estimate_singularity(feature_fn, variables, sets["noise"])
    found = {
        name: concentration(feature_fn, variables, star, x) for name, x in sets.items()
    }
    fssd = [
        map_batches(_distances, feature_fn, variables, star, sets[name])
        for name in ("in-distribution", "OoD")
    ]
    layers = {}
    for k, layer in enumerate(star.center):
        layers[layer] = {
            f"{field}, {name}": float(getattr(of, field)[k])
            for field in ("distance", "cosine")
            for name, of in found.items()
        }
        layers[layer]["auroc"] = metrics.auroc(*(s[:, k] for s in fssd))
    return layers


def _distances(feature_fn, variables, singularity, x):
    return distances(singularity, feature_fn(variables, x))


def to_sheet(facts: dict[str, Any]) -> tables.Sheet:
    names = list(facts["layers"][PIXELS][0])
    rows = []
    for layer, of_seeds in facts["layers"].items():
        cells = []
        for name in names:
            cells.append(tables.mean_cell([of[name] for of in of_seeds], ".2f"))
        rows.append([layer, *cells])
    return tables.Sheet(
        f"{facts['benchmark']}, before training: how concentrated features are",
        ["layer", *names],
        rows,
        [
            f"{len(facts['seeds'])} networks, {facts['images']:,} images of each set. "
            "Distance: root mean squared ‖F(x) − F*‖ / ‖F*‖, 0 in one point; cosine: "
            "mean, with F*, 1 in one direction. AUROC of FSSD before training: far "
            "from 0.5, the sets are told apart already. The layers see the normalised "
            "pixels.",
        ],
    )


def picture(feature_fn, model, sets, seed: int, title: str):
    """Each layer in its own first two principal components, F* as a star."""
    variables = jax.jit(model.init)(jax.random.key(seed), sets["noise"][:1])
    star = fssd_jax.estimate_singularity(feature_fn, variables, sets["noise"])
    panels = {}
    for layer, center in star.center.items():
        of_layer = partial(_feature, layer)
        features = {
            name: map_batches(of_layer, feature_fn, variables, None, x)
            for name, x in sets.items()
        }
        basis = pca.fit(np.concatenate(list(features.values())))
        panels[layer] = (
            {name: pca.project(basis, f) for name, f in features.items()},
            pca.project(basis, np.asarray(center)[None])[0],
            pca.project(basis, np.zeros_like(center)[None])[0],
        )
    return plots.concentration(panels, title)


def _feature(layer, feature_fn, variables, _, x):
    return pool(feature_fn(variables, x), "flatten")[layer]


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
