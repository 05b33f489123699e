"""Detectors that score logits: logits of half precision are promoted once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit, logsumexp, softmax

from fssd_jax import InputError
from fssd_jax.detectors import (
    deep_ensemble,
    energy,
    max_logit,
    mc_dropout,
    msp,
    odin,
)
from fssd_jax.outputs import logits_of

HALF = [jnp.bfloat16, jnp.float16]
DETECTORS = {
    "msp": (msp, lambda z: logit(softmax(z, axis=-1).max(-1))),
    "energy": (energy, lambda z: logsumexp(z, axis=-1)),
    "max_logit": (max_logit, lambda z: z.max(-1)),
    "odin": (odin, lambda z: logit(softmax(z / 1000, axis=-1).max(-1))),
}


@pytest.fixture(scope="module")
def logits():
    """Of two networks, or of two passes: [2, image, class], 0 to 12 apart."""
    z = np.random.default_rng(0).normal(0, 4, (2, 50, 10))
    z[:, :, 0] += np.linspace(0, 12, 50)
    return z


def half(z, dtype):
    """Logits as a network of half precision gives them, and what they are exactly."""
    z = jnp.asarray(z, dtype)
    return z, np.asarray(z.astype(jnp.float32), np.float64)


def close(found, expected):
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    assert len(np.unique(found)) == len(np.unique(expected))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", DETECTORS)
def test_scores_of_half_precision_logits(logits, name, dtype):
    detector, formula = DETECTORS[name]
    z, exact = half(logits[0], dtype)
    found = detector.score(
        lambda variables, x: z, {}, detector.fit(), jnp.zeros((50, 1))
    )
    close(found, formula(exact))


def _of_member(member, x):
    return member["z"]


@pytest.mark.parametrize("dtype", HALF)
def test_means_of_half_precision_softmaxes(logits, dtype):
    z, exact = half(logits, dtype)
    mean = softmax(exact, axis=-1).mean(0)
    x = jnp.zeros((50, 1))
    found = deep_ensemble.score(_of_member, {"z": z}, deep_ensemble.fit(), x)
    close(found, logit(mean.max(-1)))

    # A key stands for its pass, the "image" for its number.
    keys = jax.random.split(jax.random.key(0), 2)

    def of_pass(variables, x, key):
        first = jnp.all(jax.random.key_data(key) == jax.random.key_data(keys[0]))
        return z[jnp.where(first, 0, 1), x[:, 0].astype(jnp.int32)]

    images = jnp.arange(50.0)[:, None]
    found = mc_dropout.scores(of_pass, {}, mc_dropout.State(keys), images)
    close(found[:, 0], logit(mean.max(-1)))
    of_predicted = exact[:, np.arange(50), mean.argmax(-1)]
    close(found[:, 1], -of_predicted.var(0))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (5, 3), (7, 3), (6, 3, 1)])
def test_what_is_no_logits_of_each_image_is_refused(shape):
    x = jnp.ones((6, 2, 2, 1))
    assert logits_of(lambda v, x: jnp.zeros((6, 2)), {}, x).shape == (6, 2)
    with pytest.raises(InputError, match=r"expected logits \[batch, classes\]"):
        logits_of(lambda v, x: jnp.zeros(shape), {}, x)
