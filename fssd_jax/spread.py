"""How a training is laid over devices: the batch along them, the weights on each."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fssd_jax.checks import InputError
from fssd_jax.devices import AXIS, chosen_mesh, place, put, spans

LEAST = 1 << 14  # numbers of an array that is kept in parts: of fewer, sending is worse


def mesh_for(batch_size: int, mesh: Mesh | None) -> Mesh | None:
    """The devices over which batches are laid; None: the default one, alone.

    By default all devices, or of each process's the most that divide its rows.

    Raises:
      InputError: a mesh of another axis, or that does not divide the batch.
    """
    found = chosen_mesh(mesh, all_processes=True)
    if found is None:
        return None
    if mesh is not None and batch_size % found.size:
        raise InputError(
            f"mesh: {found.size} devices do not divide a batch of {batch_size}; choose "
            f"a batch_size that is a multiple of {found.size}"
        )
    devices = np.asarray(found.devices).ravel()
    several = len({device.process_index for device in devices})
    if batch_size % several:
        raise InputError(
            f"{several} processes do not divide a batch of {batch_size}; choose "
            f"another number of them, or a batch_size that is a multiple of {several}"
        )
    # All have as many, and those of a process lie side by side (`devices.own_rows`).
    of_each = devices.reshape(several, -1)
    count = math.gcd(batch_size // several, of_each.shape[1])
    chosen = of_each[:, :count].ravel()
    # Made anew: of the caller's the types of axes may be explicit.
    return Mesh(chosen, (AXIS,)) if len(chosen) > 1 or mesh is not None else None


def on_each(tree: Any, mesh: Mesh | None) -> Any:
    """A copy on each device."""
    return tree if mesh is None else place(tree, mesh)


def along(tree: Any, mesh: Mesh | None) -> Any:
    """The first axis, of the batch, in parts; as it is, without a mesh."""
    return tree if mesh is None else place(tree, mesh, AXIS)


def in_parts(tree: Any, mesh: Mesh | None) -> Any:
    """Each large array in parts along the longest axis that the devices divide."""
    if mesh is None:
        return tree

    def sharding(array) -> NamedSharding:
        axes = [axis for axis, n in enumerate(array.shape) if n and n % mesh.size == 0]
        if not axes or array.size < LEAST:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))

    lay = put if spans(mesh) else jax.device_put
    return jax.tree.map(lambda a: lay(a, sharding(a)), tree)


def placed(results: Any, mesh: Mesh | None) -> dict[str, Any]:
    """Of `jax.jit`: that results lie as these arrays do, with which they are traced."""
    if mesh is None:
        return {}
    return {"out_shardings": jax.tree.map(lambda a: a.sharding, results)}


def anywhere(tree: Any) -> Any:
    """Stands for arrays that lie nowhere: a trace with them is the same on any mesh."""

    def shaped(a) -> jax.ShapeDtypeStruct:
        weak = getattr(a, "weak_type", False)
        return jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=weak)

    return jax.tree.map(shaped, tree)
