"""The pairs of sets of the study of label-free rules, and how their networks come."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fssd_jax.data import benchmarks
from fssd_jax.data.benchmark import Benchmark, channel_statistics, divided
from fssd_jax.data.sources import load
from fssd_jax.models.resnet import CIFAR10

SPLITS = 4  # random ones, into six classes and four
HELD_BACK = SPLITS - 1  # number of the split that is looked at when all is decided
Loader = Callable[[Path | None], Benchmark]


class Family(NamedTuple):
    """Pairs of one in-distribution set."""

    load: Loader
    seeds: int
    epochs: int
    train_size: int | None = None  # images
    network: str | None = None  # as of `table2`
    width: int | None = None
    held_back: bool = False


def known(split: int) -> tuple[int, ...]:
    """Six of ten classes, drawn by the split's number."""
    drawn = np.random.default_rng(split).choice(10, 6, replace=False)
    return tuple(sorted(drawn.tolist()))


def fmnist(data_dir: Path | None) -> Benchmark:
    """FashionMNIST against MNIST, the paper's A, and against photographs."""
    found = benchmarks.fmnist(data_dir)
    ood = {
        "fmnist": found.ood["fmnist"],
        "fmnist_photos": load("photo_patches", "test"),
    }
    return found._replace(ood=ood)


def of_split(
    name: str, source: str, photos: str, split: int, data_dir: Path | None
) -> Benchmark:
    """Six classes of a set of ten against the other four, near; and photographs."""
    classes = known(split)
    train, whole = (load(source, part, data_dir) for part in ("train", "test"))
    train, test, near = divided(train, whole, classes)
    colour = train.x.shape[-1] == 3
    statistics = channel_statistics(train.x)
    mean, std = (CIFAR10["mean"], CIFAR10["std"]) if colour else statistics
    return Benchmark(
        name=f"{name}{split}",
        train=train,
        test=test,
        ood={
            f"{name}{split}": near,
            f"{name}{split}_photos": load(photos, "test"),
        },
        num_classes=len(classes),
        mean=mean,
        std=std,
        epochs=5,
        save_every=1,
        validation=1000,
        paper=None,
    )


def cifar_far(data_dir: Path | None) -> Benchmark:
    """CIFAR-10 against FashionMNIST in colour."""
    found = benchmarks.cifar10(data_dir)
    pair = "cifar10_fashion_mnist"
    return found._replace(ood={pair: found.ood[pair]}, missing={})


NARROW = {"network": "cifar_resnet20", "width": 8, "train_size": 10_000}
FAMILIES: dict[str, Family] = {
    "digits": Family(lambda _: benchmarks.digits(), seeds=5, epochs=20),
    "fmnist": Family(fmnist, seeds=5, epochs=5),
    **{
        f"fmnist_split{k}": Family(
            partial(of_split, "fmnist_split", "fashion_mnist", "photo_patches", k),
            seeds=5,
            epochs=5,
            held_back=k == HELD_BACK,
        )
        for k in range(SPLITS)
    },
    **{
        f"cifar_split{k}": Family(
            partial(of_split, "cifar_split", "cifar10", "colour_patches", k),
            seeds=3,
            epochs=15,
            held_back=k == HELD_BACK,
            **NARROW,
        )
        for k in range(SPLITS)
    },
    "cifar10": Family(cifar_far, seeds=3, epochs=15, **NARROW),
}


def kind(pair: str) -> str:
    """What a pair counts as in a mean: all splits of one set are one kind."""
    if pair.endswith(("_photos", "_far")):
        return "photographs"
    return pair.rstrip("0123456789") if "split" in pair else pair


# The kinds over whose mean rules are compared.
NEAR = ("digits_near", "fmnist_split", "cifar_split")
