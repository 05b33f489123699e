import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.displacement import decompose, displacement
from analysis.ntk_networks import ConvNet
from fssd_jax import estimate_singularity, fssd, make_feature_fn
from tests.analysis.test_kernel_regression import by_hand, relative_error
from tests.conftest import Smooth


@pytest.mark.parametrize("model", [Smooth(), ConvNet(2, 3)])
def test_the_terms_add_up_to_the_squared_distance(model):
    x = np.random.default_rng(0).uniform(size=(9, 12, 12, 1)).astype(np.float32)
    initial, final = (model.init(jax.random.key(seed), x) for seed in (0, 1))
    feature_fn = make_feature_fn(model)
    noise = np.random.default_rng(1).uniform(size=(20, 12, 12, 1)).astype(np.float32)
    singularity = estimate_singularity(feature_fn, final, noise)
    terms = decompose(feature_fn, initial, final, singularity, x, batch_size=4)
    distance = fssd.distances(singularity, feature_fn(final, x))
    np.testing.assert_allclose(sum(terms), distance**2, rtol=1e-3)
    moved = by_hand(feature_fn, initial, final, x)
    found = displacement(feature_fn, initial, final, x, batch_size=4)
    assert relative_error(found, moved) < 1e-5
    for k, f in enumerate(moved.values()):
        np.testing.assert_allclose(
            terms.moved[:, k], jnp.square(f).sum(-1), rtol=1e-4, atol=1e-5
        )
    # Untrained, FSSD is the offset alone.
    still = decompose(feature_fn, final, final, singularity, x)
    np.testing.assert_array_equal(still.moved, 0)
    np.testing.assert_allclose(still.offset, distance**2, rtol=1e-3)
