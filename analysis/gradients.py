"""−∇L of Eq. (2) over a data set, batch by batch, where the losses allow it."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from analysis.parameters import directed, parameters, with_parameters, zeros
from fssd_jax import checks
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import Rows, count_rows
from fssd_jax.data.pipeline import Batch, batches
from fssd_jax.outputs import Variables

# (variables, x, y) -> the loss of each example [batch].
LossFn = Callable[[Variables, Any, Any], Array]

MATES = 1e-4  # relative, what the loss of an image may owe to rounding in its batch


def descent(loss_fn: LossFn, variables: Variables, x, y, batch_size=64) -> Variables:
    """−∇L, L = (1/M) Σ_m ℓ(x_m, y_m), over the parameters (Eq. 2).

    One compilation; memory is that of one batch.

    Raises:
      InputError: if the losses are not one of each example, or depend on batch-mates,
        as with BatchNorm in training mode, and the images are more than one batch.
    """
    params = parameters(variables)
    total = zeros(params)
    # Targets may have axes of their own, which labels beside images have not.
    data = (x, y) if isinstance(x, list) else Rows(x, y)
    parts = batches(data, batch_size, unit_range=False)
    first, count = next(parts), count_rows(x)
    if count != len(first.mask) and _depends_on_mates(loss_fn, variables, first):
        if count is None or count > batch_size:
            raise checks.InputError(
                "the loss of an image depends on its batch-mates, as with BatchNorm in "
                f"training mode, so the gradient of {count} images cannot be put "
                f"together from batches of {batch_size}: set batch_size={count}, or "
                "leave out the training mode"
            )
        # A padded row would be a batch-mate, too.
        first = jax.tree.map(lambda a: a[first.mask], first)
    for part, mask, labels in chain([first], parts):
        total = _add_gradient(loss_fn, total, variables, part, labels, mask)
    mean = jax.tree.map(lambda g, p: (-g / count).astype(p.dtype), total, params)
    return directed(variables, mean)


@compiled(static=1)
def _add_gradient(loss_fn, total, variables, x, y, mask):
    def loss(params):
        each = loss_of_each(loss_fn, with_parameters(variables, params), x, y)
        return jnp.where(mask, each, 0).sum()

    return jax.tree.map(jnp.add, total, jax.grad(loss)(parameters(variables)))


def _depends_on_mates(loss_fn, variables, batch: Batch) -> bool:
    """Whether the losses of some images are others where the rest is the first one."""
    mask, size = batch.mask, len(batch.mask)
    kept = np.arange(size) < max(1, mask.sum() // 2)
    alone = np.where(kept, np.arange(size), 0)
    both = [(batch.x, batch.y), jax.tree.map(lambda a: a[alone], (batch.x, batch.y))]
    each, other = (np.asarray(_losses(loss_fn, variables, *of))[kept] for of in both)
    return bool(np.abs(each - other).max() > MATES * max(1, np.abs(each).max()))


def loss_of_each(loss_fn, variables, x, y):
    """Of each example; others would be summed into another gradient."""
    each, count = loss_fn(variables, x, y), count_rows(x)
    if jnp.shape(each) != (count,):
        raise checks.InputError(
            f"loss_fn: a batch of {count} gave losses of shape {jnp.shape(each)}, "
            f"expected ({count},), the loss of each example, without a mean or a sum; "
            "see analysis.dynamics.make_loss_fn"
        )
    return each


_losses = compiled(static=1)(loss_of_each)
