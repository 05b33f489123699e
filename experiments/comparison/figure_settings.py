"""From a figure's options to its setting: sizes, network, images.

Figures 1 and 6 want one network, Figures 4 and 5 all of the compared methods'.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from experiments.comparison.chosen import (
    Chosen,
    brought_network,
    computing_in,
    outliers_for,
)
from experiments.comparison.networks import network_of
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.run_options import FLOAT32
from experiments.comparison.setting import Options, Setting, make_setting, prepare
from experiments.harness import machine
from experiments.harness.keys import Use, of_seed
from fssd_jax import checkpoint, checks
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.sources import ArrayDataset


class Preset(NamedTuple):
    images: int | None  # of each test set, drawn by the seed; None: all
    epochs: int | None = None  # None: the benchmark's own number
    short_epochs: int | None = None  # of networks that only some methods need
    train_size: int | None = None  # None: the whole training set
    validation: int | None = None  # of each set; None: the benchmark's own number
    passes: int = 32  # an image, of MC dropout
    tiny: bool = False


TINY = Preset(images=16, passes=2, tiny=True)
ONE_NETWORK = {"tiny": TINY, "small": Preset(1000), "paper": Preset(None)}
ALL_METHODS = {
    "tiny": TINY,
    "small": Preset(
        *(200, 5, 2, 10_000, 200),
        passes=8,  # of 80 changed sets
    ),
    "paper": Preset(None),
}


@dataclasses.dataclass(frozen=True)
class FigureOptions(machine.Machine):
    """What every figure of a trained network can be told."""

    network: str | None = None
    """Of CIFAR: cifar_resnet34, the paper's and the default, or cifar_resnet20, for 30
    epochs, which a CPU can train. Of ImageNet: resnet34, the paper's, or resnet50. Grey
    images have lenet, faces face_resnext50."""
    width: int | None = None
    """Channels of the first convolution."""
    dtype: Literal["float32", "bfloat16"] = FLOAT32
    """In which a ResNet computes, as of table2."""
    weights: Path | None = None
    """A network that is trained already: a state dict of PyTorch or the folder of a
    training of ours. What needs further networks is left out."""
    seed: int = 0
    """Of the weights, the noise, and the images that are drawn."""
    images: int | None = None
    """Of each test set, in place of the preset's number."""
    epochs: int | None = None
    """In place of the preset's number."""
    batch_size: int | None = None
    """Images scored at a time; by default 64 on a CPU, on an accelerator what fits in
    half of its memory, 4,096 at most."""
    out: Path = Path("results")
    """Where results, weights and scores go."""
    data_dir: Path | None = None
    """Take the data from this folder's subfolders, and from nowhere else: IDX files in
    fashion_mnist and mnist, class folders of images in cifar10 and svhn_cropped; `fssd
    data --check NAME` tells what others need."""


@dataclasses.dataclass(frozen=True)
class MethodOptions(FigureOptions):
    """And what those of several methods can."""

    methods: tuple[str, ...] = ("paper",)
    """Names of table2's methods; paper: the seven of the paper; all."""
    outliers: str = "auto"
    """The auxiliary set of Outlier Exposure, as of table2."""
    passes: int | None = None
    """An image, of MC dropout, in place of the preset's 8 (small) or 32 (paper)."""


