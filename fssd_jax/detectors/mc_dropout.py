"""MC dropout: many passes with dropout on, and their mean or their variance.

    mean:     score(x) = log p/(1 − p),   p = max_y (1/P) Σ_p softmax(f_p(x))_y
    variance: score(x) = −Var_p f_p(x)_ŷ,   ŷ the class that the mean predicts

Gal and Ghahramani (2016), "Dropout as a Bayesian Approximation"; dropout after
convolutions as in Ovadia et al. (2019), "Can You Trust Your Model's Uncertainty?".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from fssd_jax.checks import at_least_one, random_key
from fssd_jax.outputs import (
    Inputs,
    StochasticLogitFn,
    Variables,
    log_mean_softmax,
    logits_of,
    margin,
)
from fssd_jax.shown import brief
from fssd_jax.steps import each


class State(NamedTuple):
    # A pass drops the same units for every image: it is one thinned network, so a
    # score depends neither on the batch nor on the order of the images.
    keys: Key[Array, " passes"]

    __repr__ = brief


def fit(key: PRNGKeyArray, passes: int = 32) -> State:
    at_least_one("passes", passes)
    return State(jax.random.split(random_key(key), passes))


def score(
    logit_fn: StochasticLogitFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, " batch"]:
    """log p/(1 − p) of the maximum p of the mean softmax."""
    return scores(logit_fn, variables, state, x)[:, 0]


def scores(
    logit_fn: StochasticLogitFn,
    variables: Variables,
    state: State,
    x: Inputs,
) -> Float[Array, "batch 2"]:
    """Both scores, by the mean and by the variance, from the same passes."""

    def one_pass(key):
        def of_image(image):
            alone = jax.tree.map(lambda a: a[None], image)
            return logits_of(logit_fn, variables, alone, key)[0]

        return jax.vmap(of_image)(x)

    logits = each(one_pass, state.keys)  # [passes, batch, classes]
    log_mean = log_mean_softmax(logits)
    predicted = log_mean.argmax(-1)[None, :, None]
    variance = jnp.take_along_axis(logits, predicted, axis=-1)[..., 0].var(0)
    return jnp.stack([margin(log_mean), -variance], -1)
