"""The networks that the methods of a benchmark need, each trained once and kept."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.harness import weights
from experiments.harness.keys import Use, fixed
from experiments.harness.machine import Machine
from fssd_jax import losses, models, recipes
from fssd_jax.checks import InputError
from fssd_jax.data import crops
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.records import Transform
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.models import (
    MLP,
    BiLSTM,
    LeNet,
    cifar_resnet,
    cifar_resnet20,
    cifar_resnet34,
)
from fssd_jax.models.resnet import ResNet
from fssd_jax.train import Trained

FINETUNE_EPOCHS = 1
HIDDEN, OF_PAPER = 64, 1000  # units of the BiLSTM in each direction, ours and theirs


class Shared(NamedTuple):
    """The network that most methods of a benchmark share, and how it is trained."""

    name: str
    # (benchmark, rate of MC dropout, or None for its own dropout) -> model
    build: Callable[[Benchmark, float | None], nn.Module]
    recipe: Callable
    epochs: int | None = None  # None: as many as the benchmark says
    batch_size: int = 64
    augment: Callable | None = None  # of a batch, with the step
    crop: Transform | None = None  # of each image, where they are decoded as they come
    loss: Callable = losses.cross_entropy
    published: bool = True  # whether published numbers are of such a one


class Training(NamedTuple):
    """What is trained on, for how long, and where the weights are kept."""

    benchmark: Benchmark
    images: ArrayDataset  # of the benchmark's training set, all or a part
    epochs: int  # of the networks of seeds below `full_seeds`
    short_epochs: int  # of every other network
    full_seeds: int
    cache: Path
    network: Shared | None = None  # None: the benchmark's own
    machine: Machine = Machine()

    def epochs_of(self, seed: int) -> int:
        return self.epochs if seed < self.full_seeds else self.short_epochs

    @property
    def shared(self) -> Shared:
        return self.network or network_of(self.benchmark)

    def model(self, rate: float | None = None) -> nn.Module:
        """The network that most methods share, perhaps with dropout for MC dropout."""
        return self.shared.build(self.benchmark, rate)


def subset(train: ArrayDataset, size: int | None) -> ArrayDataset:
    """The first `size` images in one fixed random order: smaller ones are in larger."""
    if size is None:
        return train
    order = jax.random.permutation(fixed(Use.TRAINING_SUBSET), len(train.x))
    return train.select(np.sort(np.asarray(order)[:size]))


def perceptron(benchmark: Benchmark) -> MLP:
    return MLP(benchmark.num_classes, benchmark.mean, benchmark.std)


def bilstm(benchmark: Benchmark, hidden: int = HIDDEN, **kwargs) -> BiLSTM:
    """The paper's network for genomes, with its positions."""
    assert benchmark.symbols is not None
    length = benchmark.train.x.shape[1]
    return BiLSTM(
        benchmark.num_classes,
        benchmark.symbols,
        hidden=hidden,
        positions=tuple(round(length * share) for share in (0.4, 0.6, 0.8)),
        **kwargs,
    )


# ---- which network ------------------------------------------------------------------


def _grey(
    build: Callable[..., nn.Module], benchmark: Benchmark, rate: float | None
) -> nn.Module:
    """With dropout after the convolutions only, as the paper has it."""
    own = benchmark.num_classes, benchmark.mean, benchmark.std
    if rate is None:
        return build(*own)
    return build(*own, conv_dropout=(rate, rate), dense_dropout=0.0)


def _of_ids(hidden: int, benchmark: Benchmark, rate: float | None) -> BiLSTM:
    also = {} if rate is None else {"dropout": rate}
    return bilstm(benchmark, hidden, **also)


def _colour(
    resnet: Callable[..., nn.Module], benchmark: Benchmark, rate: float | None
) -> nn.Module:
    classes, mean, std = benchmark.num_classes, benchmark.mean, benchmark.std
    return resnet(num_classes=classes, mean=mean, std=std, dropout=rate or 0.0)


class Family(NamedTuple):
    """Networks for one sort of images, and how all of them are trained."""

    # The first is the paper's; epochs, where they are not the benchmark's.
    networks: Mapping[str, tuple[Callable[..., nn.Module], int | None]]
    tiny: Callable[..., nn.Module]
    how: Mapping[str, Any]  # fields of `Shared`
    build: Callable = _colour
    published_width: int = 64


