"""KL matching: the divergence to the nearest of the classes' usual probabilities.

    score(x) = −min_k KL(p(x) ‖ d_k),   d_k = E[p(x') | argmax p(x') = k]

the mean over in-distribution validation images. A class that is predicted for none of
them is none to match.

Hendrycks et al. (2022), "Scaling Out-of-Distribution Detection for Real-World
Settings".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.data.pipeline import check_finite, scored_batches
from fssd_jax.outputs import Inputs, LogitFn, Variables, logits_of
from fssd_jax.shown import brief


class State(NamedTuple):
    logs: Float[Array, "known classes"]  # log d_k of classes that were predicted

    __repr__ = brief


def fit(
    logit_fn: LogitFn,
    variables: Variables,
    ind,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> State:
    """d_k, in one pass.

    Args:
      logit_fn: see `make_logit_fn`.
      variables: the network's variables.
      ind: in-distribution validation images, data as of `pipeline.batches`; no labels.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
    """
    parts = scored_batches(
        *(_logs, logit_fn, variables, None, ind),
        batch_size=batch_size,
        unit_range=unit_range,
    )
    total, count = np.zeros((0, 0)), np.zeros(0)
    for found, mask, _ in parts:
        logs = np.asarray(found, np.float64)[mask]
        check_finite("logits", logs)
        if not total.size:
            total = np.full((logs.shape[1], logs.shape[1]), -np.inf)
            count = np.zeros(len(total))
        predicted = logs.argmax(1)
        np.add.at(count, predicted, 1)
        np.logaddexp.at(total, predicted, logs)
    known = count > 0
    mean = total[known] - np.log(count[known])[:, None]
    return State(jax.device_put(np.float32(mean)))


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """−min_k Σ_y p_y (log p_y − log d_ky)."""
    logs = _logs(logit_fn, variables, None, x)
    p = jnp.exp(logs)
    cross = jnp.matmul(p, state.logs.T, precision="highest")
    return cross.max(-1) - (p * logs).sum(-1)


def _logs(logit_fn, variables, _, x) -> Float[Array, "batch classes"]:
    return jax.nn.log_softmax(logits_of(logit_fn, variables, x), axis=-1)
