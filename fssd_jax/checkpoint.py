"""Weights on disk, by Orbax: what training needs to go on after a kill.

A folder holds `run.json` (what decides the weights), `initial/` (the variables before
the first step) and `epoch-00007/` (the whole training state after seven epochs; older
ones are removed once it is complete). `snapshot-00004/` (the variables alone, kept) is
there where it was asked for. All are written under a temporary name and renamed, so a
killed run leaves no half state.
"""

import hashlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from filelock import FileLock, Timeout
from jax.extend.core import ClosedJaxpr

from fssd_jax.checks import InputError
from fssd_jax.compiled import outline

INITIAL = "initial"
RUN = "run.json"
BESIDE = "the network's fields"
LOCK = "run.lock"
_OURS = re.compile(r"epoch-\d{5,}")  # a half-written one has more after it
CHUNK = 1 << 24  # bytes of an array that are digested together


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Create the folder and hold it; a process that comes later waits.

    The lock is the operating system's, and goes with the process that holds it.

    Raises:
      InputError: the folder could not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(f"waiting for the run that trains in {folder}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise InputError(
            f"cannot write to {folder.absolute()}: {error.strerror}; choose another "
            "folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def claim(
    folder: Path, run: Mapping[str, Any], beside: Mapping[str, list[float]]
) -> None:
    """Make the folder that of a run, or see that it is so already.

    Args:
      folder: of checkpoints.
      run: all that decides the weights, by names for the reader: pytrees of arrays,
        which are digested, jaxprs, and JSON data.
      beside: what is written there, too, for who scores the network (`recorded`).

    Raises:
      InputError: the folder is that of another run.
    """
    run = {name: _described(value) for name, value in run.items()}
    path = folder / RUN
    if path.exists():
        try:
            known = json.loads(path.read_text())
            differ = [name for name in run if known[name] != run[name]]
        except (ValueError, KeyError, TypeError):
            known, differ = {}, ["its record, which is damaged"]
    else:
        found = (folder / INITIAL).exists() or last_epoch(folder)
        known, differ = {}, ["its record, which is missing"] if found else []
    if differ:
        told = [
            f"{name} ({known[name]} then, {run[name]} now)"
            if name in known and isinstance(run[name], int | list)
            else name
            for name in differ
        ]
        raise InputError(
            f"{folder} holds the weights of another run. What differs: "
            f"{', '.join(told)}. Choose another folder, or delete this one to train "
            "afresh"
        )
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(run | {BESIDE: dict(beside)}, indent=2))
    unfinished.replace(path)


def _described(value: Any) -> Any:
    """What stands for a value in `run.json`: itself, or a digest."""
    if value is None or isinstance(value, int | list):
        return value
    return tree_digest(outline(value) if isinstance(value, ClosedJaxpr) else value)


def tree_digest(tree: Any) -> str:
    """SHA-256 of a pytree's structure, and of its arrays' types, shapes and bytes."""
    leaves, structure = jax.tree.flatten(tree)
    total = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        if not hasattr(leaf, "shape"):
            leaf = np.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total.update(f"{leaf.dtype}{leaf.shape}".encode())
        if leaf.ndim == 0:
            leaf = leaf[None]
        rows = max(1, CHUNK // max(1, leaf[:1].nbytes))
        for start in range(0, len(leaf), rows):  # it may be mapped from a file
            part = np.ascontiguousarray(leaf[start : start + rows])
            total.update(part.tobytes())
    return total.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that Orbax logs: what fails becomes one error of ours."""
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def save(path: Path, tree: Any) -> None:
    """Write a pytree of arrays to the folder `path`, all or nothing.

    Raises:
      InputError: it could not be written.
    """
    try:
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), tree, force=True)
    except Exception as error:  # Orbax has no common base for what can go wrong
        full = "No space left" in str(error)
        raise InputError(
            f"cannot write the checkpoint {path} "
            f"({'the disk is full' if full else type(error).__name__}); free space or "
            "choose another folder, and run again: it goes on from the last one"
        ) from error


def restore(path: Path, like: Any) -> Any:
    """Read a pytree with the structure, shapes and dtypes of `like`.

    Raises:
      InputError: the checkpoint is damaged or of another network.
    """
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
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


def trained(folder: Path) -> tuple[Any, Any]:
    """(variables after the last epoch, variables before the first) of `train(folder=)`.

    Raises:
      InputError: no such training, one that has not come to its first checkpoint, or a
        damaged one.
    """
    last = last_epoch(folder)
    if not last or not (folder / INITIAL).exists():
        raise InputError(
            f"{folder}: holds no training with a finished epoch; give the folder of "
            "train(..., folder=...), or a file of weights"
        )
    path = epoch_path(folder, last)
    try:
        with _quiet(), ocp.StandardCheckpointer() as checkpointer:
            state, _ = checkpointer.restore(path.absolute())
            path = folder / INITIAL
            initial = checkpointer.restore(path.absolute())
        return jax.device_put((state["variables"], initial))
    except Exception as error:  # as of `restore`
        if last_epoch(folder) > last:  # a training that goes on removed it
            return trained(folder)
        raise InputError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__}): it is "
            f"damaged; delete {folder}, and train again"
        ) from error


def recorded(folder: Path) -> dict[str, list[float]]:
    """What `claim` wrote beside; nothing of a folder without a record of that."""
    try:
        return dict(json.loads((folder / RUN).read_text())[BESIDE])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}"


def snapshot_path(folder: Path, epoch: int) -> Path:
    return folder / f"snapshot-{epoch:05d}"


def last_epoch(folder: Path) -> int:
    """The newest complete epoch in `folder`; 0 if there is none."""
    found = [p.name for p in folder.glob("epoch-*") if _OURS.fullmatch(p.name)]
    return max((int(name.removeprefix("epoch-")) for name in found), default=0)


def keep_only(folder: Path, epoch: int) -> None:
    """Remove older epochs and what a killed run left half-written."""
    for path in folder.glob("epoch-*"):
        if _OURS.match(path.name) and path != epoch_path(folder, epoch):
            shutil.rmtree(path)
