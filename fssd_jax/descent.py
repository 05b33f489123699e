"""One step of training: the loss, its gradient, and the optimiser's update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from fssd_jax import losses
from fssd_jax.outputs import Variables
from fssd_jax.shown import brief

OUTLIER_WEIGHT = 0.5  # of the outliers' loss, as Hendrycks et al. (2019) weigh it


class TrainState(NamedTuple):
    variables: Variables
    opt_state: Any

    __repr__ = brief


def train_step(
    apply: Callable,
    update: Callable,
    state: TrainState,
    totals: Float[Array, "2"],
    x: Num[Array, "batch ..."],
    y: Int[Array, " batch"],
    key: PRNGKeyArray,
    outliers: Float[Array, "outliers ..."] | None = None,
    loss: Callable = losses.cross_entropy,
    augment: Callable | None = None,
) -> tuple[TrainState, Float[Array, "2"]]:
    """One optimiser step; adds the batch's mean loss and accuracy to `totals`."""
    whole = x if outliers is None else jnp.concatenate([x, outliers])
    if augment is not None:
        key, own = jax.random.split(key)
        whole = augment(own, whole)
    params = state.variables["params"]
    statistics = {k: v for k, v in state.variables.items() if k != "params"}

    def loss_fn(params):
        logits, updated = apply(
            {"params": params, **statistics},
            whole,
            train=True,
            rngs={"dropout": key},
            mutable=list(statistics),
        )
        inside, outside = logits[: len(x)], logits[len(x) :]
        value = loss(inside, y)
        if outliers is not None:
            value += OUTLIER_WEIGHT * losses.to_uniform(outside)
        return value, (updated, jnp.mean(inside.argmax(-1) == y))

    (value, (updated, accuracy)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    updates, opt_state = update(gradient, state.opt_state, params)
    variables = {**updated, "params": optax.apply_updates(params, updates)}
    return TrainState(variables, opt_state), totals + jnp.stack([value, accuracy])
