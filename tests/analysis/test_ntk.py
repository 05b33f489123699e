import importlib.util
from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

import fssd_jax
from analysis import ntk
from analysis.ntk_networks import ConvNet
from fssd_jax.checks import InputError

needs_ntk = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)


@pytest.fixture(scope="module")
def conv():
    """(feature_fn, variables, x) of a small network."""
    model = ConvNet(width=2, num_classes=3, strides=2, max_pool=False)
    x = jax.random.uniform(jax.random.key(0), (5, 11, 11, 1))
    return fssd_jax.make_feature_fn(model), model.init(jax.random.key(1), x), x


@needs_ntk
@pytest.mark.parametrize(
    ("layer", "axes"),
    [("conv1", "trace"), ("conv2", "full"), ("fc1", "diagonal"), ("logits", "trace")],
)
def test_both_routes_agree(conv, layer, axes):
    feature_fn, variables, x = conv
    args = (feature_fn, variables, layer, x, x[:2])
    direct = ntk.tangent_kernel(*args, axes=axes, direct=True, batch_size=5)
    kernel = ntk.tangent_kernel(*args, axes=axes, batch_size=5)
    assert kernel.shape[:2] == (5, 2)
    np.testing.assert_allclose(kernel, direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=needs_ntk)])
def test_trace_and_diagonal_are_parts_of_the_full_kernel(smooth, direct):
    feature_fn, variables, _, x = smooth
    of = [
        ntk.tangent_kernel(feature_fn, variables, "second", x, axes=a, direct=direct)
        for a in ("full", "diagonal", "trace")
    ]
    assert [k.shape for k in of] == [(6, 6, 5, 5), (6, 6, 5), (6, 6)]
    np.testing.assert_allclose(of[1], np.einsum("ijdd->ijd", of[0]), rtol=1e-5)
    np.testing.assert_allclose(of[2], of[1].mean(-1), rtol=1e-5)


def test_points_may_come_in_batches(smooth):
    feature_fn, variables, _, x = smooth
    of = partial(ntk.tangent_kernel, feature_fn, variables, "second", direct=True)
    parts = (x[i : i + 4] for i in range(0, 6, 4))
    np.testing.assert_array_equal(of(parts, [(x[:2], np.zeros(2))]), of(x, x[:2]))


@pytest.mark.parametrize("axes", ["trace", "diagonal", "full"])
def test_block_size_does_not_matter(smooth, axes):
    feature_fn, variables, _, x = smooth

    def kernel(*x, batch_size):
        return ntk.tangent_kernel(
            feature_fn, variables, "second", *x,
            axes=axes, direct=True, batch_size=batch_size,
        )  # fmt: skip

    whole = kernel(x, x, batch_size=6)
    np.testing.assert_allclose(kernel(x, batch_size=4), whole, rtol=1e-5, atol=1e-6)
    part = kernel(x, x[:5], batch_size=2)
    np.testing.assert_allclose(part, whole[:, :5], rtol=1e-5, atol=1e-6)


def test_the_full_kernel_is_symmetric_and_positive(smooth):
    feature_fn, variables, _, x = smooth
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
        k = ntk.tangent_kernel(
            feature_fn, double, "logits", np.float64(x), axes="full", direct=True
        )
    assert k.dtype == np.float64
    matrix = k.transpose(0, 2, 1, 3).reshape(18, 18)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    values = np.linalg.eigvalsh(matrix)
    assert values[0] > -1e-12 * values[-1]


@needs_ntk
def test_routes_agree_to_double_precision(smooth):
    feature_fn, variables, _, x = smooth
    with jax.enable_x64(True):
        double = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
        a, b = (
            ntk.tangent_kernel(
                feature_fn, double, "logits", np.float64(x), direct=direct
            )
            for direct in (True, False)
        )
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_kernel_of_a_linear_layer_is_known(smooth):
    # The last layer's own share: ⟨h, h'⟩ + 1, the same for every output.
    feature_fn, variables, _, x = smooth
    frozen = {"params": {"logits": variables["params"]["logits"]}, "rest": variables}

    def head(variables, x):
        params = {**variables["rest"]["params"], **variables["params"]}
        return feature_fn({"params": params}, x)

    h = np.asarray(feature_fn(variables, x)["second"])
    k = ntk.tangent_kernel(head, frozen, "logits", x, direct=True)
    np.testing.assert_allclose(k, h @ h.T + 1, rtol=1e-5)


def test_only_params_are_differentiated_and_integers_are_pixels():
    class WithStatistics(nn.Module):
        feature_layers = ("norm",)

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(3)(x.reshape(len(x), -1))
            return nn.BatchNorm(use_running_average=True, name="norm")(x)

    model = WithStatistics()
    x = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 1), np.uint8)
    variables = model.init(jax.random.key(0), x / np.float32(255))
    variables["batch_stats"]["norm"]["var"] *= 4
    feature_fn = fssd_jax.make_feature_fn(model)
    k = ntk.tangent_kernel(feature_fn, variables, "norm", x, direct=True)
    z = x.reshape(4, -1) / 255
    hidden = z @ variables["params"]["Dense_0"]["kernel"]
    # ∂/∂W, ∂/∂b: through √4; ∂/∂scale: the normalised value; ∂/∂bias: 1.
    expected = (z @ z.T + 1) / 4 + hidden @ hidden.T / 4 / 3 + 1
    np.testing.assert_allclose(k, expected, rtol=1e-4)


