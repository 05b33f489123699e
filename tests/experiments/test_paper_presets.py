"""The largest networks of the `paper` presets: a step runs, and lowers elsewhere.

pytest -m slow tests/experiments/test_paper_presets.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fssd_jax
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.ntk_networks import stable_rate
from experiments.kernel_study import phases, setting
from experiments.kernel_study.phase_presets import PRESETS, RATES
from experiments.kernel_study.setting import LOSSES, NTK_NETWORKS, draw
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.features import make_init_fn
from fssd_jax.losses import cross_entropy

pytestmark = [pytest.mark.slow, pytest.mark.data]
BATCH, POINTS = 100, 4  # the presets' batch; they have more points, in parts of 100
SHAPES = jax.ShapeDtypeStruct


@pytest.fixture(scope="module")
def data():
    benchmark = load_benchmark("fmnist")
    return draw(benchmark, 0, train=BATCH, points=POINTS, noise=POINTS)


def of_shape(tree):
    return jax.tree.map(lambda a: SHAPES(a.shape, a.dtype), tree)


def lowers(function, *args):
    found = export.export(function, platforms=["cuda", "tpu"])(*of_shape(args))
    assert found.platforms == ("cuda", "tpu")
    return found.out_avals


def widest(network, presets, data, parametrisation="ntk"):
    return NTK_NETWORKS[network](
        max(presets["paper"].widths[network]),
        data.benchmark.num_classes,
        data.benchmark.mean,
        data.benchmark.std,
        parametrisation=parametrisation,
    )


@pytest.mark.parametrize("network", ["perceptron", "strided", "resnet", "convnet"])
@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_a_cell_of_kernel_phases(network, loss, data, monkeypatch):
    model = widest(network, PRESETS, data, parametrisation="mup")
    rate = stable_rate(model, RATES[loss][network])
    assert PRESETS["paper"].batch_size == BATCH
    run, state = phases.begin(model, loss, rate, (0,), (0,), [data])
    order = jnp.asarray(phases.orders((0,), BATCH, BATCH, 1))
    args = (state, run.initial, run.x, run.y, order)
    advance = phases.make_advance(run)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(jax, "default_backend", lambda: "gpu")
        number = np.int32(1)
        moved = lowers(phases.make_advance(run), *args, number, number)
    assert [a.shape for a in moved] == [a.shape for a in jax.tree.leaves(state)]

    state = advance(*args, 0, 1)
    points, noise = jnp.stack([data.points]), jnp.stack([data.noise])
    sizes = phases.make_look(run)(state, run.initial, points, noise)
    assert all(np.isfinite(size).all() for size in sizes.values())
    layers = list(model.feature_layers)
    assert sizes["fssd/network"].shape == (1, len(data.points), len(layers))
    # After one step both forms are J_0(θ_1 − θ_0), and the network is near that.
    np.testing.assert_allclose(
        sizes["displacement/frozen"], sizes["displacement/linearised 0"], rtol=1e-3
    )
    np.testing.assert_allclose(
        sizes["gap/frozen"], sizes["gap/linearised 0"], rtol=0.02, atol=1e-5
    )
    assert (sizes["gap/frozen"] < 0.5 * sizes["displacement/network"]).all()


@pytest.mark.parametrize("network", ["perceptron", "convnet", "strided"])
def test_the_forms_of_kernel_regression(network, data):
    model = widest(network, setting.PRESETS, data)
    feature_fn, logit_fn = (
        make(model) for make in (fssd_jax.make_feature_fn, fssd_jax.make_logit_fn)
    )
    variables = make_init_fn(model)(jax.random.key(0), data.x[:1])
    x, y = data.x[: setting.PRESETS["paper"].batch_size], data.y[:64]
    rate, loss = 0.1, LOSSES["cross_entropy"]

    @jax.jit
    def step(params, x, y):
        gradient = jax.grad(lambda p: cross_entropy(logit_fn({"params": p}, x), y))
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient(params))

    lowers(step, variables["params"], x, y)
    after = {"params": step(variables["params"], x, y)}
    path = PathForm(feature_fn, data.points, nodes=2)
    gradient_fn = make_gradient_fn(model, feature_fn, loss)
    frozen = FrozenForm(feature_fn, gradient_fn, variables, rate)
    for form in (path, frozen):
        form(0, variables, after, x, y)
    moved = {
        layer: np.asarray(f - feature_fn(variables, data.points)[layer])
        for layer, f in feature_fn(after, data.points).items()
    }
    along, regressed = path.value(), frozen.value(data.points)
    for layer, true in moved.items():
        true = true.reshape(len(true), -1)
        size = np.linalg.norm(true)
        assert np.linalg.norm(along[layer] - true) < 0.05 * size, layer
        assert np.linalg.norm(regressed[layer] - true) < 0.5 * size, layer
