"""Meshes of the user's own: `jax.set_mesh`, explicit axes, weights laid over them."""

from tests.eight_devices import all_the_same

PROGRAM = """
from contextlib import nullcontext

import jax, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import fssd_jax
from analysis.kernel_regression import FrozenForm, make_gradient_fn
from analysis.linearised import LinearisedRun
from fssd_jax.detectors import fssd
from fssd_jax.models import MLP
from fssd_jax.train import train

assert jax.device_count() == 8
RNG = np.random.default_rng(0)
X, Y = RNG.random((48, 4, 4, 1), np.float32), np.arange(48) % 4
OOD = RNG.random((48, 4, 4, 1), np.float32) ** 3
NOISE = RNG.random((50, 4, 4, 1), np.float32)
MODEL = MLP(hidden=(16, 16), num_classes=4)
FEATURE_FN = fssd_jax.make_feature_fn(MODEL)
INITIAL = jax.device_get(MODEL.init(jax.random.key(0), X[:1]))
# As `jax.make_mesh` makes it by itself since JAX 0.10.
EXPLICIT = jax.make_mesh((8,), ("any",), axis_types=(AxisType.Explicit,))

def told(initial, within=None, **mesh):
    '''Numbers of a fit, of scores, of a training and of its kernel.'''
    with jax.set_mesh(within) if within else nullcontext():
        state = fssd.fit(FEATURE_FN, initial, NOISE, X, OOD, epsilons=(0.0, 0.01))
        scored = fssd_jax.map_batches(
            fssd.score, FEATURE_FN, initial, state, OOD, batch_size=16, **mesh
        )
        gradient_fn = make_gradient_fn(MODEL, FEATURE_FN)
        frozen = FrozenForm(FEATURE_FN, gradient_fn, initial, 0.1)
        linear = LinearisedRun(MODEL, optax.sgd(0.1))

        def on_step(*step):
            frozen(*step)
            linear(*step)

        trained = train(
            MODEL, X, Y, num_classes=4, seed=0, epochs=2, batch_size=16, progress=False,
            initial=initial, recipe=lambda *_: optax.sgd(0.1), on_step=on_step, **mesh,
        )
        by_hand = fssd_jax.fssd.fssd(FEATURE_FN, initial, state.singularity, OOD)
        return {
            "scores": scored,
            "history": trained.history,
            # What came out is of use beside what the user computes.
            "logits": MODEL.apply(trained.variables, X),
            "by hand": by_hand,
            "linearised": linear.network.logit_fn(linear.network.variables, X),
            "frozen": frozen.value(OOD)["logits"],
            "singularity": state.singularity.center["logits"],
        }

def laid(mesh, first):
    '''The rows of each kernel over the devices, or a copy on each.'''
    def put(a):
        spec = P("any") if first and a.shape[0] == 16 else P()
        return jax.device_put(a, NamedSharding(mesh, spec))
    return jax.tree.map(put, INITIAL)

plain = told(INITIAL)
assert np.ptp(plain["scores"]) > 0.1
data = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
cases = {
    "a mesh is set": told(INITIAL, EXPLICIT),
    "its weights": told(laid(EXPLICIT, False), EXPLICIT),
    "its weights, and none is set": told(laid(EXPLICIT, False)),
    "a mesh is given": told(INITIAL, mesh=data),
    "it is set, too": told(INITIAL, data, mesh=data),
}
for case, found in cases.items():
    for name, values in found.items():
        np.testing.assert_allclose(
            values, plain[name], rtol=1e-4, atol=1e-5, err_msg=f"{case}: {name}"
        )

# Of weights that lie in parts, JAX wants to be told where each product lies; ours not.
parts = laid(EXPLICIT, True)
with jax.set_mesh(EXPLICIT):
    state = fssd.fit(FEATURE_FN, parts, NOISE, X, OOD, epsilons=(0.0, 0.01))
    found = fssd_jax.map_batches(fssd.score, FEATURE_FN, parts, state, OOD)
np.testing.assert_allclose(found, plain["scores"], rtol=1e-4, atol=1e-5)
print("all the same")
"""


def test_of_whatever_mesh_the_numbers_are_the_same():
    all_the_same(PROGRAM)
