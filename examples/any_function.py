"""The same detector on a Flax NNX network and on a plain function of JAX.

A detector never looks into a network. It calls one of two functions, of which
`fssd_jax.make_feature_fn` and `make_logit_fn` are those of a Linen network:

    FeatureFn   (variables, x [batch, ...]) -> OrderedDict of layer to [batch, ...]
    LogitFn     (variables, x [batch, ...]) -> [batch, classes]

`variables` is a dict, nested or not, of arrays.

python examples/any_function.py
"""

# %%
from collections import OrderedDict

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import fssd_jax
from analysis import plots
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.detectors import fssd, msp

STEPS = 30
digits = load("digits", "train")
images, photos = load("digits", "test").x, load("photo_patches", "test").x
x, y = as_input(digits.x), digits.y


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% [markdown]
# ## An NNX network
#
# Layers are what `__call__` returns by name, in the order of the forward pass. (Of a
# network that returns logits alone, `fssd_jax.adapters.from_nnx` takes the layers.)


# %%
class MyNetwork(nnx.Module):
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


# %% [markdown]
# It is trained as NNX users do.

# %%
model, rngs = MyNetwork(nnx.Rngs(0)), nnx.Rngs(dropout=1)
nnx_optimiser = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)


@nnx.jit
def nnx_update(model, nnx_optimiser, rngs):
    loss = lambda model, rngs: cross_entropy(model(x, rngs)["logits"], y)  # noqa: E731
    nnx_optimiser.update(model, nnx.grad(loss)(model, rngs))


for _ in range(STEPS):
    nnx_update(model, nnx_optimiser, rngs)

# %% [markdown]
# `eval` comes before the split: it is `graphdef` that remembers that BatchNorm uses its
# running averages and Dropout drops nothing. In training a score would depend on the
# batch, and is an error.

# %%
model.eval()
graphdef, nnx_state = nnx.split(model)
nnx_variables = nnx.to_pure_dict(nnx_state)


def nnx_features(variables, x) -> OrderedDict:
    return nnx.merge(graphdef, variables)(x)


# %% [markdown]
# ## A perceptron without any library
#
# Its layers are an `OrderedDict`, because `jit` sorts a dict.


# %%
def plain_features(variables, x) -> OrderedDict:
    x = jnp.reshape(x, (len(x), -1))
    hidden = jax.nn.relu(x @ variables["w1"] + variables["b1"][None])
    logits = hidden @ variables["w2"] + variables["b2"][None]
    return OrderedDict(hidden=hidden, logits=logits)


one, two = jax.random.split(jax.random.key(0))
plain_variables = {
    "w1": jax.random.normal(one, (28 * 28, 64)) * (2 / 28**2) ** 0.5,
    "b1": jnp.zeros(64),
    "w2": jax.random.normal(two, (64, 10)) * (1 / 64) ** 0.5,
    "b2": jnp.zeros(10),
}
optimiser = optax.adam(3e-3)
opt_state = optimiser.init(plain_variables)


@jax.jit
def update(variables, opt_state):
    loss = lambda v: cross_entropy(plain_features(v, x)["logits"], y)  # noqa: E731
    updates, opt_state = optimiser.update(jax.grad(loss)(variables), opt_state)
    return optax.apply_updates(variables, updates), opt_state


for _ in range(STEPS):
    plain_variables, opt_state = update(plain_variables, opt_state)

# %% [markdown]
# ## One detector for both
#
# FSSD and MSP, digits against photographs; nothing here is of Flax. A detector that
# reads the logits alone takes a function that returns them.

# %%
noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
tables = {}
for name, feature_fn, variables in (
    ("NNX", nnx_features, nnx_variables),
    ("plain", plain_features, plain_variables),
):
    logit_fn = lambda variables, x, of=feature_fn: of(variables, x)["logits"]  # noqa: E731
    methods = {
        "fssd": (fssd.score, feature_fn, fssd.fit(feature_fn, variables, noise)),
        "msp": (msp.score, logit_fn, msp.fit()),
    }
    tables[name] = fssd_jax.compare(methods, variables, images, photos)
    found = {of: tables[name][of].auroc for of in methods}
    told = ", ".join(f"{of} {auroc:.3f}" for of, auroc in found.items())
    print(f"{name}: AUROC against photographs: {told}")

# %% [markdown]
# ## Look at it

# %%
curves = {
    f"{of}, {name}": scores
    for name, table in tables.items()
    for of, scores in table.scores.items()
}
figure = plots.roc(curves, title="digits and photographs")
figure.savefig("any_function.png", dpi=200)
