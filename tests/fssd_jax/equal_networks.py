"""One network thrice, with the same weights: in Flax Linen, in Flax NNX, in plain JAX.

A convolution, BatchNorm, tanh, a dense layer, tanh, dropout, a dense layer.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fssd_jax
from fssd_jax.features import make_stochastic_logit_fn

LAYERS = ["norm", "hidden", "logits"]
SHAPE, UNITS, CLASSES, RATE = (4, 4, 1), 8, 3, 0.3  # the rate of dropout


class Network(NamedTuple):
    """What a detector takes: functions, and variables to give to them."""

    feature_fn: Callable
    logit_fn: Callable
    stochastic: Callable[[float], Callable]  # dropout rate -> StochasticLogitFn
    variables: dict[str, Any]
    initial: dict[str, Any]  # other weights of the same network


class Linen(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, dropout=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.tanh(nn.BatchNorm(use_running_average=True, name="norm")(x))
        x = nn.tanh(nn.Dense(UNITS, name="hidden")(x.reshape(len(x), -1)))
        x = nn.Dropout(self.rate, deterministic=not dropout)(x)
        return nn.Dense(CLASSES, name="logits")(x)


class Nnx(nnx.Module):
    def __init__(self, rate: float, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.hidden = nnx.Linear(64, UNITS, rngs=rngs)
        self.dropout = nnx.Dropout(rate)
        self.logits = nnx.Linear(UNITS, CLASSES, rngs=rngs)

    def __call__(self, x, rngs=None):
        norm = self.norm(self.conv(x))
        hidden = self.hidden(nnx.tanh(norm).reshape(len(x), -1))
        logits = self.logits(self.dropout(nnx.tanh(hidden), rngs=rngs))
        return OrderedDict(norm=norm, hidden=hidden, logits=logits)


def plain_features(v, x, drop=lambda x: x):
    """Written out, as a second implementation; `v` has one array a name."""
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, v["conv kernel"], (1, 1), "SAME", dimension_numbers=dims
    )
    scale = v["norm scale"] / jnp.sqrt(v["norm var"] + 1e-5)
    x = x + (v["conv bias"] - v["norm mean"])[None, None, None]
    norm = x * scale[None, None, None] + v["norm bias"][None, None, None]
    x = jnp.tanh(norm).reshape(len(x), -1)
    hidden = x @ v["hidden kernel"] + v["hidden bias"][None]
    logits = drop(jnp.tanh(hidden)) @ v["logits kernel"] + v["logits bias"][None]
    return OrderedDict(norm=norm, hidden=hidden, logits=logits)


def linen_network(variables, initial):
    model = Linen(RATE)
    return Network(
        fssd_jax.make_feature_fn(model, LAYERS),
        fssd_jax.make_logit_fn(model),
        lambda rate: make_stochastic_logit_fn(Linen(rate), dropout=True),
        variables,
        initial,
    )


def nnx_network(*weights):
    def split(rate):
        model = Nnx(rate, nnx.Rngs(0))
        model.eval()  # before the split: `graphdef` remembers it
        return nnx.split(model)

    graphdef, state = split(RATE)

    def copy(of_linen):
        params, stats = of_linen["params"], of_linen["batch_stats"]
        copied = {name: {**params[name], **stats.get(name, {})} for name in params}
        nnx.replace_by_pure_dict(state, copied)  # an error if names differ
        return nnx.to_pure_dict(state)

    def features(variables, x):
        return nnx.merge(graphdef, variables)(x)

    def stochastic(rate):
        graphdef, _ = split(rate)

        def logit_fn(variables, x, key):
            model = nnx.merge(graphdef, variables)
            model.set_attributes(nnx.Dropout, deterministic=False)
            return model(x, nnx.Rngs(dropout=key))["logits"]

        return logit_fn

    logits = lambda variables, x: features(variables, x)["logits"]  # noqa: E731
    return Network(features, logits, stochastic, *map(copy, weights))


def plain_network(*weights):
    def copy(of_linen):
        named = jax.tree.leaves_with_path(of_linen)
        return {f"{path[1].key} {path[2].key}": leaf for path, leaf in named}

    def stochastic(rate):
        def logit_fn(variables, x, key):
            def drop(h):
                kept = jax.random.bernoulli(key, 1 - rate, h.shape)
                return jnp.where(kept, h / (1 - rate), 0)

            return plain_features(variables, x, drop)["logits"]

        return logit_fn

    logits = lambda variables, x: plain_features(variables, x)["logits"]  # noqa: E731
    return Network(plain_features, logits, stochastic, *map(copy, weights))


def equal_networks() -> dict[str, Network]:
    """By name, one network thrice; its variances, biases and scales are not 0 or 1."""
    variables = Linen(RATE).init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    rng = np.random.default_rng(0)

    def near(a):
        return a + rng.uniform(-0.4, 0.4, a.shape).astype(a.dtype)

    makers = {"Linen": linen_network, "NNX": nnx_network, "plain": plain_network}
    weights = [jax.tree.map(near, variables) for _ in range(2)]
    return {name: make(*weights) for name, make in makers.items()}
