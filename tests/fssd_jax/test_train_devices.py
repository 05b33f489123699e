"""Training on many devices, simulated on the processor, in a process of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fssd_jax import InputError
from fssd_jax.models.resnet import ResNet
from fssd_jax.train import train
from tests.eight_devices import all_the_same
from tests.fssd_jax.test_train_promises import X, Y, run

PROGRAM = r"""
import re, sys
from math import prod
from pathlib import Path

import flax.linen as nn
import jax, jax.numpy as jnp, numpy as np, optax
from fssd_jax import InputError, checkpoint, compiled, spread
from fssd_jax.data.records import Pairs, Records
from fssd_jax.train import train

assert jax.device_count() == 8
RNG = np.random.default_rng(0)
X = RNG.random((48, 4, 4, 3), np.float32)
Y = np.arange(48) % 3
texts, compile_it = [], compiled._compile

def watched(key, traced):
    program = compile_it(key, traced)
    texts.append(program.as_text())
    return program

compiled._compile = watched

class Net(nn.Module):
    '''A convolution, BatchNorm and dropout.'''

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        x = nn.Dropout(0.3, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(nn.relu(nn.Dense(128)(x)))

def fit(x=X, y=Y, **options):
    losses = []
    settings = {"num_classes": 3, "seed": 1, "epochs": 2, "batch_size": 16,
                "recipe": lambda *_: optax.adam(0.01), "progress": False}
    return train(Net(), x, y, **settings | options)

def one(**options):
    with jax.default_device(jax.devices()[0]):
        return fit(**options)

def close(a, b):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-5),
                 a.history, b.history)

def collectives(text):
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    return re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)

alone = one()
many = fit()
(step,) = [t for t in texts if "num_partitions=8" in t and "convolution" in t]
sent = collectives(step)
assert {kind for _, kind in sent} == {"all-reduce"}, sent
# Each number that is sent: the gradient, sums over the batch, loss and accuracy.
numbers = sum(
    prod(map(int, shape.split(","))) if shape else 1
    for shapes, _ in sent for shape in re.findall(r"f32\[([\d,]*)\]", shapes)
)
gradient = sum(a.size for a in jax.tree.leaves(many.variables["params"]))
assert gradient <= numbers <= gradient + 6 * 16 + 2, (gradient, numbers)
close(many, alone)
assert all(a.sharding.is_fully_replicated for a in jax.tree.leaves(many.variables))

spread.LEAST = 1024
texts.clear()
states, keep = [], checkpoint.keep

def watched_keep(folder, progress):
    states.append(jax.tree.leaves(progress.state.opt_state))
    keep(folder, progress)
    states[-1] = [(a.addressable_shards[0].data.size, a.size) for a in states[-1]]

checkpoint.keep = watched_keep
folder = Path(sys.argv[1])
sharded = fit(shard_optimiser=True, folder=folder)
close(sharded, alone)
for kept in states:
    assert {here / of for here, of in kept if of < 1024} == {1}
    assert [here / of for here, of in kept if of >= 1024] == [1 / 8] * 2  # m and v

# The same run, on other numbers of devices: read back, not trained again.
again = fit(shard_optimiser=True, folder=folder, mesh=jax.make_mesh((4,), ("data",)))
jax.tree.map(np.testing.assert_array_equal, again.variables, sharded.variables)
jax.tree.map(np.testing.assert_array_equal, one(folder=folder).variables,
             sharded.variables)

four = fit(batch_size=12)  # 8 devices do not divide it, 4 do
assert len(jax.tree.leaves(four.variables)[0].sharding.device_set) == 4
close(four, one(batch_size=12))
try:
    fit(batch_size=12, mesh=jax.make_mesh((8,), ("data",)))
    raise AssertionError
except InputError as error:
    assert "8 devices do not divide a batch of 12" in str(error)

outliers = X[:20, ::-1]
sources = Records(Pairs(X, Y), workers=2), Records(list(outliers), workers=2)
close(fit(sources[0], None, outliers=sources[1]), one(outliers=outliers))
print("all the same")
"""


def test_the_losses_do_not_depend_on_the_number_of_devices(tmp_path):
    """And only the gradient is sent, with BatchNorm's statistics."""
    all_the_same(PROGRAM, tmp_path)


def test_on_one_device_a_mesh_changes_nothing():
    mesh = jax.make_mesh((1,), ("data",))
    found, expected = run(mesh=mesh, shard_optimiser=True), run()
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
    with pytest.raises(InputError, match="mesh: expected one axis"):
        run(mesh=jax.make_mesh((1,), ("rows",)))


def test_in_bfloat16_parameters_and_loss_stay_float32():
    """It computes in bfloat16, and comes near what float32 computes."""
    x = np.tile(X, (1, 2, 2, 3))
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = ResNet((1,), stem="cifar", num_classes=3, width=4, dtype=dtype)
        settings = {"num_classes": 3, "seed": 0, "epochs": 1, "batch_size": 32}
        recipe = lambda *_: optax.sgd(0.1, momentum=0.9)  # noqa: E731
        found[dtype] = train(model, x, Y, recipe=recipe, progress=False, **settings)
        variables = found[dtype].variables
        assert {a.dtype for a in jax.tree.leaves(variables)} == {np.dtype("float32")}
        text = str(jax.make_jaxpr(model.apply)(variables, x[:2]))
        assert ("bf16" in text) == (dtype == jnp.bfloat16)
    losses = [trained.history[0, 0] for trained in found.values()]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)
