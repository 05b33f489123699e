"""The detector of infinite width: easy blobs, batch-mates, its scale."""

import importlib.util

import numpy as np
import pytest

from analysis import infinite_detector, infinite_width
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax import metrics
from tests.analysis.test_infinite_width import problem

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)
# Of `ConvNet`s, one that has a twin.
TWIN = ConvNet(num_classes=3, strides=2, max_pool=False)


@pytest.mark.parametrize("network", [Perceptron(num_classes=3), TWIN])
def test_it_separates_easy_blobs(network):
    rng = np.random.default_rng(0)
    centers = rng.uniform(0.2, 0.8, (3, 11, 11, 1))

    def draw(y, middle):
        x = middle[y] + rng.normal(0, 0.03, (len(y), 11, 11, 1))
        return np.clip(x, 0, 1).astype(np.float32)

    y = rng.integers(0, 3, 60).astype(np.int32)
    # OoD: the same pixels in another order, so that brightness and contrast, with
    # which kernels of relu networks grow, do not tell the two apart.
    pixels = rng.permuted(centers.reshape(3, -1), axis=1).reshape(centers.shape)
    state = infinite_detector.fit(network, draw(y, centers), y, 100.0)
    new = rng.integers(0, 3, 40)
    ind = infinite_detector.score(network, state, draw(new, centers))
    ood = infinite_detector.score(network, state, draw(new, pixels))
    assert metrics.auroc(ind, ood) > 0.99
    ind, ood = (
        infinite_detector.score(network, state, draw(new, c), relative=True)
        for c in (centers, pixels)
    )
    assert metrics.auroc(ind, ood) > 0.99
    assert (ind < 2).all()  # as of a network whose outputs are redrawn


def test_a_score_does_not_depend_on_its_batch_mates():
    x, _, points = problem()
    y = np.arange(12, dtype=np.int32) % 3
    network = Perceptron(num_classes=3)
    state = infinite_detector.fit(network, x, y, 10.0)
    whole = infinite_detector.score(network, state, points)
    alone = [infinite_detector.score(network, state, p[None])[0] for p in points]
    np.testing.assert_allclose(whole, alone, rtol=1e-10)


def test_relative_is_to_the_variance_at_initialisation():
    x, _, points = problem()
    network = Perceptron(num_classes=3)
    state = infinite_detector.fit(network, x, np.arange(12, dtype=np.int32) % 3, 10.0)
    relative = infinite_detector.score(network, state, points, relative=True)
    variance = np.diag(infinite_width.kernels(network, points).nngp)
    absolute = infinite_detector.score(network, state, points)
    np.testing.assert_allclose(relative, absolute / (3 * variance), rtol=1e-7)


def test_training_images_may_come_in_batches():
    x, _, points = problem()
    y, network = np.arange(12, dtype=np.int32) % 3, Perceptron(num_classes=3)
    whole = infinite_detector.fit(network, x, y, 10.0)
    for data in ([x[:5], x[5:]], (x[i : i + 4] for i in (0, 4, 8))):
        state = infinite_detector.fit(network, data, y, 10.0)
        np.testing.assert_array_equal(state.train, x)
        found = infinite_detector.score(network, state, points)
        expected = infinite_detector.score(network, whole, points)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
