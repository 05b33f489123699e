"""Benchmarks of colour images, 32×32: CIFAR-10, all of it or six of its classes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.data import published
from fssd_jax.data.benchmark import Benchmark, divided
from fssd_jax.data.embedded import COLOUR_SIDE, bilinear
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset, digest, load
from fssd_jax.models.resnet import CIFAR10

EPOCHS = 350  # the released recipe's
SLICE = 1000  # images that are enlarged at once


def cifar10(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark B of the paper: CIFAR-10 against SVHN, and against sets that are far.

    These are not from the paper: 32×32 patches of photographs, and the test images of
    FashionMNIST and of MNIST, enlarged, in three equal channels.
    """
    train, test = (load("cifar10", split, data_dir) for split in ("train", "test"))
    ood, missing = _had({"cifar10": _svhn, **_far("cifar10")}, data_dir)
    return Benchmark(
        name="cifar10",
        train=train,
        test=test,
        ood=ood,
        num_classes=10,
        # The released code's: deviations are the mean of those within each image.
        mean=CIFAR10["mean"],
        std=CIFAR10["std"],
        epochs=EPOCHS,
        save_every=1,
        validation=1000,
        paper=published.of("B"),
        missing=missing,
    )


# Split 0 of the five that Vaze et al. (2022), "Open-Set Recognition: a Good Closed-Set
# Classifier is All You Need?", take of Neal et al. (2018), "Open Set Learning with
# Counterfactual Images".
KNOWN_CLASSES = (0, 1, 2, 4, 5, 9)


def cifar6(data_dir: str | Path | None = None) -> Benchmark:
    """Six classes of CIFAR-10 against its other four, OoD that is near; and far sets.

    Not from the paper. In-distribution: airplane, automobile, bird, deer, dog, truck;
    OoD: the test images of cat, frog, horse, ship. The far sets are those of `cifar10`.
    """
    train, whole = (load("cifar10", split, data_dir) for split in ("train", "test"))
    train, test, near = divided(train, whole, KNOWN_CLASSES)
    ood, missing = _had({"cifar6_svhn": _svhn, **_far("cifar6")}, data_dir)
    return Benchmark(
        name="cifar6",
        train=train,
        test=test,
        ood={"cifar6": near, **ood},
        num_classes=len(KNOWN_CLASSES),
        mean=CIFAR10["mean"],
        std=CIFAR10["std"],
        epochs=EPOCHS,
        save_every=1,
        validation=1000,
        paper=None,
        missing=missing,
    )


# ---- OoD sets -----------------------------------------------------------------------

Source = Callable[[str | Path | None], ArrayDataset]  # of a data_dir


def _svhn(data_dir: str | Path | None) -> ArrayDataset:
    return load("svhn_cropped", "test", data_dir)


def _photos(data_dir: str | Path | None) -> ArrayDataset:
    del data_dir  # it is embedded
    return load("colour_patches", "test")


def _grey(name: str, data_dir: str | Path | None) -> ArrayDataset:
    return in_colour(load(name, "test", data_dir))


def _far(name: str) -> dict[str, Source]:
    """By the pair's name."""
    return {
        f"{name}_photos": _photos,
        f"{name}_fashion_mnist": partial(_grey, "fashion_mnist"),
        f"{name}_mnist": partial(_grey, "mnist"),
    }


def _had(
    sets: dict[str, Source], data_dir: str | Path | None
) -> tuple[dict[str, ArrayDataset], dict[str, str]]:
    """Those that can be had, and of the others why not and what mends it."""
    found: dict[str, ArrayDataset] = {}
    missing: dict[str, str] = {}
    for pair, source in sets.items():
        try:
            data = source(data_dir)
        except InputError as error:
            missing[pair] = str(error)
            continue
        twin = next((p for p, d in found.items() if d.sha256 == data.sha256), None)
        if twin is None:
            found[pair] = data
        else:
            missing[pair] = (
                f"the same images were found for it and for {twin}, in {data.source}; "
                "put each set into a subfolder of its name"
            )
    return found, missing


def in_colour(data: ArrayDataset, side: int = COLOUR_SIDE) -> ArrayDataset:
    """Grey images enlarged (see `embedded.enlarge`), in three equal channels, uint8."""
    rows, columns = (bilinear(n, side) for n in data.x.shape[1:3])
    x = np.empty((len(data.x), side, side, 3), np.uint8)
    for start in range(0, len(x), SLICE):
        grey = as_input(data.x[start : start + SLICE, :, :, 0])
        large = rows[None] @ grey @ columns.T[None]
        x[start : start + SLICE] = np.rint(255 * large.clip(0, 1))[..., None]
    return data._replace(x=x, name=f"{data.name}_colour", sha256=digest(x, data.y))
