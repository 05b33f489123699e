"""The networks that the methods of a benchmark need, each trained once and kept."""

import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import common
from fssd_jax import recipes
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.models import MLP, LeNet
from fssd_jax.train import Trained

FINETUNE_EPOCHS = 1


class Schedule(NamedTuple):
    """What is trained on, for how long, and where the weights are kept."""

    train: ArrayDataset
    epochs: int  # of the networks of seeds below `full_seeds`
    short_epochs: int  # of every other network
    full_seeds: int
    cache: Path

    def of_seed(self, seed: int) -> int:
        return self.epochs if seed < self.full_seeds else self.short_epochs


def subset(train: ArrayDataset, size: int | None) -> ArrayDataset:
    """The first `size` images in one fixed random order: smaller ones are in larger."""
    if size is None:
        return train
    order = jax.random.permutation(jax.random.key(0), len(train.x))
    return train.select(np.sort(np.asarray(order)[:size]))


def lenet(benchmark: Benchmark, **kwargs) -> LeNet:
    return LeNet(benchmark.num_classes, benchmark.mean, benchmark.std, **kwargs)


def perceptron(benchmark: Benchmark) -> MLP:
    return MLP(benchmark.num_classes, benchmark.mean, benchmark.std)


def dropout_lenet(benchmark: Benchmark, rate: float) -> LeNet:
    """Dropout after the convolutions only, as for the paper's MC dropout."""
    return lenet(benchmark, conv_dropout=(rate, rate), dense_dropout=0.0)


def fit(benchmark: Benchmark, schedule: Schedule, model, seed: int, **kwargs):
    """Train a network on the benchmark, or take it from the cache."""
    return common.trained(
        model,
        schedule.train,
        cache=schedule.cache,
        seed=seed,
        num_classes=benchmark.num_classes,
        save_every=benchmark.save_every,
        **kwargs,
    )


def plain(benchmark: Benchmark, schedule: Schedule, seed: int) -> Trained:
    """The LeNet that most methods share, with snapshots at quarters of its training."""
    epochs = schedule.of_seed(seed)
    quarters = sorted({math.ceil(epochs * k / 4) for k in range(1, 5)})
    return fit(
        benchmark,
        schedule,
        lenet(benchmark),
        seed,
        epochs=epochs,
        snapshots=quarters,
    )


def with_dropout(
    benchmark: Benchmark, schedule: Schedule, seed: int, rate: float
) -> Trained:
    model = dropout_lenet(benchmark, rate)
    return fit(benchmark, schedule, model, seed, epochs=schedule.short_epochs)


def other_architecture(benchmark: Benchmark, schedule: Schedule, seed: int) -> Trained:
    model, epochs = perceptron(benchmark), schedule.of_seed(seed)
    return fit(benchmark, schedule, model, seed, epochs=epochs)


def exposed(
    benchmark: Benchmark,
    schedule: Schedule,
    seed: int,
    outliers: ArrayDataset,
    finetune: bool,
) -> Trained:
    """Outlier Exposure: the plain network trained further, or one from scratch."""
    if not finetune:
        return fit(
            benchmark,
            schedule,
            lenet(benchmark),
            seed,
            epochs=schedule.short_epochs,
            outliers=outliers,
        )
    return fit(
        benchmark,
        schedule,
        lenet(benchmark),
        seed,
        epochs=FINETUNE_EPOCHS,
        outliers=outliers,
        initial=plain(benchmark, schedule, seed).variables,
        recipe=recipes.finetune,
    )
