import importlib.util

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from analysis import infinite_runs, infinite_width
from analysis.ntk_networks import Perceptron
from fssd_jax.checks import InputError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)
TIMES = [0.0, 2.0, 30.0]
N, POINTS, NOISE, CLASSES = 6, 4, 3, 2


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(N + POINTS + NOISE, 3, 3, 1)).astype(np.float32)
    targets = rng.normal(size=(N, CLASSES))
    return x[:N], targets, x[N:]


@pytest.fixture(scope="module")
def twin(problem):
    x_train, targets, x = problem
    return infinite_runs.twin(Perceptron(), x_train, targets, TIMES, x)


def test_it_solves_the_equation_of_gradient_flow(problem, twin):
    """df/ds = −Θ(·, X) (f(X) − Y) / n, by SciPy's Runge and Kutta."""
    x_train, targets, x = problem
    theta = infinite_width.kernels(
        Perceptron(), np.concatenate([x, x_train]), x_train
    ).ntk
    rng = np.random.default_rng(1)
    initial, initial_train = (rng.normal(size=(n, CLASSES)) for n in (len(x), N))
    found = infinite_runs.trained(twin, initial, initial_train)

    def flow(_, f):
        f = f.reshape(-1, CLASSES)
        return -(theta @ (f[-N:] - targets) / N).ravel()

    start = np.concatenate([initial, initial_train]).ravel()
    solved = solve_ivp(flow, (0, TIMES[-1]), start, t_eval=TIMES, rtol=1e-9, atol=1e-9)
    expected = solved.y.T.reshape(len(TIMES), -1, CLASSES)[:, :-N]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_draws_have_the_mean_squares_that_are_expected(problem, twin):
    x_train, targets, x = problem
    points, noise = x[:POINTS], x[POINTS:]
    expected = infinite_width.expected_squares(
        Perceptron(), x_train, targets, TIMES, points, noise
    )
    rng, count = np.random.default_rng(2), 1000
    squares = np.empty((count, 2, len(TIMES), POINTS))
    for i in range(count):
        initial, initial_train = infinite_runs.draw(twin, rng)
        f = infinite_runs.trained(twin, initial, initial_train)
        star = f[:, POINTS:].mean(1, keepdims=True)
        for k, vectors in enumerate((f - star, f - initial[None])):
            squares[i, k] = np.square(vectors[:, :POINTS]).sum(-1)
    errors = squares.std(0) / np.sqrt(count)
    for time, of in enumerate(expected):
        for k, mean in enumerate((of.fssd, of.displacement)):
            gap = np.abs(squares[:, k, time].mean(0) - mean)
            assert (gap <= 4 * errors[k, time] + 1e-12).all()
    assert errors.max() < 0.1 * squares.mean(0).max()  # so that this tells something


def test_a_start_of_another_shape_is_an_error(twin):
    initial, initial_train = infinite_runs.draw(twin, np.random.default_rng(0))
    with pytest.raises(InputError, match="initial_train: expected f_0 of shape"):
        infinite_runs.trained(twin, initial, initial_train[:-1])
    with pytest.raises(InputError, match="initial: expected f_0 of shape"):
        infinite_runs.trained(twin, initial[:, :1], initial_train[:, :1])


def test_images_and_floats_may_stand_beside_each_other():
    """Joined as they are, floats would be put beside 0 to 255."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 3, 3, 1), np.uint8)
    floats = images / np.float32(255)
    targets, net = np.eye(N)[:, :CLASSES], Perceptron()
    expected = infinite_runs.twin(net, floats, targets, TIMES, floats[:2]).operators
    for x_train, x in ((images, floats), (floats, images), (images, images)):
        found = infinite_runs.twin(net, x_train, targets, TIMES, x[:2]).operators
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
