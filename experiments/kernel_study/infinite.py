"""Scores without training: how far infinitely wide networks would move an image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from analysis import infinite_width, pixels
from experiments.kernel_study.setting import NTK_NETWORKS, TWINS, Data, draw
from fssd_jax import metrics
from fssd_jax.data.benchmarks import Benchmark

LENGTHS = (0.25, 0.5, 1.0)  # of the RBF, in medians of the distance between images
# At one time: E‖Δ‖², its part that is owed to the labels, and E‖Δ‖² / E‖f_0‖².
MEASURES = ("movement", "labels", "relative")


def of_seeds(
    benchmark: Benchmark,
    seeds: Sequence[int],
    times: Sequence[float],
    *,
    train: int,
    points: int,
) -> dict[str, np.ndarray]:
    """Scores of the points [seed, image]; higher = in-distribution.

    Args:
      seeds: of the choice of images.
      times: ηt.
      train: training images.
      points: of each test set; the first half of the images is in-distribution.

    Returns:
      By the path of `of_network` below the network's name, such as
      "perceptron/movement/100", or of `without_network`, such as "brightness".
    """
    found = []
    for seed in seeds:
        data = draw(benchmark, seed, train=train, points=points, noise=1)
        scores = without_network(data, benchmark.num_classes)
        for name in TWINS:
            print(f"seed {seed}: {name}", flush=True)
            network = NTK_NETWORKS[name](
                1, benchmark.num_classes, benchmark.mean, benchmark.std
            )
            scores[name] = of_network(network, data, times)
        found.append(flatten_dict(scores, sep="/"))
    return {name: np.stack([of[name] for of in found]) for name in found[0]}


def of_network(network, data: Data, times: Sequence[float]) -> dict[str, Any]:
    """Of one twin: measure → time → [image]; "initial", no movement at all: [image]."""
    train = infinite_width.kernels(network, data.x)
    targets = infinite_width.centred_one_hot(data.y, network.num_classes)
    kernel = infinite_width.kernels(network, data.points, data.x).ntk
    initial = infinite_width.initial_variance(network, data.points)
    scores: dict[str, Any] = {measure: {} for measure in MEASURES}
    readouts = infinite_width.readouts(train, targets, list(times))
    for time, readout in zip(times, readouts, strict=True):
        squares = infinite_width.expected_squared_displacement(readout, kernel)
        relative = squares.total / (network.num_classes * initial)
        at = f"{time:g}"
        scores["movement"][at] = squares.total
        scores["labels"][at] = squares.labels
        scores["relative"][at] = relative
    return {"initial": initial, **scores}


def without_network(data: Data, num_classes: int) -> dict[str, Any]:
    """Rivals that see the same training images, and no network's kernel.

    "nearest" and "brightness": [image]; "rbf_regression": length → [image].
    """
    targets = infinite_width.centred_one_hot(data.y, num_classes)
    return {
        "nearest": pixels.nearest(data.x, data.points),
        "brightness": pixels.brightness(data.points),
        "rbf_regression": {
            f"{length:g}": pixels.rbf_regression(data.x, targets, data.points, length)
            for length in LENGTHS
        },
    }


def aurocs(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The paths of `of_seeds` as nested dicts: … → AUROC of each seed."""
    half = next(iter(scores.values())).shape[1] // 2
    found = {
        tuple(name.split("/")): [metrics.auroc(s[:half], s[half:]) for s in of_seeds]
        for name, of_seeds in scores.items()
    }
    return unflatten_dict(found)
