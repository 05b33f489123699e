import importlib.util
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import fssd_jax
from analysis import infinite_width, ntk_networks
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax import checks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)
CONV = partial(ConvNet, strides=2, max_pool=False)


def problem(n=12, points=4, classes=3, size=3):
    """A small set of training images, labels, and other images."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(n + points, size, size, 1)).astype(np.float32)
    y = rng.integers(0, classes, n).astype(np.int32)
    targets = infinite_width.centred_one_hot(y, classes)
    return x[:n], targets, x[n:]


def recursion(x, convolutions, hidden):
    """K and Θ by Cho and Saul (2009), Jacot et al. (2018); their averages by hand."""

    def patches(k):  # means over 3 × 3 positions, every second one
        size = (k.shape[-1] - 1) // 2
        rows = [k[..., i : i + 2 * size : 2, :] for i in range(3)]
        mean = sum(r[..., j : j + 2 * size : 2] for r in rows for j in range(3)) / 9
        return mean

    def everywhere(k):
        return k.mean(axis=(2, 3), keepdims=True)

    def relu(k):  # E relu(u) relu(v) and E 1[u > 0] 1[v > 0]
        own = np.einsum("iihw->ihw", k)
        size = np.sqrt(own[:, None] * own[None])
        angle = np.arccos(np.clip(k / size, -1, 1))
        step = (np.pi - angle) / (2 * np.pi)
        return size * np.sin(angle) / (2 * np.pi) + k * step, step

    weight, bias = ntk_networks.WEIGHT_STD**2, ntk_networks.BIAS_STD**2
    average = [patches] * convolutions + [everywhere] * hidden
    k = average[0](np.einsum("ihwc,jhwc->ijhw", x, x) / x.shape[-1])
    k = weight * k + bias
    ntk = k
    for mean in average[1:]:
        product, step = relu(k)
        k = weight * mean(product) + bias
        ntk = k + weight * mean(step * ntk)
    return k[..., 0, 0], ntk[..., 0, 0]


@pytest.mark.parametrize(
    ("network", "parts"), [(Perceptron(), (0, 3)), (CONV(), (2, 2))]
)
def test_the_kernels_are_those_of_the_recursion(network, parts):
    x = np.random.default_rng(0).uniform(size=(5, 11, 11, 1))
    expected = recursion((x - network.mean) / network.std, *parts)
    found = infinite_width.kernels(network, x)
    for k, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(k, by_hand, rtol=1e-7)


def kernels_of_one(network, x, key):
    """Θ of the first logit, and K as the mean over the last layer's weights."""
    variables = network.init(key, x)
    gradient = jax.vmap(
        jax.grad(lambda p, a: network.apply({"params": p}, a[None])[0, 0]), (None, 0)
    )(variables["params"], x)
    leaves = [g.reshape(len(x), -1) for g in jax.tree.leaves(gradient)]
    last = network.feature_layers[-2]
    h = fssd_jax.make_feature_fn(network, [last])(variables, x)[last]
    weight, bias = ntk_networks.WEIGHT_STD**2, ntk_networks.BIAS_STD**2
    nngp = weight / h.shape[1] * h @ h.T + bias
    return nngp, sum(g @ g.T for g in leaves)


@pytest.mark.parametrize(
    ("network", "size"), [(Perceptron(width=512), 3), (CONV(width=128), 9)]
)
def test_the_kernels_are_the_mean_of_wide_networks(network, size):
    x = jax.random.uniform(jax.random.key(0), (4, size, size, 1))
    of_one = jax.jit(partial(kernels_of_one, network, x))
    keys = jax.random.split(jax.random.key(1), 32)
    finite = [np.stack(k) for k in zip(*map(of_one, keys), strict=True)]
    limit = infinite_width.kernels(network, np.asarray(x))
    for found, expected in zip(finite, limit, strict=True):
        # Kernels of one network spread by 1/√width, and their mean is off by 1/width.
        error = found.std(axis=0, ddof=1) / math.sqrt(len(keys))
        assert (error < 0.04 * expected.max()).all()  # or the test would mean little
        bias = 2 * expected.max() / network.width
        assert (np.abs(found.mean(axis=0) - expected) < 4 * error + bias).all()


