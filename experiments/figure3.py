"""Figure 3: are features concentrated near F* before training?

  python -m experiments.figure3
  python -m experiments.figure3 --network cifar_resnet34 --seeds 0 1 2 --images 500 \\
      --in cifar10/test --ood fashion_mnist

For each layer of networks as they are drawn: root mean squared ‖F_0(x) − F*‖ / ‖F*‖
and the mean cosine with F*, for in-distribution images, OoD images and noise, beside
the same of the pixels themselves, and the AUROC of FSSD before training. A network with
BatchNorm is looked at twice: as it is drawn, when BatchNorm does nothing, and with the
statistics of in-distribution images, as training sees it at its first step. Leaves
OUT/figure3/BENCHMARK-NETWORK-DIGEST/ with metrics.json, the table and, for the first
seed, the picture. For a network of yours: analysis.concentration.
"""

import dataclasses
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

import fssd_jax
from analysis import pca, plots
from analysis.concentration import concentration, with_batch_statistics
from experiments import common, pages, tables
from fssd_jax import metrics, models
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark
from fssd_jax.data.folders import load_images
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.data.sources import SPLITS, load
from fssd_jax.features import Variables, pool
from fssd_jax.fssd import distances
from fssd_jax.models import MLP, LeNet

NETWORKS = {
    "lenet": LeNet,
    "mlp": MLP,
    "cifar_resnet18": models.cifar_resnet18,
    "cifar_resnet34": models.cifar_resnet34,
}
COLOUR = ("cifar_resnet18", "cifar_resnet34")
STATISTICS = 256  # in-distribution images, none of them a probe, for BatchNorm
SHOWN = 200  # images of each set in the picture
PIXELS, NORMALISED = "pixels", "normalised pixels"
_NOISE, _IND, _OOD = range(300, 303)  # what a key is for


class Sets(NamedTuple):
    pair: str
    probes: dict[str, np.ndarray]  # "in-distribution", "OoD", "noise"
    others: np.ndarray  # in-distribution, for the statistics of BatchNorm
    data: list[str]  # digests


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["mnist", "fmnist", "digits"] = "mnist"
    """mnist: MNIST in-distribution, FashionMNIST OoD, as in the paper's figure."""
    network: Literal["lenet", "mlp", "cifar_resnet18", "cifar_resnet34"] = "lenet"
    """LeNet, a three-layer perceptron, or a ResNet for 32×32 colour images, for which
    --in and --ood are needed."""
    width: int | None = None
    """Of a ResNet; by default 64."""
    ind: Annotated[Path | None, tyro.conf.arg(name="in")] = None
    """In-distribution images in place of the benchmark's: a folder, .npz or .npy."""
    ood: str | None = None
    """OoD images likewise, or the name of a data set, such as fashion_mnist, whose
    images are put on black and repeated in every colour."""
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
    colour = config.network in COLOUR
    if colour != (config.ind is not None) or colour != (config.ood is not None):
        raise InputError(
            "--in and --ood belong to the networks for colour images, and these need "
            "them: a folder of images each, such as CIFAR-10's"
        )
    if config.width is not None and not colour:
        raise InputError("--width is for the ResNets")
    if colour:
        model = NETWORKS[config.network](width=config.width or 64)
        sets = own_sets(config)
    else:
        benchmark = load_benchmark(config.benchmark, config.data_dir)
        model = NETWORKS[config.network](
            benchmark.num_classes, benchmark.mean, benchmark.std
        )
        sets = benchmark_sets(config, benchmark)
    layers_fn = fssd_jax.make_feature_fn(model)

    mean, std = (
        np.asarray(a, np.float32)[None, None, None] for a in (model.mean, model.std)
    )

    def feature_fn(variables, x):
        pixels = ((PIXELS, x), (NORMALISED, (x - mean) / std))
        return OrderedDict([*pixels, *layers_fn(variables, x).items()])

    found, figures = [], {}
    for seed in config.seeds:
        found.append({})
        for kind, variables in drawn(model, sets, seed).items():
            found[-1] |= {
                f"{layer}{kind}": of
                for layer, of in measure(feature_fn, variables, sets.probes).items()
                if not kind or layer not in (PIXELS, NORMALISED)
            }
            if seed == config.seeds[0]:
                name = "figure3-statistics" if kind else "figure3"
                title = f"{sets.pair}, before training{kind}"
                figures[name] = picture(feature_fn, variables, sets.probes, title)
    facts = {
        "benchmark": sets.pair,
        "network": repr(model),
        "seeds": config.seeds,
        "images": {name: len(x) for name, x in sets.probes.items()},
        "data": sets.data,
        "layers": {layer: [of[layer] for of in found] for layer in found[0]},
        "versions": common.versions(),
        "device": common.device(),
    }
    own = ("fssd_jax/**/*.py", "analysis/concentration.py", "experiments/figure3.py")
    options = dataclasses.asdict(config)
    digest = common.config_digest([options, sets.data, common.code_digest(own)])
    folder = common.writable(config.out / "figure3")
    path = folder / f"{sets.pair}-{config.network}-{digest}"
    sheet = to_sheet(facts)
    with common.results_folder(path) as target:
        pages.leave(target, options, facts, sheet, figures)
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {path}")
    return facts


