"""The same detector on a Flax NNX network and on a plain function of JAX.

A detector never looks into a network. It calls one of two functions, of which
`fssd_jax.make_feature_fn` and `make_logit_fn` are those of a Linen network:

    FeatureFn   (variables, x [batch, ...]) -> OrderedDict of layer to [batch, ...]
    LogitFn     (variables, x [batch, ...]) -> [batch, classes]

`variables` is a dict, nested or not, of arrays.

python examples/any_function.py
"""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import fssd_jax
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.detectors import fssd, msp


class MyNetwork(nnx.Module):
    """Layers are what `__call__` returns by name, in the order of the forward pass."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.hidden = nnx.Linear(8 * 14 * 14, 64, rngs=rngs)
        # Its generator is given with each call: one that it keeps would be a variable.
        self.dropout = nnx.Dropout(0.2)
        self.logits = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x, rngs: nnx.Rngs | None = None) -> OrderedDict:
        x = nnx.relu(self.norm(self.conv(x)))
        hidden = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        logits = self.logits(self.dropout(hidden, rngs=rngs))
        return OrderedDict(hidden=hidden, logits=logits)


def nnx_network(images, labels, steps: int):
    """(feature_fn, variables) of `MyNetwork`, trained as NNX users do."""
    model, rngs = MyNetwork(nnx.Rngs(0)), nnx.Rngs(dropout=1)
    optimiser = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)

    def loss(model, rngs):
        return cross_entropy(model(images, rngs)["logits"], labels)

    @nnx.jit
    def update(model, optimiser, rngs):
        optimiser.update(model, nnx.grad(loss)(model, rngs))

    for _ in range(steps):
        update(model, optimiser, rngs)

    # Before the split: it is `graphdef` that remembers that BatchNorm uses its running
    # averages and Dropout drops nothing. In training a score would depend on the batch.
    model.eval()
    graphdef, state = nnx.split(model)
    feature_fn = lambda variables, x: nnx.merge(graphdef, variables)(x)  # noqa: E731
    # `jit` and `save` take an `nnx.State` too, but `Variables` is a dict.
    return feature_fn, nnx.to_pure_dict(state)


def plain_features(variables, x) -> OrderedDict:
    """A perceptron without any library; an OrderedDict, as `jit` sorts a dict."""
    x = jnp.reshape(x, (len(x), -1))
    hidden = jax.nn.relu(x @ variables["w1"] + variables["b1"][None])
    logits = hidden @ variables["w2"] + variables["b2"][None]
    return OrderedDict(hidden=hidden, logits=logits)


def plain_network(images, labels, steps: int):
    """(feature_fn, variables) of `plain_features`, trained by optax."""
    one, two = jax.random.split(jax.random.key(0))
    variables = {
        "w1": jax.random.normal(one, (28 * 28, 64)) * (2 / 28**2) ** 0.5,
        "b1": jnp.zeros(64),
        "w2": jax.random.normal(two, (64, 10)) * (1 / 64) ** 0.5,
        "b2": jnp.zeros(10),
    }
    optimiser = optax.adam(3e-3)
    opt_state = optimiser.init(variables)

    def loss(variables):
        return cross_entropy(plain_features(variables, images)["logits"], labels)

    @jax.jit
    def update(variables, opt_state):
        updates, opt_state = optimiser.update(jax.grad(loss)(variables), opt_state)
        return optax.apply_updates(variables, updates), opt_state

    for _ in range(steps):
        variables, opt_state = update(variables, opt_state)
    return plain_features, variables


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def detect(feature_fn, variables, images, photos) -> dict[str, float]:
    """AUROC of FSSD and of MSP, digits against photographs; nothing here is of Flax."""
    noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
    logit_fn = lambda variables, x: feature_fn(variables, x)["logits"]  # noqa: E731
    found = {}
    for name, apply_fn, score, state in (
        ("fssd", feature_fn, fssd.score, fssd.fit(feature_fn, variables, noise)),
        ("msp", logit_fn, msp.score, msp.fit()),
    ):
        scores = [
            fssd_jax.map_batches(score, apply_fn, variables, state, x)
            for x in (images, photos)
        ]
        found[name] = fssd_jax.metrics.auroc(*scores)
    return found


def main(steps: int = 30) -> dict[str, dict[str, float]]:
    digits = load("digits", "train")
    images, photos = load("digits", "test").x, load("photo_patches", "test").x
    results = {}
    for name, network in (("NNX", nnx_network), ("plain", plain_network)):
        feature_fn, variables = network(as_input(digits.x), digits.y, steps)
        results[name] = detect(feature_fn, variables, images, photos)
        told = ", ".join(f"{of} {auroc:.3f}" for of, auroc in results[name].items())
        print(f"{name}: AUROC against photographs: {told}")
    return results


if __name__ == "__main__":
    main()
