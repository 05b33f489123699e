"""Trained networks, kept on disk under a name that tells all that decides them."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn

from experiments.harness import provenance
from experiments.harness.files import writable
from fssd_jax import checkpoint, losses, processes, recipes, train
from fssd_jax.data import crops
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.records import Transform
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.outputs import Variables


def trained(
    model: nn.Module,
    data: ArrayDataset,
    *,
    cache: Path,
    seed: int,
    epochs: int,
    num_classes: int,
    batch_size: int = 64,
    recipe=recipes.lenet,
    initial: Variables | None = None,
    outliers: ArrayDataset | None = None,
    augment: Callable | None = None,
    crop: Transform | None = None,
    loss: Callable = losses.cross_entropy,
    snapshots: Sequence[int] = (),
    save_every: int = 1,
    save_every_steps: int | None = None,
    shard_optimiser: bool = False,
    cores: int | None = None,
    progress: bool = True,
) -> train.Trained:
    """Train, or take the weights of an equal earlier run, or go on with a killed one.

    The folder's name is a digest of what decides the weights: the arguments, the data,
    the code of the model and of the training, and JAX's own configuration; not what
    suits the machine (`harness.machine`). Images that
    are decoded as they come are cut by `crop`, which those in memory do not need.
    """
    identity: dict[str, Any] = {
        "model": repr(model),
        "data": provenance.training_digest(data),
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "recipe": recipe.__name__,
        "initial": None if initial is None else checkpoint.tree_digest(initial),
        "outliers": None if outliers is None else provenance.training_digest(outliers),
        "snapshots": tuple(snapshots),
        "code": [
            provenance.code_digest(name, packages=False)
            for name in (train.__name__, type(model).__module__)
        ],
        "versions": {
            name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        },
        "numerics": provenance.numerics(),
        "device": provenance.device(),
        "cores": cores or provenance.cores_of_sums(),
    }
    if augment is not None:
        of_augment = provenance.code_digest(augment.__module__, packages=False)
        identity["augment"] = augment.__name__, of_augment
    if loss is not losses.cross_entropy:
        identity["loss"] = loss.__name__  # its code is among the training's
    decoded = isinstance(data.x, Decoded)
    if decoded:
        identity["crop"] = _spelled(crop), provenance.code_digest(crops.__name__, False)
    digest = provenance.config_digest(identity)
    processes.check_same("data, code or versions of a training", digest)
    folder = cache / f"{type(model).__name__.lower()}-{seed}-{digest}"
    writable(folder)
    return train.train(
        model,
        _fed(data, crop),
        None if decoded else data.y,
        num_classes=num_classes,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        recipe=recipe,
        initial=initial,
        outliers=None if outliers is None else _fed(outliers, crop),
        loss=loss,
        augment=augment,
        snapshots=snapshots,
        folder=folder,
        save_every=save_every,
        save_every_steps=save_every_steps,
        shard_optimiser=shard_optimiser,
        progress=progress and checkpoint.last_epoch(folder) < epochs,
    )


def _fed(data: ArrayDataset, crop: Transform | None):
    """What `train` is given: an array, or records."""
    if not isinstance(data.x, Decoded):
        return data.x
    cut = partial(crops.centre_crop, size=data.x.side, resize=data.x.resize)
    return data.x.records(data.y, crop or cut)


def _spelled(crop: Transform | None) -> str:
    """A function, perhaps with some arguments, without where in memory it is."""
    if isinstance(crop, partial):
        return f"{_spelled(crop.func)} {crop.args} {crop.keywords}"
    return getattr(crop, "__qualname__", repr(crop))
