"""What every fitted state refuses, whichever detector it belongs to."""

from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, map_batches
from fssd_jax.detectors import displacement, fssd, mahalanobis
from fssd_jax.fssd import Singularity

LAYERS = ("near", "far")


def in_order(layers):
    """A network of two layers, made in that order."""

    def feature_fn(variables, x):
        flat = x.reshape(len(x), -1)
        moved = flat @ variables["w"]
        features = {"near": moved, "far": jnp.tanh(3 * moved)}
        return OrderedDict((name, features[name]) for name in layers)

    return feature_fn


def fitted(name, feature_fn, variables, x):
    if name == "fssd":
        noise = np.random.default_rng(1).uniform(size=(50, 2, 2, 1)).astype(np.float32)
        return fssd.score, fssd.fit(feature_fn, variables, noise)
    if name == "mahalanobis":
        y = np.arange(len(x)) % 2
        of = feature_fn, variables
        gaussians = mahalanobis.estimate_gaussians(*of, x, y, 2)
        return mahalanobis.score, mahalanobis.fit(*of, gaussians, x)
    initial = {"w": variables["w"] / 2}
    return displacement.score, displacement.fit(feature_fn, variables, initial, x)


@pytest.mark.parametrize("name", ["fssd", "mahalanobis", "displacement"])
@pytest.mark.parametrize("other", [("far", "near"), ("near",)])
def test_layers_of_another_order_or_number_are_refused(name, other):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(40, 2, 2, 1)).astype(np.float32)
    variables = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)}
    score, state = fitted(name, in_order(LAYERS), variables, x)
    map_batches(score, in_order(LAYERS), variables, state, x)
    with pytest.raises(InputError) as raised:
        map_batches(score, in_order(other), variables, state, x)
    assert str(list(LAYERS)) in str(raised.value)
    assert str(list(other)) in str(raised.value)


def test_constant_features_are_told_from_nearly_constant_ones():
    """Features with a spread of 3·10⁻⁵ of their mean carry 500 steps of float32."""

    def of_spread(relative):
        return Singularity(
            OrderedDict(dead=jnp.array([300.0, 400.0])),
            OrderedDict(dead=jnp.float32(500 * relative)),
            jnp.int32(10),
        )

    fssd.check_alive(of_spread(3e-5))
    with pytest.raises(InputError, match=r"\['dead'\] have constant features"):
        fssd.check_alive(of_spread(3e-6))
