"""Trained networks, kept on disk under a name that tells all that decides them."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn

from experiments.harness import provenance
from experiments.harness.files import writable
from fssd_jax import checkpoint, recipes, train
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
    snapshots: Sequence[int] = (),
    save_every: int = 1,
    cores: int | None = None,
    progress: bool = True,
) -> train.Trained:
    """Train, or take the weights of an equal earlier run, or go on with a killed one.

    The folder's name is a digest of what decides the weights: the arguments, the data,
    the code of the model and of the training, and JAX's own configuration.
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
        # How many cores share a sum decides its last bits.
        "cores": cores or provenance.available_cores(),
    }
    if augment is not None:
        of_augment = provenance.code_digest(augment.__module__, packages=False)
        identity["augment"] = augment.__name__, of_augment
    digest = provenance.config_digest(identity)
    folder = cache / f"{type(model).__name__.lower()}-{seed}-{digest}"
    writable(folder)
    return train.train(
        model,
        data.x,
        data.y,
        num_classes=num_classes,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        recipe=recipe,
        initial=initial,
        outliers=None if outliers is None else outliers.x,
        augment=augment,
        snapshots=snapshots,
        folder=folder,
        save_every=save_every,
        progress=progress and checkpoint.last_epoch(folder) < epochs,
    )
