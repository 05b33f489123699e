"""ViM: energy less a virtual logit, the length of what lies off the principal space.

    score(x) = log Σ_y exp f_y(x) − α ‖Rᵀ (h − u)‖,   u = −(Wᵀ)⁺ b
    α = mean max_y f_y / mean ‖Rᵀ (h − u)‖ of the training images

h are the penultimate features, f = Wᵀ h + b; R spans all but the D principal directions
of h − u on the training set, by its second moments. (The paper's score, the softmax of
the virtual logit, has this order.)

Wang, Li, Feng and Zhang (2022), "ViM: Out-Of-Distribution with Virtual-logit Matching".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import moments
from fssd_jax.checks import InputError
from fssd_jax.fssd import norm
from fssd_jax.head import Head, hidden_of, hidden_of_training, logits
from fssd_jax.labelled import joined
from fssd_jax.outputs import FeatureFn, Inputs, Variables
from fssd_jax.shown import brief

SMALL = 1e-6  # of a length: what float32 rounds
HELD = 2**28  # bytes of features that are kept, instead of a second pass: 256 MiB


class State(NamedTuple):
    head: Head
    origin: Float[Array, " dim"]  # u
    residual: Float[Array, "dim rest"]  # R
    alpha: Float[Array, ""]

    __repr__ = brief


def fit(
    feature_fn: FeatureFn,
    variables: Variables,
    head: Head,
    train,
    *,
    dim: int | None = None,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """R by one pass, α by another, or by the features that it held.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      head: its last layer, as `head.find` gives it.
      train: training images, data as of `pipeline.batches`; no labels. They are gone
        through twice if their features take more than 256 MiB: then a generator, which
        gives them once, is refused.
      dim: D; by default 1000 of 1500 features or more, else 512, as in the paper; if
        they vary in no more directions, half of these, as pytorch-ood has it.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: D leaves nothing, or nothing varies beside it.
    """
    (kernel,) = (np.asarray(k, np.float64) for k in head.kernel.values())
    size = len(kernel)
    if dim is not None and not 0 <= dim < size:
        raise InputError(f"dim: expected 0 to {size - 1}, got {dim}")

    def passed():
        return joined(
            hidden_of_training(
                *(feature_fn, variables, head, train),
                batch_size=batch_size,
                unit_range=unit_range,
            )
        )

    origin = -np.linalg.pinv(kernel.T) @ np.float64(head.bias)
    (layer,) = head.kernel
    total = moments.nothing(1, size)
    held, room = [], HELD
    for h in passed():
        moments.add(layer, total, h, np.zeros(len(h), int))
        room -= h.nbytes
        held = [*held, h] if room >= 0 else []
    shift = total.mean - origin
    values, vectors = np.linalg.eigh(total.scatter / total.count + shift.T @ shift)
    if dim is None:
        vary = int((values > SMALL**2 * values[-1]).sum())
        usual = 1000 if size >= 1500 else 512
        dim = usual if usual < vary else vary // 2
    residual = vectors[:, : size - dim]  # the directions ascend
    lengths = largest = 0.0
    for h in held if room >= 0 else passed():
        lengths += np.linalg.norm((h - origin) @ residual, axis=1).sum()
        largest += (h @ kernel + np.float64(head.bias)).max(1).sum()
    if not lengths > SMALL * total.count[0] * np.linalg.norm(total.mean):
        raise InputError(
            f"layer {layer!r} varies in no more than {dim} directions; give a smaller "
            "dim, or another method"
        )
    found = (np.float32(a) for a in (origin, residual, largest / lengths))
    return State(head, *map(jax.device_put, found))


def score(
    feature_fn: FeatureFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """Energy less the virtual logit."""
    h = hidden_of(feature_fn, variables, state.head, x)
    off = jnp.matmul(h - state.origin[None], state.residual, precision="highest")
    energy = jax.nn.logsumexp(logits(state.head, h), axis=-1)
    return energy - state.alpha * norm(off)
