"""Where arrays lie: rows along the devices of a mesh, or a copy on each.

A mesh may span several processes (see `processes`). Then each puts its own rows in
place, and `fetched` sends to each what all have computed.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fssd_jax import processes
from fssd_jax.checks import InputError

P = ParamSpec("P")
T = TypeVar("T")
AXIS = "data"  # of the mesh: along it lie the rows of a batch
NO_MESH = Mesh(np.empty((), object), ())


def apart(call: Callable[P, T]) -> Callable[P, T]:
    """A decorator: a call to which `jax.set_mesh` and typed shardings mean nothing.

    Our programs lay arrays over devices by themselves, and JAX refuses those of a mesh
    of the user's beside them, if its axes are explicit, as `jax.make_mesh` makes them.
    Arrays stay where they lie; what comes out whole on each device of such a mesh is of
    that mesh.
    """

    @wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        leaves, structure = jax.tree.flatten((args, kwargs))
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return call(*args, **kwargs)  # a part of the user's program
        meshes = [leaf.sharding.mesh for leaf in leaves if _typed(leaf)]
        if meshes:
            leaves = [_untyped(leaf) if _typed(leaf) else leaf for leaf in leaves]
            args, kwargs = structure.unflatten(leaves)
        within = nullcontext()
        if not jax.sharding.get_abstract_mesh().empty:
            meshes = [jax.sharding.get_mesh()]
            within = jax.set_mesh(NO_MESH)
        with within:
            found = call(*args, **kwargs)
        return jax.tree.map(partial(_of, meshes[0]), found) if meshes else found

    return called


def _of(mesh: Mesh, leaf: Any) -> Any:
    lies = getattr(leaf, "sharding", None)
    if not isinstance(lies, NamedSharding) or not lies.is_fully_replicated:
        return leaf
    explicit = AxisType.Explicit in mesh.axis_types
    if not explicit or lies.device_set != set(mesh.devices.flat):
        return leaf
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))


def _typed(leaf: Any) -> bool:
    """Whether it lies on a mesh that has explicit axes."""
    if not isinstance(leaf, jax.Array) or not isinstance(leaf.sharding, NamedSharding):
        return False
    return AxisType.Explicit in leaf.sharding.mesh.axis_types


def _untyped(leaf: jax.Array) -> jax.Array:
    lies: Any = leaf.sharding
    mesh = Mesh(lies.mesh.devices, lies.mesh.axis_names)
    return jax.device_put(leaf, NamedSharding(mesh, lies.spec))


def default_mesh(*, all_processes: bool = False) -> Mesh | None:
    """All local devices along one axis; None of one, or with `jax.default_device`.

    Args:
      all_processes: whether to take the devices of all, if they work together.
    """
    if all_processes and processes.several():
        return Mesh(np.array(jax.devices()), (AXIS,))
    devices = jax.local_devices()
    chosen = getattr(jax.config, "jax_default_device")  # noqa: B009
    if len(devices) == 1 or chosen is not None:
        return None
    return Mesh(np.array(devices), (AXIS,))


def chosen_mesh(mesh: Any, *, all_processes: bool = False) -> Mesh | None:
    """`mesh`, or `default_mesh`; raises `InputError` for one of another axis."""
    if mesh is None:
        return default_mesh(all_processes=all_processes)
    if getattr(mesh, "axis_names", None) != (AXIS,):
        raise InputError(
            f'mesh: expected one axis, jax.make_mesh((count,), ("{AXIS}",)), got {mesh}'
        )
    if spans(mesh) and not processes.several():
        raise InputError(
            "mesh: has devices of other processes; begin by fssd_jax.processes.begin() "
            "in the place of jax.distributed.initialize()"
        )
    return Mesh(mesh.devices, (AXIS,))  # whatever the type of its axis


def spans(mesh: Mesh | None) -> bool:
    """Whether some of its devices are another process's."""
    return mesh is not None and mesh.is_multi_process


def own_rows(mesh: Mesh | None, size: int) -> slice:
    """Which rows of a batch of `size` lie on devices of this process."""
    if mesh is None or not spans(mesh):
        return slice(0, size)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    parts = sharding.addressable_devices_indices_map((size,)).values()
    ends = [part[0].indices(size)[:2] for part in parts if part is not None]
    start, stop = min(low for low, _ in ends), max(high for _, high in ends)
    if stop - start != sum(high - low for low, high in ends):
        raise InputError("mesh: the devices of a process do not lie side by side in it")
    return slice(start, stop)


def place(tree: Any, mesh: Mesh | None, axis: str | None = None) -> Any:
    """On the devices: rows along `axis` of the mesh, or else a copy on each.

    Of a mesh that spans processes all have the same arrays, or of rows their own
    (`own_rows`).
    """
    if mesh is None:
        return jax.device_put(tree)
    spec = PartitionSpec() if axis is None else PartitionSpec(axis)
    sharding = NamedSharding(mesh, spec)
    if not spans(mesh):
        return jax.device_put(tree, sharding)
    return jax.tree.map(partial(put, sharding=sharding, own=axis is not None), tree)


def put(a: Any, sharding: NamedSharding, own: bool = False) -> Any:
    """An array of this process in its place among those of others.

    Args:
      a: the array.
      sharding: how it is to lie.
      own: whether `a` is this process's rows of it, and not all.
    """
    if isinstance(a, bool | int | float | complex):
        return a  # which is the same everywhere, and takes another's type
    if isinstance(a, jax.Array) and not a.is_fully_addressable:
        return a
    if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(a), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
    a = np.asarray(a)
    if own:
        return jax.make_array_from_process_local_data(sharding, a)
    return jax.make_array_from_callback(a.shape, sharding, lambda at: a[at])


def fetched(tree: Any, mesh: Mesh | None) -> Any:
    """The same, sent to all processes if the mesh spans them."""
    return _sent(mesh)(tree) if mesh is not None and spans(mesh) else tree


@cache
def _sent(mesh: Mesh):
    return jax.jit(
        lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec())
    )


def own_copy(tree: Any, mesh: Mesh | None) -> Any:
    """What lies whole on each device of all processes, as arrays of this one."""
    return jax.tree.map(_local, tree) if spans(mesh) else tree


def _local(a: jax.Array) -> jax.Array:
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        data = _local(jax.random.key_data(a))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
    # By way of NumPy: what is bound to one device does not go with the others.
    return jax.device_put(np.asarray(a.addressable_data(0)))
