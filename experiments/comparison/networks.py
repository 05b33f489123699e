"""The networks that the methods of a benchmark need, each trained once and kept."""

import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness import weights
from experiments.harness.keys import Use, fixed
from fssd_jax import recipes
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.models import MLP, BiLSTM, LeNet
from fssd_jax.train import Trained

FINETUNE_EPOCHS = 1
HIDDEN = 64  # units of the BiLSTM in each direction; the paper's has 1,000


class Training(NamedTuple):
    """What is trained on, for how long, and where the weights are kept."""

    benchmark: Benchmark
    images: ArrayDataset  # of the benchmark's training set, all or a part
    epochs: int  # of the networks of seeds below `full_seeds`
    short_epochs: int  # of every other network
    full_seeds: int
    cache: Path

    def epochs_of(self, seed: int) -> int:
        return self.epochs if seed < self.full_seeds else self.short_epochs


def subset(train: ArrayDataset, size: int | None) -> ArrayDataset:
    """The first `size` images in one fixed random order: smaller ones are in larger."""
    if size is None:
        return train
    order = jax.random.permutation(fixed(Use.TRAINING_SUBSET), len(train.x))
    return train.select(np.sort(np.asarray(order)[:size]))


def lenet(benchmark: Benchmark, **kwargs) -> LeNet:
    return LeNet(benchmark.num_classes, benchmark.mean, benchmark.std, **kwargs)


def perceptron(benchmark: Benchmark) -> MLP:
    return MLP(benchmark.num_classes, benchmark.mean, benchmark.std)


def bilstm(benchmark: Benchmark, **kwargs) -> BiLSTM:
    """The paper's network for genomes, with fewer units and its positions."""
    assert benchmark.symbols is not None
    length = benchmark.train.x.shape[1]
    return BiLSTM(
        benchmark.num_classes,
        benchmark.symbols,
        hidden=HIDDEN,
        positions=tuple(round(length * share) for share in (0.4, 0.6, 0.8)),
        **kwargs,
    )


def shared(benchmark: Benchmark) -> LeNet | BiLSTM:
    """The network that most methods share."""
    return bilstm(benchmark) if benchmark.symbols else lenet(benchmark)


def with_rate(benchmark: Benchmark, rate: float) -> LeNet | BiLSTM:
    """For MC dropout: of LeNet after the convolutions only, as the paper has it."""
    if benchmark.symbols:
        return bilstm(benchmark, dropout=rate)
    return lenet(benchmark, conv_dropout=(rate, rate), dense_dropout=0.0)


def fit(training: Training, model, seed: int, **kwargs) -> Trained:
    """Train a network on the benchmark, or take it from the cache."""
    benchmark = training.benchmark
    recipe = kwargs.pop("recipe", recipes.lstm if benchmark.symbols else recipes.lenet)
    return weights.trained(
        model,
        training.images,
        cache=training.cache,
        seed=seed,
        num_classes=benchmark.num_classes,
        save_every=benchmark.save_every,
        recipe=recipe,
        **kwargs,
    )


def plain(training: Training, seed: int) -> Trained:
    """The network of most methods, with snapshots at quarters of its training."""
    epochs = training.epochs_of(seed)
    quarters = sorted({math.ceil(epochs * k / 4) for k in range(1, 5)})
    model = shared(training.benchmark)
    return fit(training, model, seed, epochs=epochs, snapshots=quarters)


def with_dropout(training: Training, seed: int, rate: float) -> Trained:
    model = with_rate(training.benchmark, rate)
    return fit(training, model, seed, epochs=training.short_epochs)


def other_architecture(training: Training, seed: int) -> Trained:
    model, epochs = perceptron(training.benchmark), training.epochs_of(seed)
    return fit(training, model, seed, epochs=epochs)


def exposed(
    training: Training, seed: int, outliers: ArrayDataset, finetune: bool
) -> Trained:
    """Outlier Exposure: the plain network trained further, or one from scratch."""
    model = lenet(training.benchmark)
    if not finetune:
        epochs = training.short_epochs
        return fit(training, model, seed, epochs=epochs, outliers=outliers)
    return fit(
        training,
        model,
        seed,
        epochs=FINETUNE_EPOCHS,
        outliers=outliers,
        initial=plain(training, seed).variables,
        recipe=recipes.finetune,
    )
