"""FSSD and the label-free methods on your checkpoint and your images.

  fssd score --weights resnet34.pth --model cifar_resnet34 \\
      --mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010 \\
      --in photos/test --ood photos/other

  fssd score --features in.npz --ood-features ood.npz --noise-features noise.npz

Weights are a PyTorch state dict, by torch.save or safetensors, or what train(...,
folder=...) left in its folder; images a folder of image files, or a .npz of uint8 or
floats in [0, 1]. Nothing is fitted on an OoD image. Beside FSSD of every layer, MSP,
energy, the maximum logit, GEN, KL matching, ASH, SCALE and ODIN stand controls that
know nothing of your training: the same network untrained, and pixels. With --train,
those that need it, too: Mahalanobis, k nearest neighbours, ViM and others. Leaves
OUT/score/IN-OOD-MODEL-SEED-DIGEST/ with report.html, metrics.json, the table, the
scores of every image, pictures, explorer.npz, the images that report.html shows, and
fssd.npz: the fitted "fssd tiles" (of features "fssd deep") and its threshold, for
`fssd_jax.load`; its config tells what F* is of. Scores are kept in OUT/scores, network
by network: the same command again goes on from there. A method that fails does not stop
the others: it is shown with the reason, the exit status is 1 after all else is written,
and the same command tries it again.

With --features no network runs here: the features of each layer were computed
elsewhere, and there are no controls, which would need the network untrained, or pixels.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

import fssd_jax
from experiments.comparison import (
    brought,
    dump_files,
    dumped,
    explorer,
    loaded,
    overlap,
    pictures,
    records,
    report,
    score_tables,
    tables,
)
from experiments.harness import cli, files, results
from fssd_jax import checkpoint, checks, torch_weights
from fssd_jax.checks import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    weights: Path | None = None
    """A PyTorch state dict, or a checkpoint that holds one: what torch.save or
    safetensors wrote, whatever its ending. Or the folder of a training of ours."""
    model: Literal[tuple(torch_weights.FORMATS)] | None = None  # pyright: ignore
    """Whose weights these are. cifar_resnet18, 34, …: pytorch-cifar and OpenOOD;
    cifar_resnet20, 32, …: He et al., three stages; wrn*: Outlier Exposure and OpenOOD;
    resnet*, wide_resnet*, resnext*: torchvision and timm; lenet and face_resnext50: as
    the authors released them. cifar_resnet, wrn and resnet: of any depth."""
    mean: tuple[float, ...] | None = None
    """By which images were normalised in training, by channel, of pixels in [0, 1].
    CIFAR-10: 0.4914 0.4822 0.4465; ImageNet: 0.485 0.456 0.406; FashionMNIST: 0.286;
    the released face networks: 0.5 0.5 0.5."""
    std: tuple[float, ...] | None = None
    """Likewise. CIFAR-10: 0.2023 0.1994 0.2010; ImageNet: 0.229 0.224 0.225;
    FashionMNIST: 0.353; faces: 1 1 1."""
    ind: Annotated[Path | None, tyro.conf.arg(name="in")] = None
    """In-distribution images that were not trained on: a folder (class folders are
    fine), .npz or .npy."""
    ood: Path | None = None
    """OoD images, in the same way."""
    train: Path | None = None
    """Training images, in class folders or a .npz with labels y: for Mahalanobis, k
    nearest neighbours and others. F* of "fssd tiles", and so of the saved detector, is
    then of them, and not of validation images."""
    part: str | None = None
    """Where in the file the network stands, if it holds several: state_dict_ema."""
    features: Path | None = None
    """In place of a network and images, features that it gave elsewhere, by any
    framework, of in-distribution images that were not trained on: a .npz with an array
    [n, ...] for each layer, from input to output. If one is called logits, MSP, energy
    and the like are scored, too."""
    ood_features: Path | None = None
    """Those of OoD images."""
    noise_features: Path | None = None
    """Those of noise, uniform in the range of the network's inputs."""
    train_features: Path | None = None
    """Those of training images, with their labels y: for Mahalanobis and k nearest
    neighbours."""
    channels: dumped.Channels | None = None
    """Of convolutional --features: first, as PyTorch has them, or last. Needed beside
    --train-features where square feature maps do not show it."""
    layers: tuple[str, ...] | None = None
    """Of FSSD; by default the model's own (stem and stages; all of LeNet)."""
    size: int | None = None
    """Side of the images; by default what the model was made for."""
    resize: int | None = None
    """First resize the shorter side of image files to this; 256 is usual for ImageNet.
    By default images of another size are made just to cover it."""
    limit: int | None = 10_000
    """At most as many images of each set, drawn by the seed."""
    validation: int = 1000
    """In-distribution images, a fifth of them at most, that are not tested: on one half
    layers are standardised, by the other the threshold is chosen."""
    noise: int = 1000
    """Samples of uniform noise for F*."""
    batch_size: int | None = None
    """Images at a time, which changes scores but by rounding; by default 64 on a CPU,
    on an accelerator what fits in half of its memory, 4,096 at most."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic; distances and logits are float32 in any case."""
    seed: int = 0
    """Of the noise, of what is drawn, and of the untrained control."""
    out: Path = Path("results")
    """Where results go."""


