"""From options to a setting: one network, one pair of sets, one protocol."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from analysis.concentration import with_batch_statistics
from experiments.comparison import loaded, networks, protocols
from experiments.comparison.heads import Found, head_of
from experiments.comparison.networks import Shared, Training
from experiments.comparison.protocols import Protocol
from experiments.harness.explored import SETS
from experiments.harness.files import Stopwatch
from experiments.harness.keys import Use, of_seed
from experiments.harness.machine import Machine
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, draw, validation_and_test
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.features import make_feature_fn, make_init_fn, make_logit_fn
from fssd_jax.head import Head
from fssd_jax.memory import LEAST, scoring_batch
from fssd_jax.outputs import FeatureFn, LogitFn, Variables
from fssd_jax.train import Trained, accuracy

PASSES = 32
BROUGHT = "the network was brought, and none is trained"
STATISTICS = 256  # training images, for the BatchNorm of the untrained network


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
    batch_size: int | None = None
    """Images scored at a time, which changes scores but by rounding; protocol released
    keeps its 512. By default 64 on a CPU, on an accelerator what fits in half of its
    memory, 4,096 at most."""
    out: Path = Path("results")
    """Where results and weights go."""
    data_dir: Path | None = None
    """Take the data from this folder's subfolders, and from nowhere else: IDX files in
    fashion_mnist and mnist, class folders of images in cifar10 and svhn_cropped."""
    tiny: bool = False
    """A smoke test of seconds: one epoch, few images. Its numbers mean nothing."""


def check(options: Options) -> None:
    """Raise `InputError` for numbers that could not work."""
    for option in ("epochs", "short_epochs", "train_size", "batch_size"):
        value = getattr(options, option)
        if value is not None and value < 1:
            flag = option.replace("_", "-")
            raise InputError(f"--{flag}: expected 1 or more, got {value}")


class Setting(NamedTuple):
    """All that a method may take. A field that is None is something there is not."""

    feature_fn: FeatureFn
    logit_fn: Any  # a LogitFn; None of features without logits
    variables: Variables
    initial: Variables | None  # of the same network untrained
    num_classes: int
    protocol: Protocol
    noise: jax.Array | np.ndarray  # [samples, ...]
    val_ind: np.ndarray  # images
    val_ood: np.ndarray | None
    test_ind: Any  # an array, or `decoded.Decoded`
    test_ood: Any
    train: ArrayDataset | None
    seed: int
    batch_size: int = LEAST
    training: Training | None = None  # by which the network came about, and others may
    snapshots: dict[int, Variables] | None = None
    outliers: ArrayDataset | None = None  # the auxiliary set, if a method needs it
    tiny: bool = False
    passes: int = PASSES  # an image, of MC dropout
    timed: bool = True  # whether each method's own cost is measured, which compiles it
    pixels: bool | None = True  # whether inputs are images, and no features of such
    symbols: int | None = None  # how many, if inputs are token ids
    channels_last: FeatureFn | None = None  # if `feature_fn` has them elsewhere
    why: Mapping[str, str] = MappingProxyType({})  # field → why there is none
    # "in-distribution", "OoD" → the test sets, whose sources may know what images are.
    tested: Mapping[str, ArrayDataset] = MappingProxyType({})

    @property
    def clean(self) -> bool:
        return self.protocol.ensemble == "clean"

    @property
    def labels(self) -> dict[str, Any]:
        """Fields of `Scored`: what a method is fitted on that takes all it may have."""
        of_ind = f"{len(self.val_ind)} in"
        if self.clean:
            return {"fitted_on": of_ind}
        assert self.val_ood is not None  # all protocols but `clean` choose by it
        with_ood = f"{of_ind}, {len(self.val_ood)} target OoD"
        return {"fitted_on": with_ood, "target_ood": True}

    @property
    def labels_that_choose(self) -> dict[str, Any]:
        """Of a method that uses validation images to choose only: not in `clean`."""
        return {} if self.clean else self.labels

    def under_clean(self) -> "Setting":
        """The same under protocol `clean`, with the noise that it has."""
        clean = protocols.PROTOCOLS["clean"]
        batch_size = self.protocol.batch_size
        return self._replace(protocol=clean._replace(batch_size=batch_size))

    def untrained(self) -> "Setting":
        """The same network as it was before training: a control."""
        return self._replace(variables=self.initial)

    @property
    def averaged_fn(self) -> FeatureFn:
        """For methods that average over all axes but the first and the last."""
        return self.channels_last or self.feature_fn

    @property
    def last_layer(self) -> Found:
        of = self.averaged_fn, self.logit_fn, self.variables, self.test_ind
        return head_of(*of, self.batch_size)

    @property
    def head(self) -> Head | None:
        """A linear last layer, whose weights are known."""
        return self.last_layer.head

    def has(self, fields: tuple[str, ...]) -> bool:
        return all(getattr(self, field) is not None for field in fields)


class Prepared(NamedTuple):
    """A seed's network and what all its pairs share."""

    seed: int
    model: nn.Module
    feature_fn: FeatureFn
    logit_fn: LogitFn
    network: Trained
    initial: Variables  # before training, with BatchNorm's statistics of some images
    training: Training
    brought: bool  # whether nothing was trained, and `training` tells the data only
    accuracy: float  # on all in-distribution test images
    batch_size: int  # of scoring
    seconds: dict[str, float]


