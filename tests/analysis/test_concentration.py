from collections import OrderedDict

import flax.linen as nn
import jax
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from analysis.concentration import concentration, with_batch_statistics
from fssd_jax import estimate_singularity, make_feature_fn, uniform_noise
from fssd_jax.models import LeNet, ResNet


def test_against_scikit_learn(lenet):
    feature_fn, variables, singularity, images = lenet
    found = concentration(feature_fn, variables, singularity, images, batch_size=8)
    features = feature_fn(variables, images / np.float32(255))
    for k, (layer, center) in enumerate(singularity.center.items()):
        f = np.asarray(features[layer], np.float64).reshape(len(images), -1)
        center = np.asarray(center, np.float64)[None]
        cosine = cosine_similarity(f, center).mean()
        np.testing.assert_allclose(found.cosine[k], cosine, rtol=1e-4)
        squares = ((f - center) ** 2).sum(1).mean() / (center**2).sum()
        np.testing.assert_allclose(found.distance[k], np.sqrt(squares), rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_one_point_is_concentrated_and_the_origin_is_at_distance_one(scale):
    def feature_fn(variables, x):
        return OrderedDict(feature=scale * x.reshape(len(x), -1))

    noise = np.full((5, 3, 3, 1), 0.4, np.float32)
    singularity = estimate_singularity(feature_fn, {}, noise)
    at, origin, opposite = (
        concentration(feature_fn, {}, singularity, f * noise + 1e-7, 2)
        for f in (1, 0, 2)
    )
    np.testing.assert_allclose([at.distance, at.cosine], [[0], [1]], atol=1e-5)
    np.testing.assert_allclose(origin.distance, 1, rtol=1e-5)
    np.testing.assert_allclose([opposite.distance, opposite.cosine], 1, rtol=1e-5)


def test_the_noise_itself_is_where_the_spread_says():
    model = LeNet(3, (0.5,), (0.3,))
    noise = uniform_noise(jax.random.key(0), 30, (12, 12, 1))
    variables = model.init(jax.random.key(1), noise)
    feature_fn = make_feature_fn(model)
    singularity = estimate_singularity(feature_fn, variables, noise)
    found = concentration(feature_fn, variables, singularity, noise)
    spread = [
        float(s / np.linalg.norm(c))
        for s, c in zip(
            singularity.spread.values(), singularity.center.values(), strict=True
        )
    ]
    np.testing.assert_allclose(found.distance, spread, rtol=1e-4)


def test_batch_statistics_are_those_of_the_batch():
    """Layer by layer: what goes into each BatchNorm has its mean and variance."""
    model = ResNet((1, 1, 1, 1), stem="cifar", width=4, num_classes=2)
    x = np.random.default_rng(0).uniform(size=(8, 16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    found = with_batch_statistics(model, variables, x)
    layers = ["stem/conv1/conv", "stage2/block1/conv2/conv", "stage4/block1/conv1/conv"]
    # Then the network does in testing what it did in training.
    before = make_feature_fn(model, layers)(found, x)
    for layer, f in before.items():
        kept = found["batch_stats"]
        for part in (*layer.split("/")[:-1], "norm"):
            kept = kept[part]
        axes = (0, 1, 2)
        np.testing.assert_allclose(kept["mean"], f.mean(axes), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(kept["var"], f.var(axes), rtol=1e-3)
    # And the rest is as it was.
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])


class Normed(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(not train, momentum=self.momentum, name="norm")(x)


@pytest.mark.parametrize("momentum", [0.1, 0.9])
@pytest.mark.parametrize("scale", [1e-4, 3000.0, 1e6])
def test_batch_statistics_of_any_size(momentum, scale):
    """Against float64; a channel of zeros has the statistics 0."""
    x = np.random.default_rng(0).uniform(-0.2, 1, (64, 3, 3, 4)) * scale
    x[..., 3] = 0
    x = x.astype(np.float32)
    model = Normed(momentum)
    variables = model.init(jax.random.key(0), x)
    found = with_batch_statistics(model, variables, x)["batch_stats"]["norm"]
    exact = x.astype(np.float64)
    np.testing.assert_allclose(found["mean"], exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["var"], exact.var((0, 1, 2)), rtol=1e-5)
