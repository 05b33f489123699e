"""FSSD and the label-free methods on your checkpoint and your images.

  python -m experiments.score --weights resnet34.pth --model cifar_resnet34 \\
      --mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010 \\
      --in photos/test --ood photos/other

Weights are a PyTorch state dict (.safetensors, .pt, .pth); images a folder of image
files, or a .npz of uint8 or floats in [0, 1]. Nothing is fitted on an OoD image. Beside
FSSD of every layer, MSP, energy, the maximum logit and ODIN stand controls that know
nothing of your training: the same network untrained, and pixels. With --train,
Mahalanobis and k nearest neighbours, too. Leaves OUT/score/IN-OOD-MODEL-SEED-DIGEST/
with report.html, metrics.json, the table, the scores of every image, pictures, and
fssd.npz: the fitted detector and its threshold, for `fssd_jax.load`.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import fssd_jax
from experiments import common, pages, tables, unlabelled
from experiments.scores import Scored
from experiments.unlabelled import LOGITS, Images, Network
from fssd_jax import checks, metrics, torch_weights
from fssd_jax.data.folders import load_images
from fssd_jax.data.sources import ArrayDataset

_NOISE, _SPLIT = 500, 501  # what a key is for
FEWEST = 38  # images held out; with 19 in a half, 95 % are accepted with a guarantee
FIXED = ("lenet", "face_resnext50")  # a dense layer sees the whole image


@dataclasses.dataclass(frozen=True)
class Config:
    weights: Path
    """A PyTorch state dict: .safetensors, .pt or .pth."""
    model: Literal[tuple(torch_weights.FORMATS)]  # pyright: ignore
    """Whose weights these are. cifar_*: github.com/kuangliu/pytorch-cifar; resnet34 and
    resnext50: torchvision; lenet and face_resnext50: as the authors released them."""
    mean: tuple[float, ...]
    """By which images were normalised in training, by channel, of pixels in [0, 1].
    CIFAR-10: 0.4914 0.4822 0.4465; ImageNet: 0.485 0.456 0.406; FashionMNIST: 0.286;
    the released face networks: 0.5 0.5 0.5."""
    std: tuple[float, ...]
    """Likewise. CIFAR-10: 0.2023 0.1994 0.2010; ImageNet: 0.229 0.224 0.225;
    FashionMNIST: 0.353; faces: 1 1 1."""
    ind: Annotated[Path, tyro.conf.arg(name="in")]
    """In-distribution images that were not trained on: a folder (class folders are
    fine), .npz or .npy."""
    ood: Path
    """OoD images, in the same way."""
    train: Path | None = None
    """Training images, in class folders or a .npz with labels y: for Mahalanobis and k
    nearest neighbours."""
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
    batch_size: int = 64
    """Images at a time; on an accelerator larger is faster."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network's arithmetic; distances and logits are float32 in any case."""
    seed: int = 0
    """Of the noise, of what is drawn, and of the untrained control."""
    out: Path = Path("results")
    """Where results go."""


def run(config: Config) -> dict[str, Any]:
    folder = common.writable(config.out / "score")
    network = load_network(config)
    sets = load_sets(config, network.model)
    images, y = split(config, sets)
    found = unlabelled.score(
        *(network, images, sets.get("train")),
        seed=config.seed,
        batch_size=config.batch_size,
    )
    logits = found.seen["ind"].logits
    known = len(np.unique(sets["ind"].y)) == network.model.num_classes
    facts = {
        "model": config.model,
        "seed": config.seed,
        "weights": common.tree_digest(network.variables),
        "counts": {k: len(v) for k, v in images._asdict().items()},
        "accuracy": accuracy(logits, y) if known else None,
        "threshold": found.fitted.config["threshold"],
        "rows": {name: _facts(row) for name, row in found.rows.items()},
        "data": {k: {"source": d.source, "sha256": d.sha256} for k, d in sets.items()},
        "versions": common.versions(),
        "device": common.device(),
    }
    options = {k: v for k, v in dataclasses.asdict(config).items() if k != "out"}
    own = ("experiments/score.py", "experiments/unlabelled.py")
    code = common.code_digest(("fssd_jax/**/*.py", *own))
    digest = common.config_digest([options, facts["weights"], facts["data"], code])
    pair = "-".join(sets[name].name for name in ("ind", "ood"))
    path = folder / f"{pair}-{config.model}-{config.seed}-{digest}"
    sheet = to_sheet(facts)
    with common.results_folder(path) as target:
        figures = unlabelled.pictures(network, images, found)
        pages.leave(target, options, facts, sheet, figures)
        arrays = {
            f"{name}/{part}": getattr(row, part)
            for name, row in found.rows.items()
            for part in ("ind", "ood")
        }
        np.savez_compressed(target / "scores.npz", allow_pickle=False, **arrays)
        fssd_jax.save(target / "fssd.npz", found.fitted, network.variables)
    tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {path}")
    return facts


