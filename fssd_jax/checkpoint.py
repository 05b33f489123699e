"""Weights on disk, by Orbax: what training needs to go on after a kill.

A folder holds `run.json` (what decides the weights), `initial/` (the variables before
the first step) and `epoch-00007/` (the whole training state after seven epochs; older
ones are removed once it is complete). `epoch-00007-step-0000400/` (400 steps later) and
`snapshot-00004/` (the variables alone, kept) are there where they were asked for. All
are written under a temporary name and renamed, so a killed run leaves no half state.
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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from filelock import FileLock, Timeout
from jax.extend.core import ClosedJaxpr

from fssd_jax import checks, processes
from fssd_jax.checks import InputError
from fssd_jax.compiled import outline
from fssd_jax.data.image_files import located

INITIAL = "initial"
RUN = "run.json"
BESIDE = "the network's fields"
LOCK = "run.lock"
# Epochs, and steps beyond; a half-written one has more after it.
_OURS = re.compile(r"epoch-(\d{5,})(?:-step-(\d{7,}))?")
CHUNK = 1 << 24  # bytes of an array that are digested together


class Progress(NamedTuple):
    """How far a training has come: all that its next step takes."""

    state: Any
    history: np.ndarray  # [epoch, 2]
    totals: Any  # [2], of the epoch that is not finished
    epoch: int = 0  # finished epochs
    step: int = 0  # and steps of the next


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Create the folder and hold it; a process that comes later waits.

    The lock is the operating system's, and goes with the process that holds it.

    Raises:
      InputError: the folder could not be written.
    """
    lock = FileLock(folder / LOCK)

    def hold() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                print(f"waiting for the run that trains in {folder}", file=sys.stderr)
                lock.acquire()
        except OSError as error:
            raise _cannot_write(folder, error) from error

    processes.agreed(hold)  # the first holds it for all
    try:
        yield
    finally:
        lock.release()


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write to {folder.absolute()}: {error.strerror}; choose another folder"
    )


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
      InputError: the folder is that of another run, or cannot be written.
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
    try:
        unfinished.write_text(json.dumps(run | {BESIDE: dict(beside)}, indent=2))
        unfinished.replace(path)
    except OSError as error:
        raise _cannot_write(folder, error) from error


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
        typed = isinstance(getattr(leaf, "dtype", None), np.dtype)
        if not typed and not isinstance(leaf, jax.Array):  # a number, or PyTorch's
            leaf = checks.to_numpy(leaf, "what is digested")
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
        if processes.is_lost(error):
            raise
        full = "No space left" in str(error)
        raise InputError(
            f"cannot write the checkpoint {path} "
            f"({'the disk is full' if full else type(error).__name__}); free space or "
            "choose another folder, and run again: it goes on from the last one"
        ) from error


def restore(path: Path, like: Any, delete: Path | None = None) -> Any:
    """Read a pytree with the structure, shapes and dtypes of `like`.

    Args:
      path: the checkpoint's folder.
      like: the pytree.
      delete: the folder without which training makes anew what cannot be read; None:
        `path`.

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
        if processes.is_lost(error):
            raise
        raise InputError(
            f"cannot read the checkpoint {path}: it is damaged or of another network "
            f"({type(error).__name__}); delete {delete or path}, and train again"
        ) from error
    return tree


def trained(folder: str | Path) -> tuple[Any, Any]:
    """(variables after the last epoch, variables before the first) of `train(folder=)`.

    Raises:
      InputError: no such training, one that has not come to its first checkpoint, or a
        damaged one.
    """
    folder = located(folder)
    last = last_epoch(folder)
    if not last or not (folder / INITIAL).exists():
        raise InputError(
            f"{folder}: holds no training with a finished epoch; give the folder of "
            "train(..., folder=...), or a file of weights"
        )
    path = epoch_path(folder, last)
    try:
        state, _ = _as_numpy(path)
        path = folder / INITIAL
        return jax.device_put((state["variables"], _as_numpy(path)))
    except Exception as error:  # as of `restore`
        if processes.is_lost(error):
            raise
        if last_epoch(folder) > last:  # a training that goes on removed it
            return trained(folder)
        raise InputError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__}): it is "
            f"damaged; delete {folder}, and train again"
        ) from error


def _as_numpy(path: Path) -> Any:
    """A checkpoint's arrays, on whichever devices of whichever processes they lay."""
    with _quiet(), ocp.PyTreeCheckpointer() as checkpointer:
        told = checkpointer.metadata(path.absolute()).item_metadata.tree
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), told)
        return checkpointer.restore(path.absolute(), restore_args=numpy)


def recorded(folder: str | Path) -> dict[str, list[float]]:
    """What `claim` wrote beside; nothing of a folder without a record of that."""
    try:
        return dict(json.loads((located(folder) / RUN).read_text())[BESIDE])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05d}"


def snapshot_path(folder: Path, epoch: int) -> Path:
    return folder / f"snapshot-{epoch:05d}"


def _saved(folder: Path) -> list[tuple[int, int]]:
    """(epochs, steps beyond) of the complete checkpoints, the newest last."""
    found = [_OURS.fullmatch(path.name) for path in folder.glob("epoch-*")]
    return sorted((int(f[1]), int(f[2] or 0)) for f in found if f)


def last_epoch(folder: Path) -> int:
    """The newest complete epoch in `folder`; 0 if there is none."""
    return max((epoch for epoch, step in _saved(folder) if not step), default=0)


def keep(folder: Path, progress: Progress) -> None:
    """Save, and remove what is older, and what a killed run left half-written.

    Within an epoch the last whole one is kept, which `trained` reads.
    """
    path = epoch_path(folder, progress.epoch)
    kept = {epoch_path(folder, last_epoch(folder))} if progress.step else set()
    what: tuple = progress.state, progress.history
    if progress.step:
        path = path.with_name(f"{path.name}-step-{progress.step:07d}")
        what = *what, progress.totals
    save(path, what)
    for other in folder.glob("epoch-*") if processes.first() else ():
        if _OURS.match(other.name) and other not in kept | {path}:
            shutil.rmtree(other)


def resume(folder: Path, initial: Any, begun: Progress) -> tuple[Any, Progress]:
    """(initial variables, progress) that an earlier run left, or else as given."""
    there, found = processes.agreed(
        lambda: ((folder / INITIAL).exists(), _saved(folder))
    )
    if there:
        initial = restore(folder / INITIAL, initial)
    else:
        save(folder / INITIAL, initial)
    if not found:
        return initial, begun
    epoch, step = found[-1]
    path = epoch_path(folder, epoch)
    like: tuple = begun.state, begun.history
    if step:
        path = path.with_name(f"{path.name}-step-{step:07d}")
        like = *like, begun.totals
    state, history, *totals = restore(path, like)
    progress = Progress(state, np.array(history), begun.totals, epoch, step)
    return initial, progress._replace(totals=totals[0]) if step else progress