def benchmark_sets(config: Config, benchmark: Benchmark) -> Sets:
    pair, ood = next(iter(benchmark.ood.items()))
    probes = {
        "in-distribution": draw(benchmark.test.x, config.images, _IND),
        "OoD": draw(ood.x, config.images, _OOD),
    }
    return _with_noise(
        pair, probes, benchmark.train.x[:STATISTICS], [benchmark.test, ood]
    )


def own_sets(config: Config) -> Sets:
    """Of folders and files, 32×32 and in colour."""
    assert config.ind is not None  # run has looked
    assert config.ood is not None
    images = partial(load_images, size=32, channels=3)
    count = config.images + STATISTICS
    ind = images(config.ind, limit=count)
    if len(ind.x) < count:
        raise InputError(f"{config.ind}: {count} images are needed, {len(ind.x)} found")
    # `limit` keeps them in the order of the files, class by class.
    order = np.asarray(jax.random.permutation(jax.random.key(_IND), count))
    if config.ood in SPLITS:
        ood = load(config.ood, "test", config.data_dir)
        ood = ood._replace(x=coloured(draw(ood.x, config.images, _OOD)))
    else:
        ood = images(config.ood, limit=config.images)
    probes = {
        "in-distribution": as_float(ind.x[order[: config.images]]),
        "OoD": as_float(ood.x),
    }
    others = as_float(ind.x[order[config.images :]])
    return _with_noise(f"{ind.name}-{ood.name}", probes, others, [ind, ood])


def coloured(x: np.ndarray, size: int = 32) -> np.ndarray:
    """Grey images in the middle of black ones of `size`, in three equal colours."""
    around = [(size - side) // 2 for side in x.shape[1:3]]
    ends = [size - side - a for side, a in zip(x.shape[1:3], around, strict=True)]
    wide = list(zip(around, ends, strict=True))
    return np.repeat(np.pad(x, [(0, 0), *wide, (0, 0)]), 3, axis=-1)


def _with_noise(pair: str, probes, others, data) -> Sets:
    images = probes["OoD"]
    key = jax.random.key(_NOISE)
    noise = fssd_jax.uniform_noise(key, len(images), images.shape[1:])
    return Sets(
        pair,
        {**probes, "noise": np.asarray(noise)},
        as_float(others),
        [d.sha256 for d in data],
    )


def drawn(model, sets: Sets, seed: int) -> dict[str, Variables]:
    """The untrained network as it is, and with statistics if it keeps any."""
    variables = jax.jit(model.init)(jax.random.key(seed), sets.others[:1])
    found = {"": variables}
    if "batch_stats" in variables:
        name = ", with statistics"
        found[name] = with_batch_statistics(model, variables, sets.others)
    return found


def draw(x: np.ndarray, count: int, purpose: int) -> np.ndarray:
    order = jax.random.permutation(jax.random.key(purpose), len(x))
    return as_float(x[np.sort(np.asarray(order)[:count])])


def measure(feature_fn, variables, sets) -> dict[str, dict[str, float]]:
    """layer → "distance, SET", "cosine, SET" and "auroc" of one untrained network."""
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
            f"{len(facts['seeds'])} networks; images: "
            + ", ".join(f"{n:,} {name}" for name, n in facts["images"].items())
            + ". "
            "Distance: root mean squared ‖F(x) − F*‖ / ‖F*‖, 0 in one point; cosine: "
            "mean, with F*, 1 in one direction. AUROC of FSSD before training: far "
            "from 0.5, the sets are told apart already. The layers see the normalised "
            "pixels.",
        ],
    )


def picture(feature_fn, variables, sets, title: str):
    """Each layer in its own first two principal components, F* as a star."""
    star = fssd_jax.estimate_singularity(feature_fn, variables, sets["noise"])
    panels = {}
    for layer, center in star.center.items():
        of_layer = partial(_feature, layer)
        features = {
            name: map_batches(of_layer, feature_fn, variables, None, x[:SHOWN])
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
