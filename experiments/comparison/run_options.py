"""What `table2` can be told."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeVar

from experiments.comparison.methods import METHODS
from experiments.comparison.setting import Options, check
from experiments.comparison.variants import VARIANTS
from experiments.harness import machine
from experiments.harness.cli import Together
from fssd_jax.checks import InputError

C = TypeVar("C", bound="Config")
ALL = "all"
FLOAT32 = "float32"
# Of one benchmark.
OF_ONE = ("network", "width", "dtype", "weights", "part", "mean", "std")


@dataclasses.dataclass(frozen=True)
class Config(Options, machine.Machine, Together):
    benchmark: Literal[
        "digits",
        "fmnist",
        "fmnist6",
        "cifar10",
        "cifar6",
        "dogs",
        "imagenet",
        "celeba",
        "ms1m",
        "genomics",
        "genomes",
        "all",
    ] = "digits"
    """Which data. digits: digits 0-4 against 5-9 (near) and against photographs
    (far), embedded in scikit-learn. fmnist: FashionMNIST against MNIST (paper's A).
    fmnist6: six classes of FashionMNIST against its other four (near). cifar10:
    CIFAR-10 against SVHN (paper's B), and against photographs, FashionMNIST and MNIST
    (far). cifar6: six classes of CIFAR-10 against its other four (near), and the like.
    dogs, imagenet, celeba, ms1m: the paper's C to F, decoded as they are read, for an
    accelerator; genomics: its G; `fssd data --check NAME` tells what they need.
    genomes: reads of five species of bacteria against three others (after paper's G;
    get them by fssd fetch genomes); token ids, so without input step. all: each of
    these whose data can be had, and of the others why not."""
    network: str | None = None
    """Of CIFAR: cifar_resnet34, the paper's and the default, or cifar_resnet20, a
    seventy-ninth of its parameters, for 30 epochs. Of ImageNet: resnet34, the paper's,
    or resnet50. Grey images have lenet, faces face_resnext50, sequences bilstm. With
    --weights whatever score --model takes."""
    width: int | None = None
    """Channels of the first convolution; by default 64, of cifar_resnet20 16, of lenet
    32."""
    dtype: Literal["float32", "bfloat16"] = FLOAT32
    """In which the network computes; parameters and the loss are float32. LeNet has
    none but that."""
    weights: Path | None = None
    """A network that is trained already: a state dict of PyTorch (.pth, .safetensors)
    or the folder of a training of ours. What needs further networks is left out."""
    part: str | None = None
    """Where it is in the file of --weights, if that holds several networks."""
    mean: tuple[float, ...] | None = None
    """By which images in [0, 1] were normalised when --weights were trained, for each
    channel; by default the benchmark's."""
    std: tuple[float, ...] | None = None
    """Likewise."""
    methods: tuple[str, ...] = ("fssd", "msp")
    """Names from the list above, or all. The controls are always run beside them."""
    protocol: Literal["paper", "released", "clean"] = "paper"
    """paper: layer weights and input step from labelled validation images of both
    sets. released: the same as the authors' code does it. clean: nothing is fitted
    or chosen on any OoD set; a layer where noise lies farther from F* than the data do
    is turned round. Beside it stand the library's default, of log distances at the
    last two layers, and both against photographs."""
    seeds: tuple[int, ...] = (0,)
    """A network, a split and a results folder for each."""
    outliers: str = "auto"
    """The auxiliary set of Outlier Exposure: of grey images kmnist or cns_glyphs, of
    others imagenet2012 or celeb_a; auto: the paper's, if it can be had. Or the path of
    images of yours: a folder, .npz or .npy."""
    rerun: bool = False
    """Compute again although the results folder is already there."""


def checked(config: C) -> C:
    """Raise `InputError` for what could not work; drop repeated seeds and methods."""
    if not config.seeds or not config.methods:
        raise InputError("at least one seed and one method are needed")
    if not all(0 <= seed < 2**32 for seed in config.seeds):
        raise InputError(f"--seeds: expected 0 to 2³² − 1, got {config.seeds}")
    check(config)
    machine.check(config)
    alone = ("part", "mean", "std")  # of weights
    trains = ("width", "epochs", "short_epochs", "train_size")
    wrong = alone if config.weights is None else trains
    given = [name for name in wrong if getattr(config, name) is not None]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        why = "only of" if config.weights is None else "nothing is trained with"
        raise InputError(f"{flags}: leave out, {why} --weights")
    own = [name for name in OF_ONE if getattr(config, name) not in (None, FLOAT32)]
    if config.benchmark == ALL and own:
        flags = ", ".join(f"--{name}" for name in own)
        raise InputError(f"{flags}: of one benchmark; leave out, or name that one")
    known = (*METHODS, *VARIANTS)
    wrong = [name for name in config.methods if name not in ("all", *known)]
    if wrong:
        raise InputError(
            f"--methods: unknown {', '.join(wrong)}; choose from "
            + ", ".join(("all", *known))
        )
    wanted = known if "all" in config.methods else config.methods
    return dataclasses.replace(
        config,
        seeds=tuple(dict.fromkeys(config.seeds)),
        methods=tuple(name for name in known if name in wanted),
    )