def load_network(config: Config) -> Network:
    if config.model == "lenet" and config.dtype != "float32":
        raise checks.InputError("--dtype: LeNet computes in float32 only")
    model, variables = torch_weights.load(
        config.weights,
        config.model,
        mean=config.mean,
        std=config.std,
        **({} if config.model == "lenet" else {"dtype": jnp.dtype(config.dtype)}),
    )
    layers = list(config.layers or model.feature_layers)
    whole = layers if LOGITS in layers else [*layers, LOGITS]
    layers_fn = fssd_jax.make_feature_fn(model, layers)
    return Network(model, layers_fn, fssd_jax.make_feature_fn(model, whole), variables)


def load_sets(config: Config, model) -> dict[str, ArrayDataset]:
    """ "ind", "ood" and perhaps "train"."""
    side = torch_weights.FORMATS[config.model].side
    size = config.size or side
    if config.model in FIXED and size != side:
        raise checks.InputError(f"--size: {config.model} takes {side}×{side} only")
    paths = {"ind": config.ind, "ood": config.ood, "train": config.train}
    found = {
        name: load_images(
            path,
            size=size,
            channels=len(model.mean),
            resize=config.resize if path.is_dir() else None,
            limit=config.limit,
            seed=config.seed,
        )
        for name, path in paths.items()
        if path is not None
    }
    if "train" in found:
        present = len(np.unique(found["train"].y))
        if present != model.num_classes:
            raise checks.InputError(
                f"{config.train}: images of {present} classes were taken and the "
                f"network has {model.num_classes}, all of which Mahalanobis needs; "
                "give class folders, or raise --limit"
            )
    return found


def split(config: Config, sets: dict[str, ArrayDataset]) -> tuple[Images, np.ndarray]:
    """Images of each purpose, and the labels of the in-distribution ones tested."""
    key = jax.random.key(config.seed)
    ind = sets["ind"]
    count = min(config.validation, len(ind.x) // 5)
    if count < FEWEST:
        raise checks.InputError(
            f"{config.ind}: holds {len(ind.x)} images, and a fifth of them or "
            f"--validation, {count} images, would standardise layers and choose the "
            f"threshold; {FEWEST} are needed, {5 * FEWEST} images in all"
        )
    order = np.asarray(
        jax.random.permutation(jax.random.fold_in(key, _SPLIT), len(ind.x))
    )
    half, held, tested = map(np.sort, np.split(order, [count // 2, count]))
    noise = fssd_jax.uniform_noise(
        jax.random.fold_in(key, _NOISE), config.noise, ind.x.shape[1:]
    )
    images = Images(
        validation=ind.x[half],
        calibration=ind.x[held],
        ind=ind.x[tested],
        ood=sets["ood"].x,
        noise=np.asarray(noise),
    )
    return images, ind.y[tested]


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(logits.argmax(1) == y))


def _facts(row: Scored) -> dict[str, Any]:
    found = metrics.evaluate(row.ind, row.ood)._asdict()
    return found | {"fitted_on": row.fitted_on, "note": row.note}


def to_sheet(facts: dict[str, Any]) -> tables.Sheet:
    counts, rows = facts["counts"], []
    for name, row in facts["rows"].items():
        cells = []
        for metric in tables.METRICS:
            low, high = (100 * v for v in row[f"{metric}_ci95"])
            cells.append(f"{100 * row[metric]:.1f} [{low:.1f}, {high:.1f}]")
        inverted = "inverted" if name.startswith("fssd") and row["auroc"] < 0.5 else ""
        told = "; ".join(part for part in (row["note"], inverted) if part)
        rows.append([name, *cells, row["fitted_on"], told])
    notes = [
        f"In %, [95 % bootstrap interval of the images]; in-distribution is positive. "
        f"{counts['ind']:,} in-distribution and {counts['ood']:,} OoD images, "
        f"{counts['noise']:,} samples of noise for F*. No OoD image served to fit or "
        "choose anything. A layer alone is Eq. (1) as it stands; clean: layers "
        "standardised by in-distribution images.",
        "A method that does not pass the controls shows nothing of the training. The "
        "untrained network's BatchNorm has the statistics of in-distribution images.",
    ]
    if facts["accuracy"] is None:
        notes.append(
            "Accuracy: not known, the in-distribution images are of more or fewer "
            "class folders than the network has classes."
        )
    else:
        notes.append(
            f"Accuracy {100 * facts['accuracy']:.1f} %, if class folders in sorted "
            "order are the network's classes. At chance: another order, or mean and "
            "std are not those of the training."
        )
    notes += [f"{name}: {of['source']}" for name, of in facts["data"].items()]
    title = f"{facts['model']}, seed {facts['seed']}: no OoD image used"
    headings = ["method", *(m.upper() for m in tables.METRICS), "fitted on", ""]
    return tables.Sheet(title, headings, rows, notes)


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