@pytest.mark.parametrize("network", [Perceptron(), CONV()])
def test_kernels_are_symmetric_positive_and_independent_of_blocks(network):
    x = np.random.default_rng(0).integers(0, 256, (7, 11, 11, 1), np.uint8)
    for whole, blocks, part in zip(
        infinite_width.kernels(network, x, x),
        infinite_width.kernels(network, x, batch_size=3),
        infinite_width.kernels(network, x[:5] / np.float32(255), x, batch_size=4),
        strict=True,
    ):
        np.testing.assert_allclose(blocks, whole, rtol=1e-7)
        np.testing.assert_allclose(part, whole[:5], rtol=1e-6)
        np.testing.assert_allclose(whole, whole.T, rtol=1e-7)
        assert whole.dtype == np.float64
        assert np.linalg.eigvalsh(whole)[0] > 0


def test_networks_without_a_twin_are_refused():
    x = np.zeros((2, 11, 11, 1), np.float32)
    for network, message in (
        (ConvNet(), "max_pool=False"),
        (Perceptron(activation=nn.tanh), "nn.relu"),
    ):
        with pytest.raises(checks.InputError, match=message):
            infinite_width.kernels(network, x)


@pytest.fixture(scope="module")
def solved():
    """Θ and K of the training images, Θ(x, X), targets."""
    x, targets, points = problem()
    train = infinite_width.kernels(Perceptron(num_classes=3), x)
    test = infinite_width.kernels(Perceptron(num_classes=3), points, x).ntk
    return train, test, targets


def displacement(solved, time, at_training_points=False):
    train, test, targets = solved
    (readout,) = infinite_width.readouts(train, targets, [time])
    return infinite_width.expected_squared_displacement(
        readout, train.ntk if at_training_points else test
    )


def test_the_expectation_is_that_of_the_linear_model(solved):
    # A by the matrix exponential and a solve, and the trace formula for E f_0 f_0ᵀ.
    train, test, targets = solved
    time = 7.0
    decay = scipy.linalg.expm(-time / len(targets) * train.ntk)
    readout = test @ np.linalg.solve(train.ntk, np.eye(len(targets)) - decay)
    found = displacement(solved, time)
    np.testing.assert_allclose(found.labels, ((readout @ targets) ** 2).sum(1))
    np.testing.assert_allclose(
        found.initial, 3 * np.diag(readout @ train.nngp @ readout.T), rtol=1e-6
    )
    np.testing.assert_allclose(found.total, found.labels + found.initial)


def test_the_mean_is_that_of_neural_tangents(solved):
    from analysis.neural_tangents_compat import predict

    train, test, targets = solved
    with jax.enable_x64(True):
        zeros = jnp.zeros((len(targets), 3)), jnp.zeros((len(test), 3))
        # Its loss is a mean over outputs too, so its time runs three times as slowly.
        move = predict.gradient_descent_mse(
            jnp.asarray(train.ntk), jnp.asarray(targets)
        )
        for time in (0.5, 20.0):
            _, moved = move(3 * time, *zeros, jnp.asarray(test))
            np.testing.assert_allclose(
                displacement(solved, time).labels, np.square(moved).sum(1), rtol=1e-6
            )


def test_limits_of_time(solved):
    train, test, targets = solved
    assert (displacement(solved, 0.0).total == 0).all()
    # At first it moves along the kernel itself: A = ηt/n Θ(x, X).
    early = displacement(solved, 1e-6)
    rate = 1e-6 / len(targets)
    np.testing.assert_allclose(
        early.labels, rate**2 * np.square(test @ targets).sum(1), rtol=1e-4
    )
    # In the end it interpolates: f(x) = y, from f_0(x) ~ N(0, K(x, x)).
    end = displacement(solved, math.inf, at_training_points=True)
    np.testing.assert_allclose(end.labels, np.square(targets).sum(1), rtol=1e-7)
    np.testing.assert_allclose(end.initial, 3 * np.diag(train.nngp), rtol=1e-7)
    late = displacement(solved, 1e9)
    np.testing.assert_allclose(
        late.total, displacement(solved, math.inf).total, rtol=1e-7
    )


