"""What the kernel studies share: networks of NTK parametrisation, presets, images."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

import fssd_jax
from analysis.ntk_networks import ConvNet, Perceptron, ResNet
from experiments.harness import keys
from experiments.harness.keys import Use
from fssd_jax import losses
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.inputs import as_input
from fssd_jax.outputs import Variables

# name → (width, num_classes, mean, std) → network
NTK_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "perceptron": Perceptron,
    "convnet": ConvNet,
    "strided": partial(ConvNet, strides=2, max_pool=False),
    "resnet": ResNet,
}
TWINS = ("perceptron", "strided")  # those with an infinitely wide twin
GRADIENTS = 2**28  # numbers in the gradients that are held at once: 1 GiB on a side
LOSSES = {"cross_entropy": losses.cross_entropy, "squared": losses.squared}


class Preset(NamedTuple):
    widths: dict[str, tuple[int, ...]]  # of each network
    train: int  # images
    points: int  # images of each test set
    steps: int
    batch_size: int
    noise: int
    kernel: int  # training images between which the kernel's drift is measured
    directions: int  # of the output, for the trace of a wide layer's kernel


PRESETS = {
    "tiny": Preset(
        widths={"perceptron": (8, 32), "convnet": (2, 4), "strided": (2, 4)},
        train=40,
        points=20,
        steps=6,
        batch_size=20,
        noise=30,
        kernel=6,
        directions=4,
    ),
    "small": Preset(
        widths={
            "perceptron": (32, 128, 512, 2048),
            "convnet": (4, 8, 16, 32),
            "strided": (16, 32, 64, 128),
        },
        train=1000,
        points=150,
        steps=800,
        batch_size=100,
        noise=1000,
        kernel=20,
        directions=16,
    ),
    "paper": Preset(
        widths={
            "perceptron": (256, 1024, 4096, 16384),
            "convnet": (8, 16, 32, 64, 128),
            "strided": (16, 64, 256),
        },
        train=60_000,
        points=2000,
        steps=14_000,
        batch_size=64,
        noise=1000,
        kernel=100,
        directions=64,
    ),
}


class Setup(NamedTuple):
    """What is the same for all seeds and widths."""

    network: str
    loss: str
    rate: float
    nodes: int  # of the quadrature; 0: none
    preset: Preset


class Data(NamedTuple):
    benchmark: Benchmark
    x: np.ndarray  # [train, ...] training images
    y: np.ndarray  # [train]
    points: np.ndarray  # [2 · count, ...]: in-distribution, then as many OoD
    noise: jax.Array  # [noise, ...]
    labels: np.ndarray  # [count], classes of the in-distribution points


def draw(
    benchmark: Benchmark, seed: int, *, train: int, points: int, noise: int
) -> Data:
    """Images and noise, drawn by the seed; the points are never trained on.

    Args:
      train: training images.
      points: images of each test set; fewer if one of the two has fewer.
      noise: images of noise.
    """

    def some(use, images, count):
        order = jax.random.permutation(keys.of_seed(seed, use), len(images))
        return np.sort(np.asarray(order)[:count])

    chosen = some(Use.KERNEL_TRAIN, benchmark.train.x, train)
    ind, ood = benchmark.test.x, next(iter(benchmark.ood.values())).x
    # As many of both, because whoever reads the points divides them in the middle.
    count = min(points, len(ind), len(ood))
    inside, outside = (
        some(Use.KERNEL_IND, ind, count),
        some(Use.KERNEL_OOD, ood, count),
    )
    x = as_input(benchmark.train.x[chosen])
    return Data(
        benchmark,
        x,
        benchmark.train.y[chosen],
        np.concatenate([as_input(ind[inside]), as_input(ood[outside])]),
        fssd_jax.uniform_noise(
            keys.of_seed(seed, Use.KERNEL_NOISE), noise, x.shape[1:]
        ),
        benchmark.test.y[inside],
    )


def block_size(variables: Variables, count: int) -> int:
    """Of `count` images, those whose gradients are held at once."""
    parameters = sum(a.size for a in jax.tree.leaves(variables))
    return max(1, min(count, GRADIENTS // parameters))
