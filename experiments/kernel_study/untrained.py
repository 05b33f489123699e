"""Networks as they are drawn, and how near to F* their features are (Figure 3)."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

import fssd_jax
from analysis import pca
from analysis.concentration import each, of_images, with_batch_statistics
from experiments.harness import keys
from experiments.harness.keys import Use
from fssd_jax import metrics, models
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, draw
from fssd_jax.data.folders import load_images
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset, known_splits, load
from fssd_jax.features import make_init_fn
from fssd_jax.fssd import Singularity
from fssd_jax.outputs import FeatureFn, Variables, pool

UNTRAINED_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet": models.LeNet,
    "mlp": models.MLP,
    "cifar_resnet18": models.cifar_resnet18,
    "cifar_resnet34": models.cifar_resnet34,
}
STATISTICS = 256  # in-distribution images, none of them a probe, for BatchNorm
SHOWN = 200  # images of each set in the picture
PIXELS, NORMALISED = "pixels", "normalised pixels"
IND, OOD, NOISE = "in-distribution", "OoD", "noise"
# Untrained networks: as they are, and with BatchNorm's statistics of a batch.
DRAWN, WITH_STATISTICS = "drawn", "with statistics"


class Sets(NamedTuple):
    pair: str
    probes: dict[str, np.ndarray]  # IND, OOD, NOISE → [image, ...]
    others: np.ndarray  # in-distribution, for the statistics of BatchNorm
    data: list[ArrayDataset]  # where they are from


def benchmark_sets(benchmark: Benchmark, images: int) -> Sets:
    """`images` of each set, drawn once."""
    pair, ood = next(iter(benchmark.ood.items()))
    probes = {
        IND: draw(benchmark.test.x, images, keys.fixed(Use.UNTRAINED_IND)),
        OOD: draw(ood.x, images, keys.fixed(Use.UNTRAINED_OOD)),
    }
    others = benchmark.train.x[:STATISTICS]
    data = [benchmark.train, benchmark.test, ood]
    return Sets(pair, _with_noise(probes), as_input(others), data)


def own_sets(inside: Path, outside: str, images: int, data_dir: Path | None) -> Sets:
    """Of folders and files, 32×32 and in colour.

    Args:
      inside: in-distribution images.
      outside: OoD images likewise, or the name of a data set.
      images: of each set.
    """
    colour = partial(load_images, size=32, channels=3)
    count = images + STATISTICS
    ind = colour(inside, limit=count)
    if len(ind.x) < count:
        raise InputError(f"{inside}: {count} images are needed, {len(ind.x)} found")
    # `limit` keeps them in the order of the files, class by class.
    key = keys.fixed(Use.UNTRAINED_IND)
    order = np.asarray(jax.random.permutation(key, count))
    if outside in known_splits():
        ood = load(outside, "test", data_dir)
        chosen = draw(ood.x, images, keys.fixed(Use.UNTRAINED_OOD))
        ood = ood._replace(x=coloured(chosen))
    else:
        ood = colour(outside, limit=images)
    probes = {IND: as_input(ind.x[order[:images]]), OOD: as_input(ood.x)}
    others = as_input(ind.x[order[images:]])
    return Sets(f"{ind.name}-{ood.name}", _with_noise(probes), others, [ind, ood])


def coloured(x: np.ndarray, size: int = 32) -> np.ndarray:
    """Grey images in the middle of black ones of `size`, in three equal colours."""
    around = [(size - side) // 2 for side in x.shape[1:3]]
    ends = [size - side - a for side, a in zip(x.shape[1:3], around, strict=True)]
    wide = list(zip(around, ends, strict=True))
    return np.repeat(np.pad(x, [(0, 0), *wide, (0, 0)]), 3, axis=-1)


def _with_noise(probes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As many images of noise as there are OoD images."""
    count, *shape = probes[OOD].shape
    key = keys.fixed(Use.UNTRAINED_NOISE)
    noise = fssd_jax.uniform_noise(key, count, tuple(shape))
    return {**probes, NOISE: np.asarray(noise)}


class Found(NamedTuple):
    """Of several untrained networks. The kinds are DRAWN and WITH_STATISTICS."""

    layers: list[str]
    # kind → "QUANTITY/SET" → [seed, image, layer]; see `measure`
    measured: dict[str, dict[str, np.ndarray]]
    panels: dict[str, dict[str, pca.Panel]]  # kind → layer → panel, of the first seed