def test_repeated_images_have_no_last_moment_but_all_others():
    x, targets, points = problem()
    x[1], targets[1] = x[0], targets[0]
    network = Perceptron(num_classes=3)
    train = infinite_width.kernels(network, x)
    (readout,) = infinite_width.readouts(train, targets, [10.0])
    ntk = infinite_width.kernels(network, points, x).ntk
    found = infinite_width.expected_squared_displacement(readout, ntk)
    assert np.isfinite(found.total).all()
    same = infinite_width.Kernels(*(k[[0, 0, 2]][:, [0, 0, 2]] for k in train))
    with pytest.raises(checks.InputError, match="repeated"):
        infinite_width.readouts(same, targets[:3], [math.inf])
    with pytest.raises(checks.InputError, match="0 or more"):
        infinite_width.readouts(same, targets[:3], [-1.0])


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (Perceptron(width=512, num_classes=3), 3),
        pytest.param(CONV(width=128, num_classes=3), 9, marks=pytest.mark.slow),
    ],
)
def test_an_ensemble_of_wide_networks_moves_as_expected(network, size):
    x, targets, points = problem(size=size)
    train = infinite_width.kernels(network, x)
    test = infinite_width.kernels(network, points, x).ntk
    rate, steps, members = 0.2, 75, 48
    y = jnp.asarray(targets, jnp.float32)

    def loss(params):
        gap = network.apply({"params": params}, x) - y
        return jnp.square(gap).sum() / (2 * len(x))

    @jax.jit
    def of_member(key):
        start = network.init(key, x)["params"]
        step = lambda _, p: jax.tree.map(  # noqa: E731
            lambda a, g: a - rate * g, p, jax.grad(loss)(p)
        )
        end = jax.lax.fori_loop(0, steps, step, start)
        before = network.apply({"params": start}, np.concatenate([x, points]))
        after = network.apply({"params": end}, points)
        return before[: len(x)], after - before[len(x) :]

    keys = jax.random.split(jax.random.key(0), members)
    initial, moved = (np.stack(p) for p in zip(*map(of_member, keys), strict=True))
    decay = scipy.linalg.expm(-rate * steps / len(x) * train.ntk)
    readout = test @ np.linalg.solve(train.ntk, np.eye(len(x)) - decay)

    # Member by member, given its f_0: within O(1/√width) of the linear model.
    linear = readout @ (targets[None] - initial)
    near = 2.3 / math.sqrt(network.width)
    assert np.linalg.norm(moved - linear) < near * np.linalg.norm(linear)
    # In expectation: within the standard error, and a bias of O(1/width).
    squares = np.square(moved).sum(axis=2)
    expected = displacement((train, test, targets), rate * steps).total
    error = squares.std(axis=0, ddof=1) / math.sqrt(members)
    assert (error < 0.25 * expected).all()
    bias = 10 / network.width * expected
    assert (np.abs(squares.mean(axis=0) - expected) < 4 * error + bias).all()


def test_labels_are_centred():
    y = np.array([0, 1, 1, 2])
    hot = infinite_width.centred_one_hot(y, 3)
    np.testing.assert_allclose(hot.sum(0), 0, atol=1e-15)
    np.testing.assert_allclose(hot[1] - hot[0], [-1, 1, 0])


def test_expected_fssd_is_the_mean_over_draws_of_the_initial_function():
    """f_0 is drawn on all images at once, moved by the closed form, and measured."""
    rng = np.random.default_rng(0)
    x, points, noise = (rng.uniform(size=(n, 3, 3, 1)) for n in (6, 5, 7))
    network = Perceptron(1, 3, (0.3,), (0.4,))
    targets = np.eye(3)[rng.integers(0, 3, 6)] - 1 / 3
    found = infinite_width.expected_squares(
        network, x, targets, [0.0, 5.0], points, noise
    )
    every = infinite_width.kernels(network, np.concatenate([x, points, noise]))
    root = np.linalg.cholesky(every.nngp + 1e-10 * np.eye(18))
    initial = np.einsum("ij,djc->dic", root, rng.normal(size=(4000, 18, 3)))
    theta = every.ntk[:6, :6]
    flow = np.eye(6) - scipy.linalg.expm(-5 / 6 * theta)
    moves = every.ntk[:, :6] @ np.linalg.solve(theta, flow)
    final = initial + np.einsum("ij,djc->dic", moves, targets - initial[:, :6])
    for of_time, f in zip(found, (initial, final), strict=True):
        star = f[:, 11:].mean(1, keepdims=True)
        for expected, vectors in (
            (of_time.fssd, f[:, 6:11] - star),
            (of_time.displacement, (f - initial)[:, 6:11]),
        ):
            squares = np.square(vectors).sum(-1)
            error = squares.std(0) / np.sqrt(len(squares))
            assert (np.abs(squares.mean(0) - expected) < 4.5 * error + 1e-9).all()
