"""Centres other than the noise's: distances of all layers to several in one pass.

A centre is a `Singularity`, of any images (`fssd_jax.estimate_singularity` of training
images gives their mean feature), or a mapping of layer to a point there, such as the
mean feature of a class.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import map_batches
from fssd_jax.fssd import Singularity, norm
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool, same_sizes

Centre = Singularity | Mapping[str, Any]


def by_layer(centre: Centre) -> OrderedDict[str, Float[Array, " dim"]]:
    """layer → the centre there, flattened."""
    found = centre.center if isinstance(centre, Singularity) else centre
    return OrderedDict((layer, jnp.ravel(point)) for layer, point in found.items())


def centre_distances(
    feature_fn: FeatureFn,
    variables: Variables,
    centres: Mapping[str, Centre],
    x,
    batch_size: int = 64,
    unit_range: bool = True,
) -> dict[str, Float[np.ndarray, "n layers"]]:
    """‖F_k(x) − c_k‖ of every layer k, centre → [n, layers]; the network runs once.

    Args:
      feature_fn: the layers, whose order is that of the columns.
      variables: the network's variables.
      centres: name → centre, of the same layers in any order.
      x: points [n, ...].
      batch_size: points per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: no centre, or one of other layers or sizes than the features.
    """
    if not centres:
        raise InputError("centres: there are none; expected name → centre")
    # OrderedDicts, because `jit` sorts the keys of plain ones.
    state = OrderedDict((name, by_layer(of)) for name, of in centres.items())
    found = map_batches(
        *(_distances, feature_fn, variables, state, x),
        batch_size=batch_size,
        batch_axis=1,
        unit_range=unit_range,
    )
    return dict(zip(state, found, strict=True))


def _distances(feature_fn, variables, centres, x) -> Float[Array, "centre batch layer"]:
    features = pool(features_of(feature_fn, variables, x), "flatten")
    rows = []
    for name, centre in centres.items():
        same_centre(name, centre, features)
        rows.append(
            jnp.stack([norm(f - centre[k][None]) for k, f in features.items()], -1)
        )
    return jnp.stack(rows)


def same_centre(name: str, centre: Mapping, features: Mapping) -> None:
    """Raise `InputError` unless a centre has the layers of `features`, and their sizes.

    Args:
      name: of the centre, for errors.
      centre: layer → [dim].
      features: layer → [batch, dim].
    """
    if set(centre) != set(features):
        raise InputError(
            f"centre {name!r} has layers {list(centre)}, and the features have "
            f"{list(features)}; take both from one feature_fn"
        )
    try:
        same_sizes(centre, features)
    except InputError as error:
        raise InputError(f"centre {name!r}: {error}") from None