def look(model, sets: Sets, seeds: Sequence[int]) -> Found:
    """Draw a network for each seed, and measure every layer and the pixels."""
    feature_fn = beside_pixels(model)
    measured: dict[str, list] = {}
    panels: dict[str, dict[str, pca.Panel]] = {}
    for seed in seeds:
        for kind, variables in drawn(model, sets, seed).items():
            star = fssd_jax.estimate_singularity(
                feature_fn, variables, sets.probes[NOISE]
            )
            found = measure(feature_fn, variables, star, sets.probes)
            measured.setdefault(kind, []).append(found)
            if kind not in panels:
                panels[kind] = coordinates(feature_fn, variables, star, sets.probes)
    stacked = {
        kind: {name: np.stack([of[name] for of in found]) for name in found[0]}
        for kind, found in measured.items()
    }
    return Found(list(panels[DRAWN]), stacked, panels)


def beside_pixels(model) -> FeatureFn:
    """The layers of a network, and before them what it is given."""
    layers_fn = fssd_jax.make_feature_fn(model)
    mean, std = (
        np.asarray(a, np.float32)[None, None, None] for a in (model.mean, model.std)
    )

    def feature_fn(variables, x):
        given = ((PIXELS, x), (NORMALISED, (x - mean) / std))
        return OrderedDict([*given, *layers_fn(variables, x).items()])

    return feature_fn


def drawn(model, sets: Sets, seed: int) -> dict[str, Variables]:
    """The untrained network as it is, and with statistics if it keeps any."""
    variables = make_init_fn(model)(jax.random.key(seed), sets.others[:1])
    found = {DRAWN: variables}
    if "batch_stats" in variables:
        found[WITH_STATISTICS] = with_batch_statistics(model, variables, sets.others)
    return found


def measure(
    feature_fn: FeatureFn,
    variables: Variables,
    star: Singularity,
    probes: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Of one network, all [image, layer].

    Returns:
      "square/SET": ‖F(x) − F*‖² / ‖F*‖²;
      "cosine/SET": of F(x) and F*;
      "fssd/SET": ‖F(x) − F*‖, of images.
    """
    found = {}
    for name, x in probes.items():
        squares, cosines = each(feature_fn, variables, star, x)
        found |= {f"square/{name}": squares, f"cosine/{name}": cosines}
        if name != NOISE:
            found[f"fssd/{name}"] = map_batches(
                fssd_jax.fssd.fssd, feature_fn, variables, star, x
            )
    return found


def summary(
    found: Mapping[str, np.ndarray], layers: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """layer → for each seed: set → distance and cosine, and the AUROC of FSSD.

    Args:
      found: "QUANTITY/SET" → [seed, image, layer]; see `measure`.
      layers: their names.
    """
    out: dict[str, list] = {layer: [] for layer in layers}
    for i in range(len(found[f"fssd/{IND}"])):
        of_sets = {
            name: of_images(found[f"square/{name}"][i], found[f"cosine/{name}"][i])
            for name in (IND, OOD, NOISE)
        }
        fssd = [found[f"fssd/{name}"][i] for name in (IND, OOD)]
        for k, layer in enumerate(layers):
            facts = {
                "distance": {s: float(of.distance[k]) for s, of in of_sets.items()},
                "cosine": {s: float(of.cosine[k]) for s, of in of_sets.items()},
                "auroc": metrics.auroc(*(size[:, k] for size in fssd)),
            }
            out[layer].append(facts)
    return out


def coordinates(
    feature_fn: FeatureFn,
    variables: Variables,
    star: Singularity,
    probes: Mapping[str, np.ndarray],
) -> dict[str, pca.Panel]:
    """Each layer in its own first two principal components.

    The features themselves would be gigabytes.
    """
    panels = {}
    for layer, center in star.center.items():
        of_layer = partial(_feature, layer)
        features = {
            name: map_batches(of_layer, feature_fn, variables, None, x[:SHOWN])
            for name, x in probes.items()
        }
        basis = pca.fit(np.concatenate(list(features.values())))
        points = {name: pca.project(basis, f) for name, f in features.items()}
        center = np.asarray(center, np.float64)[None]
        at_star = pca.project(basis, center)
        whole, seen = (
            np.square(of - middle).sum(1).mean()
            for of, middle in ((features[NOISE], center), (points[NOISE], at_star))
        )
        panels[layer] = pca.Panel(
            points,
            at_star[0],
            pca.project(basis, np.zeros_like(center))[0],
            share=float(basis.share.sum()),
            of_noise=float(seen / whole) if whole else 0.0,
        )
    return panels


def _feature(layer, feature_fn, variables, _, x):
    return pool(feature_fn(variables, x), "flatten")[layer]
