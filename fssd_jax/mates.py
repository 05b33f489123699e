"""Whether an image's scores or features depend on what else is in its batch.

They do where a network was left in training mode, and then no score is the image's own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax.checks import InputError
from fssd_jax.compiled import Recent, hashable
from fssd_jax.devices import fetched, own_rows, put, spans
from fssd_jax.outputs import as_pixels

MOST = 0.1  # standard deviations that a score may change by with its batch-mates
ROUNDING = 1e-5  # relative
LAST_DIGITS = 1e-6  # relative, of pixels
TRAINING_MODE = (
    "is the network in training mode (BatchNorm, dropout)? Of Flax, pass train=False, "
    "or what your model calls it, to make_feature_fn; of NNX, call model.eval()"
)

_ALONE: Recent = Recent(256)  # functions whose rows were seen not to depend on others


def check(
    call: Callable, functions: tuple, x: Any, mask: np.ndarray, scores: Any, axis: int
) -> None:
    """Raise `InputError` if a row's score depends on its place or on the other rows.

    Once for each function: its first row, again in the last place and among others
    (see `first_as_last`). By the same program, so that nothing is compiled for it.
    """
    key = tuple(map(hashable, functions))
    if mask.sum() < 2 or _ALONE.get(key):
        return
    again = call(first_as_last(x), np.ones_like(mask))
    each = zip(jax.tree.leaves_with_path(scores), jax.tree.leaves(again), strict=True)
    for number, ((path, a), b) in enumerate(each):
        a, b = (np.moveaxis(np.asarray(s, np.float64), axis, 0) for s in (a, b))
        of = a[mask]
        with np.errstate(all="ignore"):  # of what is not finite others tell
            told_apart = differ(of[0], b[-1], of.std(0))
            if told_apart and (other := in_last_digits(x)) is not None:
                c = jax.tree.leaves(call(other, mask))[number]
                c = np.moveaxis(np.asarray(c, np.float64), axis, 0)
                rounding = 5 * np.abs(c - a)[mask].max(0)
                told_apart = differ(of[0], b[-1], of.std(0) + rounding / MOST)
        if told_apart:
            raise InputError(
                f"the score{jax.tree_util.keystr(path)} of an image depends on what "
                f"else is in its batch: {TRAINING_MODE}"
            )
    _ALONE.put(key, True)


def first_as_last(x: Any) -> Any:
    """A batch of copies of the second row of `x`, and the first row in the last place.

    If a device has two rows or one, of copies of the first: the two, changed about,
    would have the same mean.
    """

    def moved(a):
        mesh = getattr(a.sharding, "mesh", None)
        own = np.asarray(fetched(a, mesh))  # an index into `a` would be compiled
        other = 1 if len(own) > 2 * len(a.sharding.device_set) else 0
        rows = np.repeat(own[other : other + 1], len(own), axis=0)
        rows[-1] = own[0]
        if spans(mesh):
            return put(rows[own_rows(mesh, len(rows))], a.sharding, own=True)
        return jax.device_put(rows, a.sharding)

    return jax.tree.map(moved, x)


def in_last_digits(x: Any) -> Any:
    """`x` with other last digits; None of ids, which have none.

    Another place in the batch changes them, too. Some scores hang on them, as after an
    input step where gradients are all but 0, with covariances that are nearly singular,
    or where all deviations are 0; and a network in training mode does not.
    """
    leaves, structure = jax.tree.flatten(as_pixels(x))
    floats = [jnp.issubdtype(a.dtype, jnp.floating) for a in leaves]
    pairs = zip(leaves, floats, strict=True)
    scaled = [a * (1 - LAST_DIGITS) if moves else a for a, moves in pairs]
    return structure.unflatten(scaled) if any(floats) else None


def differ(a, b, scale) -> bool:
    """Whether a and b differ by more than rounding and MOST times `scale`."""
    size = np.maximum(np.abs(a), np.abs(b))
    return bool((np.abs(a - b) > MOST * scale + ROUNDING * size).any())
