import importlib.util
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.interpreters import ad

from fssd_jax.models.lenet import ConvRelu, DenseRelu, max_pool_2x2

needs_ntk = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)


@pytest.fixture(scope="module")
def compat():
    return pytest.importorskip("analysis.neural_tangents_compat", exc_type=ImportError)


def run(code):
    """`code` in a fresh interpreter, where warnings are errors.

    But not what matplotlib 3.10.0 draws from a newer pyparsing, as it is imported.
    """
    begin = "import warnings, matplotlib.pyplot; warnings.simplefilter('error')\n"
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_ntk
def test_jax_is_left_as_it_was_and_tensorflow_is_not_imported():
    code = """
import sys, jax, jax.core
from jax.interpreters import ad
before = [set(vars(jax.core)), set(vars(ad))]
from analysis.neural_tangents_compat import nt
assert before == [set(vars(jax.core)), set(vars(ad))]
assert nt.stax and not hasattr(nt, "experimental")
print(*{"jax.util", "neural_tangents.experimental", "tensorflow"} & set(sys.modules))
"""
    assert run(code) == ""


@needs_ntk
def test_a_copy_that_was_imported_before_is_used():
    # Whoever did it lent the names in their own way, and left them there.
    code = """
import sys, types, jax, jax.core, jax.extend.core as new
from jax.interpreters import ad
for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"):
    setattr(jax.core, name, getattr(new, name))
ad.zeros_like_p = new.Primitive("zeros_like")
util = sys.modules["jax.util"] = types.ModuleType("jax.util")
util.safe_map = lambda f, *xs: list(map(f, *xs))
util.safe_zip = lambda *xs: list(zip(*xs))
sys.modules["neural_tangents.experimental"] = types.ModuleType("experimental")
import neural_tangents
from analysis.neural_tangents_compat import nt
x, w = jax.numpy.ones((2, 3)), jax.numpy.ones((3, 4))
kernel = nt.empirical_ntk_fn(lambda w, x: x @ w, implementation=3, vmap_axes=0)
assert nt is neural_tangents and hasattr(jax.core, "Var")
print(kernel(x, None, w)[0, 1])
"""
    assert run(code) == "3.0"


@pytest.mark.parametrize("missing", ["neural_tangents", "frozendict"])
def test_without_the_package_the_error_says_what_to_install(missing):
    if missing == "frozendict" and importlib.util.find_spec("neural_tangents") is None:
        pytest.skip("the extra `ntk`")
    code = f"""
import sys, jax.core
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{missing}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import analysis.ntk_networks, analysis.ntk, analysis.pca, analysis.plots
try:
    import analysis.neural_tangents_compat
except ImportError as error:
    print(error)
assert not hasattr(jax.core, "Var") and "jax.util" not in sys.modules
"""
    said = run(code)
    assert missing in said
    assert "--no-deps neural-tangents==0.6.5 frozendict" in said
    assert 'pip install "fssd-jax[ntk]"' in said


def test_the_rest_of_analysis_does_not_import_it():
    code = """
import sys
import analysis.ntk_networks, analysis.ntk, analysis.pca, analysis.plots
print("neural_tangents" in sys.modules)
"""
    assert run(code) == "False"


def test_a_stax_kernel_is_the_arc_cosine_formula(compat):
    # Cho and Saul (2009), for one hidden layer of relu units.
    x = np.random.default_rng(0).normal(size=(5, 7))
    layers = (compat.stax.Dense(1), compat.stax.Relu(), compat.stax.Dense(1))
    _, _, kernel_fn = compat.stax.serial(*layers)
    found = kernel_fn(jnp.asarray(x), None, ("nngp", "ntk"))
    gram = x @ x.T / 7
    size = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    angle = np.arccos(np.clip(gram / size, -1, 1))
    step = (np.pi - angle) / (2 * np.pi)
    nngp = size * np.sin(angle) / (2 * np.pi) + gram * step
    np.testing.assert_allclose(found.nngp, nngp, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(found.ntk, nngp + gram * step, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", [1, 3])
def test_the_empirical_kernel_is_that_of_the_jacobian(compat, implementation):
    class SmallLeNet(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = max_pool_2x2(ConvRelu(3)(ConvRelu(2)(x)))
            return nn.Dense(3)(DenseRelu(4)(x.reshape(len(x), -1)))

    model = SmallLeNet()
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    f, params = model.apply, model.init(jax.random.key(1), x)
    jacobian = [
        leaf.reshape(*leaf.shape[:2], -1)
        for leaf in jax.tree.leaves(jax.jacrev(f)(params, x))
    ]
    full = sum(np.einsum("idp,jep->ijde", j, j) for j in jacobian)
    kernel_fn = compat.nt.empirical_ntk_fn(
        f, trace_axes=(), vmap_axes=0, implementation=implementation
    )
    kernel = jax.jit(kernel_fn)(x, x[:2], params)
    np.testing.assert_allclose(kernel, full[:, :2], rtol=1e-4, atol=1e-5)


def test_predictions_are_the_matrix_exponential(compat):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(5, 7)), rng.normal(size=(3, 7))
    y, f0, g0 = (rng.normal(size=(n, 2)) for n in (5, 5, 3))
    layers = (compat.stax.Dense(1), compat.stax.Relu(), compat.stax.Dense(1))
    _, _, kernel_fn = compat.stax.serial(*layers)
    k, k_test = (
        np.asarray(kernel_fn(jnp.asarray(a), jnp.asarray(train), "ntk"), np.float64)
        for a in (train, test)
    )
    # d f/dt = −Θ (f − y) / (n · outputs), the loss being a mean over both.
    t = 3.0
    left = scipy.linalg.expm(-k * t / y.size)
    readout = k_test @ np.linalg.solve(k, np.eye(5) - left)
    predict = compat.predict.gradient_descent_mse(jnp.asarray(k), jnp.asarray(y))
    on_train, on_test = predict(
        t, jnp.asarray(f0), jnp.asarray(g0), jnp.asarray(k_test)
    )
    np.testing.assert_allclose(on_train, y + left @ (f0 - y), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(on_test, g0 + readout @ (y - f0), rtol=1e-4, atol=1e-5)

    predict = compat.predict.gradient_descent_mse_ensemble(
        kernel_fn, jnp.asarray(train), jnp.asarray(y)
    )
    mean = predict(t=t, x_test=jnp.asarray(test), get="ntk")
    np.testing.assert_allclose(mean, readout @ y, rtol=1e-3, atol=1e-4)


def test_nothing_is_lent_any_more(compat):
    for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"):
        assert name not in vars(jax.core)
    assert "zeros_like_p" not in vars(ad)
    assert compat.nt.__version__ == "0.6.5"