def with_options(preset: Preset, config: FigureOptions) -> Preset:
    """The preset, where the command line says nothing else.

    Raises:
      InputError: numbers that could not work.
    """
    machine.check(config)
    names = ("images", "epochs", "passes")
    given = {name: getattr(config, name, None) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if config.batch_size is not None:
        checks.at_least_one("--batch-size", config.batch_size)
    for name, value in given.items():
        if value < (least := 2 if name == "images" else 1):
            raise InputError(f"--{name}: expected {least} or more, got {value}")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed: expected 0 to 2³² − 1, got {config.seed}")
    for name in ("width", "epochs"):
        if config.weights is not None and getattr(config, name) is not None:
            raise InputError(f"--{name}: leave out, nothing is trained with --weights")
    return preset._replace(**given)


def chosen_for(benchmark: Benchmark, config: FigureOptions, preset: Preset) -> Chosen:
    """Which network it is, or which weights."""
    if config.weights is not None:
        own = config.weights, config.network
        return brought_network(benchmark, *own, dtype=config.dtype)
    own = {"width": config.width, "tiny": preset.tiny}
    shared = network_of(benchmark, config.network, **own)
    return Chosen(computing_in(config.dtype, shared, benchmark), None)


class Ready(NamedTuple):
    setting: Setting
    facts: dict[str, Any]  # of the network, for metrics.json


def ready(
    benchmark: Benchmark,
    pair: str,
    protocol: str,
    config: FigureOptions,
    preset: Preset,
    outliers: tuple[ArrayDataset | None, dict[str, str]] = (None, {}),
) -> Ready:
    """Train the network, or take it; split validation images off; draw test images.

    Args:
      pair: of the benchmark.
      protocol: of `PROTOCOLS`; of `clean` nothing is chosen by OoD images.
      outliers: of Outlier Exposure, and if there are none, why.
    """
    if preset.validation is not None:
        benchmark = benchmark._replace(validation=preset.validation)
    benchmark = machine.reading_all(config, benchmark)
    chosen = chosen_for(benchmark, config, preset)
    options = Options(
        epochs=preset.epochs,
        short_epochs=preset.short_epochs,
        full_seeds=max(1, config.seed + 1),
        train_size=preset.train_size,
        batch_size=config.batch_size,
        out=config.out,
        data_dir=config.data_dir,
        tiny=preset.tiny,
    )
    prepared = prepare(benchmark, config.seed, options, *chosen, machine=config)
    auxiliary, why = outliers
    s = make_setting(
        *(prepared, pair, PROTOCOLS[protocol], auxiliary), tiny=preset.tiny, why=why
    )
    s = s._replace(
        test_ind=drawn(s.test_ind, preset.images, of_seed(s.seed, Use.FIGURE_IND)),
        test_ood=drawn(s.test_ood, preset.images, of_seed(s.seed, Use.FIGURE_OOD)),
        passes=preset.passes,
        timed=False,
    )
    training = prepared.training
    facts = {
        "benchmark": pair,
        "seed": config.seed,
        "network": chosen.network.name,
        "accuracy": prepared.accuracy,
        "weights": config.weights and config.weights.name,
        "epochs": None if config.weights else training.epochs_of(config.seed),
        "short_epochs": None if config.weights else training.short_epochs,
        "train_images": None if config.weights else len(training.images.x),
        "images": {"in-distribution": len(s.test_ind), "OoD": len(s.test_ood)},
    }
    return Ready(s, facts)


def drawn(x: Any, count: int | None, key: PRNGKeyArray) -> Any:
    """`count` images of x drawn by the key, in their order; all, if there are fewer."""
    if count is None or count >= len(x):
        return x
    order = np.asarray(jax.random.permutation(key, len(x)))
    chosen = np.sort(order[:count])
    return x.part(chosen) if isinstance(x, Decoded) else np.asarray(x)[chosen]


def deciding(
    benchmark: Benchmark, config: FigureOptions, preset: Preset
) -> dict[str, Any]:
    """What decides the scores, for the names of folders."""
    shared, brought = chosen_for(benchmark, config, preset)
    model = brought.model if brought else shared.build(benchmark, None)
    return {
        "preset": preset._asdict(),
        "model": repr(model),
        "weights": brought and checkpoint.tree_digest(brought.variables),
        "initial": brought and checkpoint.tree_digest(brought.initial),
        "seed": config.seed,
        "validation": preset.validation or benchmark.validation,
    }


def auxiliary_for(
    benchmark: Benchmark, methods: tuple[str, ...], config: MethodOptions
) -> tuple[ArrayDataset | None, dict[str, str]]:
    """Of Outlier Exposure, if it is asked for; see `outliers_for`."""
    if "outlier_exposure" not in methods or config.weights is not None:
        return None, {}
    found, why = outliers_for(benchmark, config.outliers, config.data_dir)
    return found and machine.reading(config, found), why


def told_of(facts: dict[str, Any]) -> str:
    """On the network, for notes: no full stop at the end."""
    trained = (
        f"brought ({facts['weights']})"
        if facts["weights"]
        else f"{facts['train_images']:,} images, epochs: {facts['epochs']}"
    )
    return f"{facts['network']}, {trained}, accuracy {100 * facts['accuracy']:.1f} %"


def pair_of(benchmark: Benchmark, name: str | None) -> str:
    """The pair that is named, or the benchmark's own: SVHN's of `cifar10`.

    Raises:
      InputError: its OoD set cannot be had, or there is no such pair.
    """
    lost, here = benchmark.missing, list(benchmark.ood)
    wanted = name or (benchmark.name if benchmark.name in lost else here[0])
    if wanted in here:
        return wanted
    why = f"not here: {lost[wanted]}" if wanted in lost else "unknown"
    raise InputError(f"--pair: {wanted}: {why}; those that are here: {here}")


# Those of the paper's that do not fit in memory come last.
Benchmarks = Literal["digits", "fmnist", "cifar10", "cifar6", "dogs", "celeba", "ms1m"]