def make_training(
    benchmark: Benchmark,
    options: Options,
    network: Shared | None = None,
    machine: Machine | None = None,
) -> Training:
    network = network or networks.network_of(benchmark, tiny=options.tiny)
    own = 1 if options.tiny else network.epochs or benchmark.epochs
    epochs = options.epochs or own
    size = options.train_size or (128 if options.tiny else None)
    return Training(
        benchmark,
        networks.subset(benchmark.train, size),
        epochs,
        options.short_epochs or epochs,
        options.full_seeds,
        options.out / "weights",
        network,
        machine or Machine(),
    )


def prepare(
    benchmark: Benchmark,
    seed: int,
    options: Options,
    network: Shared | None = None,
    brought: loaded.Network | None = None,
    *,
    machine: Machine | None = None,
) -> Prepared:
    """Train the seed's network, or take it from the weights folder, or as brought."""
    clock = Stopwatch()
    training = make_training(benchmark, options, network, machine)
    model = brought.model if brought else training.model()
    with clock("training"):
        if brought:
            trained = _as_trained(brought, training, seed)
        else:
            trained = networks.plain(training, seed)
    feature_fn, logit_fn = make_feature_fn(model), make_logit_fn(model)
    test, size = benchmark.test, options.batch_size
    if size is None:
        one = as_input(training.images.x[:1])
        size = scoring_batch(feature_fn, trained.variables, one)
    return Prepared(
        seed,
        model,
        feature_fn,
        logit_fn,
        trained,
        _with_statistics(model, trained.initial, training.images.x, seed),
        training,
        brought is not None,
        accuracy(logit_fn, trained.variables, test.x, test.y),
        size,
        clock.seconds,
    )


def _as_trained(brought: loaded.Network, training: Training, seed: int) -> Trained:
    """A network whose beginning is not known is drawn, for the untrained control."""
    initial = brought.initial
    if initial is None:
        one = as_input(training.images.x[:1])
        initial = make_init_fn(brought.model)(jax.random.key(seed), one)
    return Trained(brought.variables, initial, np.zeros((0, 2)), {})


def _with_statistics(model: nn.Module, initial: Variables, x, seed: int) -> Variables:
    """As drawn, BatchNorm is the identity; at the first step of training it is not."""
    if "batch_stats" not in initial:
        return initial
    some = draw(x, STATISTICS, of_seed(seed, Use.BATCH_STATISTICS))
    return with_batch_statistics(model, initial, some)


def make_setting(
    prepared: Prepared,
    pair: str,
    protocol: Protocol,
    outliers: ArrayDataset | None = None,
    *,
    tiny: bool = False,
    why: Mapping[str, str] = MappingProxyType({}),
) -> Setting:
    """Draw noise and split validation from test, by the seed's keys.

    Args:
      prepared: the network.
      pair: of the benchmark.
      protocol: of it, what the setting's data allow.
      outliers: of Outlier Exposure.
      tiny: whether few images are enough.
      why: as of `Setting`.
    """
    benchmark, seed = prepared.training.benchmark, prepared.seed
    count = 20 if tiny else benchmark.validation
    if tiny:
        few = protocol.epsilons[::10][:2]
        protocol = protocol._replace(samples=min(64, protocol.samples), epsilons=few)
    if benchmark.symbols:
        protocol = protocols.of_ids(protocol)
    protocol = protocols.batched(protocol, prepared.batch_size)
    val_ind, test_ind = validation_and_test(
        benchmark, None, count, of_seed(seed, Use.SPLIT_IND)
    )
    use = Use.SPLIT_IND if benchmark.twins else Use.SPLIT_OOD
    val_ood, test_ood = validation_and_test(benchmark, pair, count, of_seed(seed, use))
    if tiny:
        test_ind = test_ind.select(slice(64))
    if tiny or protocol.truncate:
        test_ood = test_ood.select(slice(len(test_ind.x)))
    noise = protocols.draw_noise(
        protocol,
        of_seed(seed, Use.NOISE),
        benchmark.train.x.shape[1:],
        benchmark.mean,
        benchmark.std,
        benchmark.symbols,
    )
    return Setting(
        feature_fn=prepared.feature_fn,
        logit_fn=prepared.logit_fn,
        variables=prepared.network.variables,
        initial=prepared.initial,
        num_classes=benchmark.num_classes,
        protocol=protocol,
        noise=noise,
        val_ind=np.asarray(val_ind.x),
        val_ood=np.asarray(val_ood.x),
        test_ind=test_ind.x,
        test_ood=test_ood.x,
        train=prepared.training.images,
        seed=seed,
        batch_size=prepared.batch_size,
        training=None if prepared.brought else prepared.training,
        snapshots=prepared.network.snapshots,
        outliers=outliers,
        tiny=tiny,
        passes=2 if tiny else PASSES,
        timed=not tiny,
        pixels=None if benchmark.symbols else True,
        symbols=benchmark.symbols,
        why={**why, **({"training": BROUGHT} if prepared.brought else {})},
        tested=dict(zip(SETS, (test_ind, test_ood), strict=True)),
    )