OF_FEATURES = {  # set → option
    "ind": "features",
    "ood": "ood_features",
    "noise": "noise_features",
    "train": "train_features",
}
OF_NETWORKS = (
    *("weights", "model", "mean", "std", "ind", "ood", "train"),
    *("part", "size", "resize"),
)
WHERE = ("weights", "part", "ind", "ood", "train", *OF_FEATURES.values())


def _flags(names: Sequence[str]) -> str:
    """As the command line has them."""
    return ", ".join(
        "--in" if name == "ind" else f"--{name.replace('_', '-')}" for name in names
    )


def _network(config: Config) -> brought.Brought:
    """A network's weights, and images."""
    needed = ("weights", "model", "mean", "std", "ind", "ood")
    missing = [name for name in needed if not getattr(config, name)]
    if missing:
        raise InputError(
            f"{_flags(missing)}: needed for a network of weights; or give features "
            "that were computed elsewhere: --features, --ood-features and "
            "--noise-features"
        )
    if config.channels is not None:
        raise InputError("--channels: of --features only; a network tells its own")
    assert config.weights
    assert config.model
    assert config.mean
    assert config.std
    assert config.ind
    assert config.ood
    network = loaded.load_network(
        *(config.weights, config.model),
        mean=config.mean,
        std=config.std,
        part=config.part,
        dtype=config.dtype,
        layers=config.layers,
    )
    paths = {"ind": config.ind, "ood": config.ood}
    paths |= {} if config.train is None else {"train": config.train}
    sets = brought.load_sets(
        *(config.model, network.model, paths),
        size=config.size,
        resize=config.resize,
        limit=config.limit,
        seed=config.seed,
    )
    return brought.setting(
        *(network, config.model, sets),
        validation=config.validation,
        noise=config.noise,
        seed=config.seed,
        batch_size=config.batch_size,
    )


def _features(config: Config) -> brought.Brought:
    """Features alone."""
    paths = {of: getattr(config, name) for of, name in OF_FEATURES.items()}
    missing = [OF_FEATURES[of] for of in ("ind", "ood", "noise") if paths[of] is None]
    if missing:
        raise InputError(
            f"{_flags(missing)}: needed, too: features of in-distribution images, of "
            "OoD images, and of noise in the range of the network's inputs"
        )
    given = [name for name in OF_NETWORKS if getattr(config, name) is not None]
    if given:
        raise InputError(
            f"{_flags(given)}: leave out beside features, of which no network runs here"
        )
    dump = dump_files.load(
        {of: path for of, path in paths.items() if path is not None},
        layers=config.layers,
        limit=config.limit,
        seed=config.seed,
    )
    return dumped.setting(
        dump,
        channels=config.channels,
        validation=config.validation,
        seed=config.seed,
        batch_size=config.batch_size,
    )


def run(config: Config) -> dict[str, Any]:
    if config.batch_size is not None:
        checks.at_least_one("--batch-size", config.batch_size)
    files.writable(config.out / "score")
    dumps = any(getattr(config, name) is not None for name in OF_FEATURES.values())
    b = _features(config) if dumps else _network(config)
    paths = {of: getattr(config, OF_FEATURES[of] if dumps else of) for of in b.sets}
    shared = overlap.tell_shared(b.sets, paths)
    # Not where files lie: their content counts.
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in WHERE}
    options["digest of weights"] = checkpoint.tree_digest(b.setting.variables)
    pair = "-".join(b.sets[name].name for name in ("ind", "ood"))
    title = f"{pair}-{b.name}-{config.seed}"
    there, kept = (
        results.place(
            *(config.out, experiment, title, options, b.sets),
            measured_by=dumped if dumps else brought,
        )
        for experiment in ("score", "scores")
    )
    found = brought.measure(b, files.writable(kept.path), title)
    explored = explorer.written(b.setting, found.answers, found.result["failed"])
    predicted = found.answers.predicted
    classes = len(np.unique(b.sets["ind"].y)) == b.setting.num_classes
    facts = {
        "model": b.name,
        "seed": config.seed,
        "counts": {k: len(v) for k, v in b.images._asdict().items()},
        "accuracy": (
            float(np.mean(predicted == b.y))
            if classes and predicted is not None
            else None
        ),
        "detector": found.fitted and found.fitted.config["row"],
        "threshold": found.fitted and found.fitted.config["threshold"],
        **found.result,
        "warnings": [*shared, *found.result["warnings"]],
    }
    results.leave(
        there,
        facts,
        records.of_score(facts, pair),
        [score_tables.to_sheet(facts, {k: d.source for k, d in b.sets.items()})],
        pictures.figures(found.answers, b.name),
        report.score_arrays(found.answers),
        csv=tables.every_metric(found.result),
        extras=saved(found.fitted, b.setting.variables) | explored,
    )
    return facts


def saved(fitted: fssd_jax.Fitted | None, variables):
    """How to write fssd.npz, if there is a detector."""
    if fitted is None:
        return {}
    return {brought.DETECTOR: lambda path: fssd_jax.save(path, fitted, variables)}


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=lambda f: [*f["failed"]])


if __name__ == "__main__":
    sys.exit(main())