@pytest.mark.parametrize("layer", ["conv2", "fc1"])
def test_the_sketch_is_exact_for_a_basis_and_else_unbiased(conv, layer):
    feature_fn, variables, x = conv
    exact = ntk.tangent_kernel(feature_fn, variables, layer, x, direct=True)
    dim = feature_fn(variables, x)[layer][0].size
    sketch = lambda v, *more: ntk.sketched_kernel(  # noqa: E731
        feature_fn, variables, layer, x, *more, directions=v, batch_size=3
    )
    basis = np.sqrt(dim) * jnp.eye(dim)
    np.testing.assert_allclose(sketch(basis), exact, rtol=1e-4, atol=1e-5)
    single = np.stack(
        [sketch(v[None], x) for v in jax.random.rademacher(
            jax.random.key(0), (100, dim), jnp.float32)]
    )  # fmt: skip
    error = single.std(0) / np.sqrt(100)
    assert (np.abs(single.mean(0) - exact) < 4.5 * error + 1e-5).all()


@pytest.mark.parametrize("sketched", [True, pytest.param(False, marks=needs_ntk)])
def test_self_similarity_is_the_diagonal(conv, sketched):
    feature_fn, variables, x = conv
    directions = np.sqrt(8) * jnp.eye(8) if sketched else None
    own = ntk.self_similarity(
        feature_fn, variables, "fc1", x, directions=directions, batch_size=2
    )
    exact = ntk.tangent_kernel(feature_fn, variables, "fc1", x, direct=True)
    np.testing.assert_allclose(own, np.diag(exact), rtol=1e-5)
    cosine = ntk.normalised(exact, own, own)
    np.testing.assert_allclose(np.diag(cosine), 1, rtol=1e-5)
    assert np.abs(cosine).max() < 1 + 1e-5
    mean = ntk.mean_similarity(exact, (own, own))
    np.testing.assert_allclose(mean, cosine.mean(1))
    np.testing.assert_allclose(ntk.mean_similarity(exact), exact.mean(1))


def test_an_image_without_gradient_is_similar_to_none():
    kernel = np.array([[0.0, 0.0], [1.0, 2.0]])
    found = ntk.normalised(kernel, np.array([0.0, 1.0]), np.array([1.0, 4.0]))
    np.testing.assert_allclose(found, [[0, 0], [1, 1]])


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("length", [0.3, 2.0, 15.0])
def test_an_rbf_kernel_is_recognised(length, affine):
    x = np.random.default_rng(0).normal(size=(40, 3))
    d = scipy.spatial.distance.cdist(x, x[:10])
    k = np.exp(-np.square(d) / (2 * length**2))
    a, b = (0.7, 0.2) if affine else (1.0, 0.0)
    fit = ntk.rbf_fit(d, a * k + b, affine=affine)
    np.testing.assert_allclose(fit[:4], (length, a, b, 1), rtol=1e-3, atol=1e-6)
    assert fit.spearman < -0.99  # exp underflows to ties


def test_what_is_not_rbf_fits_badly():
    x = np.random.default_rng(0).normal(size=(60, 5))
    d = scipy.spatial.distance.cdist(x, x)
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    cosine = ntk.rbf_fit(d, unit @ unit.T, affine=True)
    assert cosine.r2 < 0.8
    rising = ntk.rbf_fit(d, d / d.max(), affine=True)
    assert abs(rising.r2) < 1e-6
    assert rising.amplitude == 0
    assert ntk.rbf_fit(d, d / d.max()).r2 < 0
    np.testing.assert_allclose(rising.spearman, 1)
    with pytest.raises(InputError, match="all equal"):
        ntk.rbf_fit(d, np.ones_like(d))


def test_errors_name_the_layers(smooth):
    feature_fn, variables, _, x = smooth
    with pytest.raises(InputError, match=r"unknown layer 'third'.*second"):
        ntk.tangent_kernel(feature_fn, variables, "third", x, direct=True)
    with pytest.raises(InputError, match="batch_size"):
        ntk.tangent_kernel(
            feature_fn, variables, "second", x, direct=True, batch_size=0
        )
    with pytest.raises(InputError, match="directions: none"):
        ntk.sketched_kernel(
            *(feature_fn, variables, "second", x), directions=jnp.zeros((0, 5))
        )
    # Without conjugates the products of complex gradients would be no kernel.
    turned = jax.tree.map(lambda a: a * (1 + 1j), variables)
    with pytest.raises(InputError, match="real parameters, and some are complex"):
        ntk.tangent_kernel(feature_fn, turned, "second", x, direct=True)


@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=needs_ntk)])
def test_of_a_network_in_16_bits_kernels_are_none(direct):
    """A sum over 4,096 parameters, each adding 1, would end at 256 in bfloat16."""
    w = jnp.ones((4096, 1), jnp.bfloat16)
    x = np.ones((2, 4096), np.float32)

    def features(w, x):
        return OrderedDict(logits=x.astype(w.dtype) @ w)

    found = ntk.tangent_kernel(features, w, "logits", x, direct=direct)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 4096)
    directions = ntk.trace_directions(jax.random.key(0), 1, 1)
    sketched = ntk.sketched_kernel(features, w, "logits", x, directions=directions)
    np.testing.assert_array_equal(sketched, found)


@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=needs_ntk)])
def test_sums_over_many_arrays_are_none_in_16_bits(direct):
    """One bias adds 256 and 40 add 1 each, which a sum in bfloat16 does not notice."""
    params = [jnp.ones(1, jnp.bfloat16) for _ in range(41)]

    def features(params, x):
        tree = [x[:, :1].astype(jnp.bfloat16) * p[None] for p in params]
        tree[0] *= 16
        while len(tree) > 1:  # in pairs: the feature is not what is asked about
            tree = [sum(tree[i : i + 2]) for i in range(0, len(tree), 2)]
        return OrderedDict(logits=tree[0])

    x = np.ones((2, 1), np.float32)
    found = ntk.tangent_kernel(features, params, "logits", x, direct=direct)
    np.testing.assert_array_equal(found, 296)
