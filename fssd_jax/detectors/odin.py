"""ODIN: the maximum softmax probability at a temperature, after an input step.

    S_T(x) = max_y softmax(f(x) / T)_y,   x̃ = x + ε · sign(∇ₓ log S_T(x))

Score and step are taken of the margin m = f_top/T − log Σ_{y ≠ top} exp(f_y/T), where
log S_T = −log(1 + e⁻ᵐ): the order and the sign of the gradient are the same.

Liang, Li and Srikant (2018), "Enhancing the Reliability of Out-of-Distribution Image
Detection in Neural Networks".
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax.compiled import by_parts
from fssd_jax.data.pipeline import map_batches
from fssd_jax.ensemble import EPSILONS, check_validation, first_best
from fssd_jax.fssd import perturb
from fssd_jax.metrics import auroc
from fssd_jax.outputs import Inputs, LogitFn, Variables, logits_of, margin
from fssd_jax.shown import brief
from fssd_jax.steps import Scores, sweep_each

TEMPERATURES = (1.0, 10.0, 100.0, 1000.0)  # Evaluation


class State(NamedTuple):
    temperature: Float[Array, ""]
    epsilon: Float[Array, ""] | None  # None is ε = 0: then no gradient is compiled
    # Why these: AUROC on the validation set for each that was tried; empty if none.
    temperatures: Float[Array, " temperature"]
    epsilons: Float[Array, " epsilon"]
    validation_auroc: Float[Array, "epsilon temperature"]

    __repr__ = brief


def fit(
    logit_fn: LogitFn | None = None,
    variables: Variables | None = None,
    ind=None,
    ood=None,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    epsilons: Sequence[float] = EPSILONS,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
) -> State:
    """The temperature and ε with the best AUROC on validation images.

    Of equals the smaller ε wins, then the smaller temperature. Without OoD images
    nothing can be chosen: the largest temperature and ε = 0.

    Args:
      logit_fn: the network; not needed if there is nothing to choose.
      variables: likewise.
      ind: in-distribution validation images [n, ...].
      ood: OoD validation images [m, ...].
      temperatures: to try, ascending.
      epsilons: input steps to try, ascending, in the units of x.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar.
    """
    if ood is None or logit_fn is None:
        none = jnp.zeros(0)
        return State(
            jnp.float32(max(temperatures)), None, none, none, jnp.zeros((0, 0))
        )
    check_validation(ind, ood, epsilons)
    steps = jnp.asarray(epsilons, jnp.float32)
    grid = jnp.asarray(temperatures, jnp.float32)
    score, state = (sweep, (grid, steps)) if any(epsilons) else (no_step, grid)
    apply = partial(
        map_batches,
        *(score, logit_fn, variables, state),
        batch_size=batch_size,
        batch_axis=1,
        unit_range=unit_range,
    )
    swept = [
        apply(x, progress=progress and title)
        for title, x in (("sweep T and ε, in", ind), ("sweep T and ε, OoD", ood))
    ]  # each [epsilon, image, temperature]
    e, t, table = choose(*swept)
    return State(
        grid[t],
        steps[e] if epsilons[e] else None,
        grid,
        steps,
        jnp.asarray(table, jnp.float32),
    )


def choose(ind: np.ndarray, ood: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The best ε and temperature, as indices, and the AUROC [epsilon, temperature].

    Args:
      ind: swept scores [epsilon, n, temperature] of in-distribution images.
      ood: swept scores [epsilon, m, temperature] of OoD images.
    """
    table = np.array(
        [
            [auroc(a[:, t], b[:, t]) for t in range(a.shape[1])]
            for a, b in zip(ind, ood, strict=True)
        ]
    )
    best = first_best(np.arange(table.size), table.ravel()).epsilon
    e, t = divmod(int(best), table.shape[1])
    return e, t, table


def score(
    logit_fn: LogitFn, variables: Variables, state: State, x: Inputs
) -> Float[Array, " batch"]:
    """log S_T(x̃)/(1 − S_T(x̃))."""
    of = partial(log_odds, logit_fn, variables, state.temperature)
    return of(x if state.epsilon is None else perturb(of, x, state.epsilon))


def log_odds(
    logit_fn: LogitFn,
    variables: Variables,
    temperature: Float[Array, ""],
    x: Inputs,
) -> Float[Array, " batch"]:
    """log S_T/(1 − S_T): see `outputs.margin`."""
    return margin(logits_of(logit_fn, variables, x) / temperature)


@by_parts
def sweep(logit_fn, variables, grid, x) -> Float[Array, "epsilon batch temperature"]:
    temperatures, epsilons = grid
    margins = Scores(_at_temperature, logit_fn, tuple(range(len(temperatures))))
    return sweep_each(margins, (variables, temperatures), x, epsilons)


def no_step(
    logit_fn, variables, temperatures, x
) -> Float[Array, "1 batch temperature"]:
    """`sweep` at ε = 0 alone, without a gradient."""
    logits = logits_of(logit_fn, variables, x)
    at = jax.vmap(lambda t: margin(logits / t), out_axes=-1)(temperatures)
    return at[None]


def _at_temperature(logit_fn, variables, temperatures, index: int, x):
    return log_odds(logit_fn, variables, temperatures[index], x)
