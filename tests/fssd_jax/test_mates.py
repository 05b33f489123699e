"""What depends on batch-mates, and what only on the last digits of pixels."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, map_batches

X = np.random.default_rng(0).uniform(size=(16, 4, 4, 1)).astype(np.float32)


def score(feature_fn, variables, state, x):
    del state
    return feature_fn(variables, x)["f"].sum(-1)


def scores(feature_fn):
    return map_batches(score, feature_fn, {}, None, X, batch_size=8)


def by_place(x):
    """As another place in the batch does, which rounds another way."""
    return x + 3e-7 * jnp.arange(len(x))[:, None, None, None]


def test_what_hangs_on_the_last_digits_is_no_training_mode():
    """As signs of gradients that are all but 0, whose scores lie far apart."""

    def feature_fn(variables, x):
        del variables
        turned = jnp.sign(jnp.sin(1e7 * by_place(x).reshape(len(x), -1)))
        return OrderedDict(f=turned)

    assert np.unique(scores(feature_fn)).size > 1


@pytest.mark.parametrize("how", ["statistics", "dropout"])
def test_a_network_in_training_mode_is_found(how):
    def feature_fn(variables, x):
        del variables
        flat = x.reshape(len(x), -1)
        if how == "statistics":
            return OrderedDict(f=jnp.tanh(flat - flat.mean(0)[None]))
        kept = jax.random.bernoulli(jax.random.key(0), 0.5, flat.shape)
        return OrderedDict(f=flat * kept)

    with pytest.raises(InputError, match="depends on what else is in its batch"):
        scores(feature_fn)
