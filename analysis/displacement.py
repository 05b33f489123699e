"""How far features moved in training, and what of FSSD² that is.

    FSSD(x)² = ‖Δ‖² + 2⟨Δ, o⟩ + ‖o‖²,   Δ = F_T(x) − F_0(x),   o = F_0(x) − F*

The step from Eq. (1) to Eq. (4) of Huang et al. (2021), F* ≈ F_0(x), is o ≈ 0. F* may
be taken to move, too.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.centres import Centre, by_layer, same_centre
from fssd_jax import checks
from fssd_jax.compiled import compiled
from fssd_jax.data.pipeline import batches, map_batches
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool
from fssd_jax.shown import brief

Features = OrderedDict[str, Array]  # layer → [points, dim]


def displacement(
    feature_fn: FeatureFn, initial: Variables, final: Variables, x, batch_size: int = 64
) -> OrderedDict[str, np.ndarray]:
    """F_T(x) − F_0(x) of every layer [n, dim]: what both forms are to equal."""
    parts, masks = [], []
    for part, mask, _ in batches(x, batch_size, "points", unit_range=False):
        parts.append(moved(feature_fn, initial, final, part))
        masks.append(mask)
    return joined(parts, masks)


@compiled(static=1)
def moved(feature_fn, initial, final, x) -> Features:
    """F_T(x) − F_0(x) of every layer of one batch, flattened."""
    ends = [pool(features_of(feature_fn, v, x), "flatten") for v in (final, initial)]
    return jax.tree.map(jnp.subtract, *ends)


def joined(parts: Sequence, masks: Sequence) -> OrderedDict[str, np.ndarray]:
    """Batches as one array a layer, without the padded rows."""
    if parts[0] is None:
        raise checks.InputError("no step was followed yet: train(..., on_step=...)")
    rows = list(zip(parts, masks, strict=True))
    return OrderedDict(
        (layer, np.concatenate([np.asarray(part[layer])[mask] for part, mask in rows]))
        for layer in parts[0]
    )


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """‖found − expected‖ / ‖expected‖ over all points; 0 where both are 0."""
    gap = np.linalg.norm(np.subtract(found, expected))
    size = np.linalg.norm(expected)
    return float(gap / size) if size else float(np.inf if gap else 0)


def relative_errors(found, expected) -> OrderedDict[str, float]:
    """`relative_error` of each layer."""
    return OrderedDict((k, relative_error(f, expected[k])) for k, f in found.items())


class Terms(NamedTuple):
    """FSSD² = ‖Δ‖² + 2⟨Δ, o⟩ + ‖o‖²: see `decompose` for Δ and o.

    All [n, layers].
    """

    moved: np.ndarray  # ‖Δ‖²
    cross: np.ndarray  # 2⟨Δ, o⟩
    offset: np.ndarray  # ‖o‖²

    __repr__ = brief

    def shares(self, chosen: Any = slice(None)) -> "Terms":
        """Each term's share in the sum of FSSD² over some points, [layers].

        They add up to 1; where all of these points lie at the centre they are NaN.

        Args:
          chosen: which points: a slice, a mask [n], or their numbers.
        """
        if not np.size(self.moved[chosen]):
            raise checks.InputError(
                f"shares: none of the {len(self.moved)} points is chosen"
            )
        sums = [np.sum(term[chosen], axis=0, dtype=np.float64) for term in self]
        total = sum(sums)
        nowhere = np.full_like(total, np.nan)
        return Terms(
            *(np.divide(s, total, out=nowhere.copy(), where=total > 0) for s in sums)
        )


def decompose(
    feature_fn: FeatureFn,
    initial: Variables,
    final: Variables,
    singularity: Centre,
    x,
    batch_size: int = 64,
    unit_range: bool = True,
    *,
    initial_singularity: Centre | None = None,
) -> Terms:
    """The three terms of FSSD², or of any squared distance, for every point and layer.

        Δ = F_T(x) − F_0(x),                   o = F_0(x) − F*_T,

    in which o holds the movement of F* itself. Or, with F*_0, relative to it:

        Δ = F_T(x) − F_0(x) − (F*_T − F*_0),   o = F_0(x) − F*_0.

    Args:
      feature_fn: the layers, whose order is that of the columns.
      initial: the variables before training.
      final: those after it.
      singularity: F*_T of the trained network, or any other centre there, such as the
        mean feature of training images: see `analysis.centres`.
      x: points [n, ...].
      batch_size: points per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      initial_singularity: F*_0, the same centre before training, of the same layers;
        None: the centre rests where it is after training.
    """
    end = by_layer(singularity)
    start = end if initial_singularity is None else by_layer(initial_singularity)
    same_centre("initial_singularity", start, {k: c[None] for k, c in end.items()})
    found = map_batches(
        *(_terms, feature_fn, final, (initial, start, end), x),
        batch_size=batch_size,
        batch_axis=1,
        unit_range=unit_range,
    )
    return Terms(*found)


def _terms(feature_fn, final, state, x) -> Float[Array, "3 batch layers"]:
    initial, start, end = state
    ends = final, initial
    now, then = (pool(features_of(feature_fn, v, x), "flatten") for v in ends)
    same_centre("singularity", end, now)
    rows = []
    for layer in now:
        center = end[layer]
        # The centre's own movement apart, which is 0 where it rests.
        moved = now[layer] - then[layer] - (center - start[layer])[None]
        offset = then[layer] - start[layer][None]
        products = (moved * moved, 2 * moved * offset, offset * offset)
        rows.append(jnp.stack([p.sum(-1) for p in products]))
    return jnp.stack(rows, -1)
