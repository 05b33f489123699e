"""Weights on disk, by Orbax: what training needs to go on after a kill.

A folder holds `initial/` (the variables before the first step) and `epoch-00007/` (the
whole training state after seven epochs; older ones are removed once it is complete).
`snapshot-00004/` (the variables alone, kept) is there where it was asked for.
Orbax writes under a temporary name and renames, so a killed run leaves no half state.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from fssd_jax.checks import InputError

INITIAL = "initial"


def save(path: Path, tree: Any) -> None:
    """Write a pytree of arrays to the folder `path`, all or nothing."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree, force=True)


def restore(path: Path, like: Any) -> Any:
    """Read a pytree with the structure, shapes and dtypes of `like`.

    Raises:
      InputError: the checkpoint is damaged or of another network.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(path.absolute(), target)
        # Orbax itself lets another shape pass.
        shapes = [[jnp.shape(a) for a in jax.tree.leaves(t)] for t in (tree, like)]
        if shapes[0] != shapes[1]:
            raise ValueError("the arrays have other shapes")
    except Exception as error:  # Orbax has no common base for what can go wrong
        raise InputError(
            f"cannot read the checkpoint {path}: it is damaged or of another network "
            f"({type(error).__name__}); delete that folder to train afresh"
        ) from error
    return tree


def epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}"


def snapshot_path(folder: Path, epoch: int) -> Path:
    return folder / f"snapshot-{epoch:05d}"


def last_epoch(folder: Path) -> int:
    """The newest complete epoch in `folder`; 0 if there is none."""
    found = [p.name for p in folder.glob("epoch-*") if "tmp" not in p.name]
    return max((int(name.removeprefix("epoch-")) for name in found), default=0)


def keep_only(folder: Path, epoch: int) -> None:
    """Remove older epochs and what a killed run left half-written."""
    for path in folder.glob("epoch-*"):
        if path != epoch_path(folder, epoch):
            shutil.rmtree(path)
