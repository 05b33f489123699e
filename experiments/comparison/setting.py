"""From options to a setting: the network, its training, noise and images."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import fssd_jax
from experiments import common, networks, protocols
from experiments.networks import Schedule
from experiments.protocols import Protocol
from fssd_jax.data.benchmarks import Benchmark, split_validation
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.features import FeatureFn, LogitFn, Variables
from fssd_jax.models import LeNet
from fssd_jax.train import Trained

# What a key is for; each use folds its own number into the seed's key. The numbers
# differ from those of training, which starts from the same key.
_NOISE, _SPLIT_IND, _SPLIT_OOD = range(100, 103)


@dataclasses.dataclass(frozen=True)
class Options:
    """What all experiments on trained networks can be told."""

    epochs: int | None = None
    """Training epochs; by default the benchmark's own number."""
    short_epochs: int | None = None
    """Epochs of the networks that only some methods need: further members of the deep
    ensemble, dropout rates, Outlier Exposure from scratch. By default as many."""
    full_seeds: int = 3
    """The networks of seeds 0 to FULL_SEEDS − 1 are trained for all epochs; those of
    further seeds for the short ones."""
    train_size: int | None = None
    """Train on so many images, drawn once; by default on all."""
    outliers: Literal["auto", "kmnist", "cns_glyphs"] = "auto"
    """The auxiliary set of Outlier Exposure; auto: the first that can be had."""
    out: Path = Path("results")
    """Where results and weights go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""
    tiny: bool = False
    """A smoke test of seconds: one epoch, few images. Its numbers mean nothing."""


class Setting(NamedTuple):
    """One network, one pair of data sets, one protocol; and how to train others."""

    benchmark: Benchmark
    schedule: Schedule
    protocol: Protocol
    feature_fn: FeatureFn
    logit_fn: LogitFn
    variables: Variables
    initial: Variables
    snapshots: dict[int, Variables]
    noise: jax.Array  # [samples, ...]
    val_ind: np.ndarray  # images
    val_ood: np.ndarray
    test_ind: np.ndarray
    test_ood: np.ndarray
    seed: int
    outliers: ArrayDataset | None  # the auxiliary set, if a method needs it
    tiny: bool

    @property
    def clean(self) -> bool:
        return self.protocol.ensemble == "clean"

    @property
    def labels(self) -> dict[str, Any]:
        """Fields of `Scored`: what a method is fitted on that takes all it may have."""
        of_ind = f"{len(self.val_ind)} in"
        if self.clean:
            return {"fitted_on": of_ind}
        with_ood = f"{of_ind}, {len(self.val_ood)} target OoD"
        return {"fitted_on": with_ood, "target_ood": True}

    def under_clean(self) -> "Setting":
        """The same under protocol `clean`, with the noise that it has."""
        clean = protocols.PROTOCOLS["clean"]
        batch_size = self.protocol.batch_size
        return self._replace(protocol=clean._replace(batch_size=batch_size))


class Prepared(NamedTuple):
    """A seed's network and what all its pairs share."""

    seed: int
    model: LeNet
    feature_fn: FeatureFn
    logit_fn: LogitFn
    network: Trained
    schedule: Schedule
    seconds: dict[str, float]


def make_schedule(benchmark: Benchmark, options: Options) -> Schedule:
    epochs = options.epochs or (1 if options.tiny else benchmark.epochs)
    size = options.train_size or (128 if options.tiny else None)
    return Schedule(
        networks.subset(benchmark.train, size),
        epochs,
        options.short_epochs or epochs,
        options.full_seeds,
        options.out / "weights",
    )


def prepare(benchmark: Benchmark, seed: int, options: Options) -> Prepared:
    """Train the seed's network, or take it from the weights folder."""
    clock = common.Stopwatch()
    schedule = make_schedule(benchmark, options)
    model = networks.lenet(benchmark)
    with clock("training"):
        network = networks.plain(benchmark, schedule, seed)
    return Prepared(
        seed,
        model,
        fssd_jax.make_feature_fn(model),
        fssd_jax.make_logit_fn(model),
        network,
        schedule,
        clock.seconds,
    )


def make_setting(
    benchmark: Benchmark,
    prepared: Prepared,
    pair: str,
    protocol: Protocol,
    options: Options,
    outliers: ArrayDataset | None = None,
) -> Setting:
    """Draw noise and split validation from test, by the seed's keys."""
    key, tiny = jax.random.key(prepared.seed), options.tiny
    count = 20 if tiny else benchmark.validation
    if tiny:
        few = protocol.epsilons[::10][:2]
        protocol = protocol._replace(samples=min(64, protocol.samples), epsilons=few)
    val_ind, test_ind = split_validation(
        benchmark.test, count, jax.random.fold_in(key, _SPLIT_IND)
    )
    val_ood, test_ood = split_validation(
        benchmark.ood[pair], count, jax.random.fold_in(key, _SPLIT_OOD)
    )
    if tiny:
        test_ind = test_ind.select(slice(200))
    if tiny or protocol.truncate:
        test_ood = test_ood.select(slice(len(test_ind.x)))
    noise = protocols.draw_noise(
        protocol,
        jax.random.fold_in(key, _NOISE),
        benchmark.train.x.shape[1:],
        benchmark.mean,
        benchmark.std,
    )
    return Setting(
        benchmark=benchmark,
        schedule=prepared.schedule,
        protocol=protocol,
        feature_fn=prepared.feature_fn,
        logit_fn=prepared.logit_fn,
        variables=prepared.network.variables,
        initial=prepared.network.initial,
        snapshots=prepared.network.snapshots,
        noise=noise,
        val_ind=val_ind.x,
        val_ood=val_ood.x,
        test_ind=test_ind.x,
        test_ood=test_ood.x,
        seed=prepared.seed,
        outliers=outliers,
        tiny=tiny,
    )
