"""Networks, images and runs that the tests of what follows a run share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fssd_jax.outputs import pool
from fssd_jax.train import train

RATE, DECAY = 0.05, 0.3


class Normed(nn.Module):
    """With BatchNorm, whose statistics move too."""

    feature_layers = ("hidden", "logits")

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(not train, momentum=0.9, name="hidden")(x)
        return nn.Dense(3, name="logits")(nn.tanh(x))


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(n, 4, 4, 1)).astype(np.float32)


X, Y, PROBE = images(22), np.arange(22, dtype=np.int32) % 3, images(9, 1)


def start(model, dtype=jnp.float32):
    """Not quite at the initial values, where biases are zero and statistics 0 and 1."""
    variables = model.init(jax.random.key(0), X)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        (a + 0.1 * jax.random.uniform(k, a.shape)).astype(dtype)
        for a, k in zip(leaves, keys, strict=True)
    ]
    return structure.unflatten(moved)


def flat(feature_fn, variables, x):
    return pool(feature_fn(variables, x), "flatten")


def by_jacobians(feature_fn, variables, layer):
    """Θ(probe, X) [n, m, dim, dim], from two explicit Jacobians."""

    def jacobian(x):
        of = lambda p: flat(feature_fn, {"params": p}, x)[layer]  # noqa: E731
        parts = jax.tree.leaves(jax.jacrev(of)(variables["params"]))
        return jnp.concatenate([p.reshape(*p.shape[:2], -1) for p in parts], -1)

    return jnp.einsum("nip,mjp->nmij", jacobian(PROBE), jacobian(X))


def momentum(epochs, steps):
    return optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(RATE, momentum=0.9, nesterov=True)
    )


def run(model, recipe, recorder, **kwargs):
    settings = {"epochs": 2, "batch_size": 11, "seed": 0, "progress": False}
    settings |= {"initial": start(model), "num_classes": 3, "recipe": recipe}
    return train(model, X, Y, on_step=recorder, **settings | kwargs)


def by_hand(feature_fn, initial, final, x=PROBE):
    ends = [pool(feature_fn(v, x), "flatten") for v in (final, initial)]
    return jax.tree.map(jnp.subtract, *ends)


def relative_error(found, expected):
    """The largest over the layers."""
    return max(
        float(np.linalg.norm(found[k] - expected[k]) / np.linalg.norm(expected[k]))
        for k in expected
    )
