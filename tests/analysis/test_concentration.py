from collections import OrderedDict

import jax
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from analysis.concentration import concentration
from fssd_jax import estimate_singularity, make_feature_fn, uniform_noise
from fssd_jax.models import LeNet


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