GREY = Family(
    {"lenet": (LeNet, None)},
    tiny=partial(LeNet, width=8),
    how={"recipe": recipes.lenet},
    build=_grey,
    published_width=32,
)
# cifar_resnet20 can be trained on a CPU.
CIFAR = Family(
    {"cifar_resnet34": (cifar_resnet34, None), "cifar_resnet20": (cifar_resnet20, 30)},
    tiny=partial(cifar_resnet, (1, 1), width=4, shortcut="pad"),
    how={"recipe": recipes.cifar, "batch_size": 128, "augment": crop_and_flip},
)
IMAGENET = Family(
    {name: (getattr(models, name), None) for name in ("resnet34", "resnet50")},
    tiny=partial(ResNet, (1, 1), width=4),
    how={
        "recipe": recipes.imagenet,
        "batch_size": 256,
        "crop": partial(crops.random_resized_crop, size=224),
    },
)
FACES = Family(
    {"face_resnext50": (models.face_resnext50, None)},
    tiny=partial(ResNet, (1, 1), bottleneck=True, face=True, width=8),
    how={
        "recipe": recipes.face,
        "batch_size": 256,
        "crop": partial(crops.centre_crop, size=112, resize=None),
        "augment": crop_and_flip,
        "loss": losses.cosface,
    },
)
FAMILIES = {"imagenet": IMAGENET, "faces": FACES, None: CIFAR}


def family_of(benchmark: Benchmark) -> Family:
    """The networks of its images; sequences have none of these."""
    return FAMILIES[benchmark.family] if len(benchmark.mean) == 3 else GREY


def network_of(
    benchmark: Benchmark,
    name: str | None = None,
    *,
    width: int | None = None,
    tiny: bool = False,
) -> Shared:
    """By its name; without one, the paper's for the benchmark.

    Args:
      benchmark: whose inputs decide which networks there are.
      name: of the `Family` for such images; or "bilstm".
      width: channels of the first convolution; None: its own number.
      tiny: the smallest of its kind in the place of any.

    Raises:
      InputError: a network for other inputs, or a width of one without convolutions.
    """
    family = family_of(benchmark)
    known = ["bilstm"] if benchmark.symbols else list(family.networks)
    name = name or known[0]
    if name not in known:
        raise InputError(
            f"--network {name}: {benchmark.name} is trained with {' or '.join(known)}"
        )
    if benchmark.symbols:
        if width is not None:
            raise InputError(
                f"--width is of convolutions, and {benchmark.name}'s bilstm has none"
            )
        return _lstm(benchmark, tiny)
    if width is not None and width < 2:
        raise InputError(f"--width: expected 2 or more, got {width}")
    build, epochs = family.networks[name]
    build = family.tiny if tiny else build
    if width is not None:
        build = partial(build, width=width)
    published = width in (None, family.published_width)
    of_paper = name == known[0] and published and not tiny
    return Shared(
        name if width is None else f"{name} of width {width}",
        partial(family.build, build),
        epochs=epochs,
        published=of_paper,
        **family.how,
    )


def _lstm(benchmark: Benchmark, tiny: bool) -> Shared:
    """Of the paper's size for its own benchmark, which takes an accelerator."""
    whole = benchmark.paper is not None and not tiny
    build = partial(_of_ids, OF_PAPER if whole else HIDDEN)
    return Shared("bilstm", build, recipes.lstm, published=whole)


# ---- training -----------------------------------------------------------------------


def fit(training: Training, model, seed: int, **kwargs) -> Trained:
    """Train a network on the benchmark, or take it from the cache.

    By default as the shared network is trained.
    """
    benchmark, shared = training.benchmark, training.shared
    fields = ("recipe", "batch_size", "augment", "crop", "loss")
    how = {name: getattr(shared, name) for name in fields}
    return weights.trained(
        model,
        training.images,
        cache=training.cache,
        seed=seed,
        num_classes=benchmark.num_classes,
        save_every=benchmark.save_every,
        save_every_steps=training.machine.save_every_steps,
        shard_optimiser=training.machine.shard_optimiser,
        **{**how, **kwargs},
    )


def plain(training: Training, seed: int) -> Trained:
    """The network of most methods, with snapshots at quarters of its training."""
    epochs = training.epochs_of(seed)
    quarters = sorted({math.ceil(epochs * k / 4) for k in range(1, 5)})
    model = training.model()
    return fit(training, model, seed, epochs=epochs, snapshots=quarters)


def with_dropout(training: Training, seed: int, rate: float) -> Trained:
    model = training.model(rate)
    return fit(training, model, seed, epochs=training.short_epochs)


def other_architecture(training: Training, seed: int) -> Trained:
    """A perceptron, of any images trained as the grey ones' networks are."""
    model, epochs = perceptron(training.benchmark), training.epochs_of(seed)
    how = {"recipe": recipes.lenet, "batch_size": 64, "augment": None}
    how |= {"loss": losses.cross_entropy}
    return fit(training, model, seed, epochs=epochs, **how)


def exposed(
    training: Training, seed: int, outliers: ArrayDataset, finetune: bool
) -> Trained:
    """Outlier Exposure: the plain network trained further, or one from scratch."""
    model = training.model()
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
