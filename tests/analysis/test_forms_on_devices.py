"""Eq. (4) over many devices, simulated on the processor, in a process of their own."""

from tests.eight_devices import all_the_same

PROGRAM = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from fssd_jax import devices, make_feature_fn
from fssd_jax.models import MLP

assert jax.device_count() == 8
RNG = np.random.default_rng(0)
X, Y = RNG.random((48, 4, 4, 1), np.float32), np.arange(48) % 8
PROBE = RNG.random((21, 4, 4, 1), np.float32)
MODEL, RATE = MLP(hidden=(16, 16), num_classes=8), 0.3
FEATURE_FN = make_feature_fn(MODEL)
GRADIENT_FN = make_gradient_fn(MODEL, FEATURE_FN)
INITIAL = jax.device_get(MODEL.init(jax.random.key(0), X[:1]))
MESH = devices.default_mesh()

def rows(a):
    return jax.device_put(a, NamedSharding(MESH, PartitionSpec("data")))

def columns(a):
    axes = (None,) * (a.ndim - 1) + ("data",)
    return jax.device_put(a, NamedSharding(MESH, PartitionSpec(*axes)))

def forms(of_inputs, of_variables):
    '''Three steps of SGD, with both forms, laid so.'''
    path = PathForm(FEATURE_FN, of_inputs(PROBE[:16]), nodes=2)
    frozen = FrozenForm(FEATURE_FN, GRADIENT_FN, None, RATE)
    before = jax.tree.map(of_variables, INITIAL)
    for step in range(3):
        x, y = of_inputs(X[16 * step :][:16]), of_inputs(Y[16 * step :][:16])
        gradient = GRADIENT_FN(before, x, y)[0]
        params = jax.tree.map(lambda p, g: p - RATE * g, before["params"], gradient)
        params = jax.tree.map(of_variables, params)
        after = {"params": params}
        for form in (path, frozen):
            form(step, before, after, x, y)
        before = after
    laid = {len(a.sharding.device_set) for a in jax.tree.leaves((before, x, y))}
    told = {"path": path.value(), "frozen": frozen.value(of_inputs(PROBE[:16]))}
    return told | {"padded": frozen.value(PROBE, batch_size=16)}, laid, frozen.forms

with jax.default_device(jax.devices()[0]):
    one, laid, names = forms(jax.numpy.asarray, jax.numpy.asarray)
assert laid == {1}, laid
assert set(names.values()) == {"bottleneck"}, names
everywhere = lambda a: jax.device_put(a, NamedSharding(MESH, PartitionSpec()))
for of_variables in (everywhere, columns):
    many, laid, of_many = forms(rows, of_variables)
    assert laid == {8}, laid
    assert of_many == names
    for form, layers in one.items():
        for layer, expected in layers.items():
            assert np.abs(expected).max() > 0.01
            np.testing.assert_allclose(many[form][layer], expected, rtol=1e-5,
                                       atol=1e-5, err_msg=f"{form}, {layer}")
print("all the same")
"""


def test_both_forms_do_not_depend_on_the_number_of_devices():
    """Points, batches and parameters lie on eight; the parameters whole, and cut."""
    all_the_same(PROGRAM)
