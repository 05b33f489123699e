"""How a training is laid over devices: the batch along them, the weights on each."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import AXIS, chosen_mesh

LEAST = 1 << 14  # numbers of an array that is kept in parts: of fewer, sending is worse


def mesh_for(batch_size: int, mesh: Mesh | None) -> Mesh | None:
    """The devices over which batches are laid; None: the default one, alone.

    By default all local devices, or of them the most that divide the batch.

    Raises:
      InputError: a mesh of another axis, or that does not divide the batch.
    """
    found = chosen_mesh(mesh)
    if found is None:
        return None
    if mesh is not None and batch_size % found.size:
        raise InputError(
            f"mesh: {found.size} devices do not divide a batch of {batch_size}; choose "
            f"a batch_size that is a multiple of {found.size}"
        )
    count = math.gcd(batch_size, found.size)
    # Made anew: of the caller's the types of axes may be explicit.
    devices = np.asarray(found.devices).ravel()[:count]
    return Mesh(devices, (AXIS,)) if count > 1 or mesh is not None else None


def on_each(tree: Any, mesh: Mesh | None) -> Any:
    """A copy on each device."""
    return tree if mesh is None else jax.device_put(tree, _shared(mesh))


def along(tree: Any, mesh: Mesh | None) -> Any:
    """The first axis, of the batch, in parts; as it is, without a mesh."""
    if mesh is None:
        return tree
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def in_parts(tree: Any, mesh: Mesh | None) -> Any:
    """Each large array in parts along the longest axis that the devices divide."""
    if mesh is None:
        return tree

    def sharding(array) -> NamedSharding:
        axes = [axis for axis, n in enumerate(array.shape) if n and n % mesh.size == 0]
        if not axes or array.size < LEAST:
            return _shared(mesh)
        longest = max(axes, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))

    return jax.tree.map(lambda a: jax.device_put(a, sharding(a)), tree)


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


def _shared(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())
