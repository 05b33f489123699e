"""How many rows a scored batch may have, by the memory of the devices."""

from collections import OrderedDict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax import fssd, processes
from fssd_jax.devices import default_mesh
from fssd_jax.outputs import FeatureFn, Variables, as_pixels, features_of, pool
from fssd_jax.spread import anywhere

LEAST, MOST = 64, 4096
SHARE = 0.5  # of a device; the rest is for what methods ask beside an input step


def scoring_batch(feature_fn: FeatureFn, variables: Variables, one: Any) -> int:
    """The largest power of two, 64 to 4,096, whose input step fits; on CPUs 64.

    It fits in `SHARE` of each device less what is in use; 64 if one does not tell.
    `one` is an input [1, ...]. Of several processes the first decides.
    """
    return processes.agreed(lambda: _fitting(feature_fn, variables, one))


def _fitting(feature_fn: FeatureFn, variables: Variables, one: Any) -> int:
    devices, count = scoring_devices()
    told = [{} if d.platform == "cpu" else d.memory_stats() or {} for d in devices]
    if not all("bytes_limit" in stats for stats in told):
        return LEAST
    free = min(SHARE * s["bytes_limit"] - s.get("bytes_in_use", 0) for s in told)
    rows = int(free * count / row_bytes(feature_fn, variables, one))
    return 1 << min(MOST, max(LEAST, rows)).bit_length() - 1


def scoring_devices() -> tuple[list[Any], int]:
    """This process's devices, and how many of all share a batch."""
    mesh = default_mesh(all_processes=True)
    if mesh is None:
        return list(jax.device_put(np.float32(0)).devices()), 1
    return list(mesh.local_devices), mesh.size


def row_bytes(feature_fn: FeatureFn, variables: Variables, one: Any) -> float:
    """Of an input step at all layers (of ids, a forward pass), by XLA for `LEAST` rows.

    The weights are none of it: they are in use already.
    """
    x = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((LEAST, *a.shape[1:]), a.dtype), one
    )
    features = jax.eval_shape(partial(features_of, feature_fn), variables, x)
    flat = jax.eval_shape(partial(pool, how="flatten"), features)
    center = OrderedDict((k, f.update(shape=f.shape[1:])) for k, f in flat.items())
    pixels = jax.tree.leaves(jax.eval_shape(as_pixels, x))
    floats = any(jnp.issubdtype(a.dtype, jnp.floating) for a in pixels)
    step = jax.jit(partial(fssd.fssd, feature_fn, epsilon=1e-3 if floats else 0.0))
    singularity: Any = fssd.Singularity(center, None, None)  # pyright: ignore
    lowered = step.lower(anywhere(variables), singularity, x)
    held: Any = lowered.compile().memory_analysis()
    inputs = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(x))
    return (inputs + held.output_size_in_bytes + held.temp_size_in_bytes) / LEAST
