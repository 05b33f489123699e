import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.displacement import Terms, decompose, displacement
from analysis.ntk_networks import ConvNet
from fssd_jax import InputError, estimate_singularity, fssd, make_feature_fn
from fssd_jax.outputs import pool
from tests.analysis.following import by_hand, relative_error
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


@pytest.fixture(scope="module")
def ends():
    """(feature_fn, variables before and after, images), in float64."""
    model = Smooth()
    rng = np.random.default_rng(0)
    x, noise = (rng.uniform(size=(n, 4, 4, 1)).astype(np.float32) for n in (7, 20))
    with jax.enable_x64(True):
        both = [
            jax.tree.map(np.float64, model.init(jax.random.key(seed), x))
            for seed in (0, 1)
        ]
    return make_feature_fn(model), *both, x, noise


def features(feature_fn, variables, x):
    return {
        k: np.asarray(f) for k, f in pool(feature_fn(variables, x), "flatten").items()
    }


@pytest.mark.parametrize("centre", ["noise", "training images", "a class"])
def test_terms_relative_to_a_moving_centre(ends, centre):
    """Of any centre they add up to FSSD², and are what moved beside the centre."""
    feature_fn, initial, final, x, noise = ends
    with jax.enable_x64(True):
        stars = []
        for variables in (initial, final):
            if centre == "a class":  # a mapping, in any order of the layers
                mean = features(feature_fn, variables, noise[:3])
                stars.append({k: mean[k].mean(0) for k in sorted(mean)[::-1]})
            else:
                images = noise if centre == "noise" else x
                stars.append(estimate_singularity(feature_fn, variables, images))
        points = [getattr(star, "center", star) for star in stars]
        then, now = (features(feature_fn, v, x) for v in (initial, final))
        args = feature_fn, initial, final, stars[1], x, 4
        moving = decompose(*args, initial_singularity=stars[0])
        resting = decompose(*args)
    for k, layer in enumerate(now):
        start, end = (np.asarray(point[layer]) for point in points)
        squared = np.square(now[layer] - end).sum(1)
        o = then[layer] - start
        delta = (now[layer] - end) - o
        expected = (delta**2).sum(1), 2 * (delta * o).sum(1), (o**2).sum(1)
        for found, term in zip(moving, expected, strict=True):
            np.testing.assert_allclose(found[:, k], term, rtol=1e-9, atol=1e-12)
        for terms in (moving, resting):
            np.testing.assert_allclose(sum(terms)[:, k], squared, rtol=1e-10)
        offset = np.square(then[layer] - end).sum(1)
        np.testing.assert_allclose(resting.offset[:, k], offset, rtol=1e-10)


def test_what_moves_with_its_centre_has_not_moved(ends):
    """A network whose last bias alone is another: all logits are shifted alike."""
    feature_fn, initial, _, x, noise = ends
    with jax.enable_x64(True):
        final = jax.tree.map(jnp.array, initial)
        final["params"]["logits"]["bias"] += 3
        stars = [estimate_singularity(feature_fn, v, noise) for v in (initial, final)]
        args = feature_fn, initial, final, stars[1], x
        moving = decompose(*args, initial_singularity=stars[0])
        resting = decompose(*args)
    np.testing.assert_allclose(moving.moved, 0, atol=1e-24)
    np.testing.assert_allclose(moving.shares().offset, 1)
    np.testing.assert_allclose(resting.moved[:, -1], 27)


def test_a_centre_of_other_layers_is_an_error(ends):
    feature_fn, initial, final, x, noise = ends
    star = estimate_singularity(feature_fn, final, noise)
    center = {k: np.asarray(c) for k, c in star.center.items()}
    args = feature_fn, initial, final, star, x
    with pytest.raises(InputError, match=r"'initial_singularity' has layers \['first"):
        decompose(*args, initial_singularity={"first": center["first"]})
    with pytest.raises(InputError, match=r"'initial_singularity'.*'second' has 5"):
        decompose(*args, initial_singularity=center | {"second": center["first"]})
    for other, told in (
        ({"first": center["first"]}, r"'singularity' has layers \['first'\]"),
        (center | {"first": np.zeros(1)}, "'singularity'.*'first'"),
    ):
        with pytest.raises(InputError, match=told):
            decompose(feature_fn, initial, final, other, x)
    # In any order: columns are the network's layers.
    turned = decompose(feature_fn, initial, final, dict(reversed(center.items())), x)
    jax.tree.map(np.testing.assert_array_equal, turned, decompose(*args))


def test_shares_are_of_the_points_chosen():
    rng = np.random.default_rng(0)
    terms = Terms(*rng.normal(1, 0.1, size=(3, 10, 2)).astype(np.float32))
    whole = sum(terms)
    mask = np.arange(10) >= 4
    for chosen in (slice(4, None), mask, np.flatnonzero(mask)):
        found = terms.shares(chosen)
        for name, share in found._asdict().items():
            expected = getattr(terms, name)[4:].sum(0) / whole[4:].sum(0)
            np.testing.assert_allclose(share, expected, rtol=1e-6)
    np.testing.assert_allclose(sum(terms.shares()), 1)
    at_centre = Terms(*(np.stack([t[:, 0], 0 * t[:, 0]], 1) for t in terms)).shares()
    np.testing.assert_array_equal(np.isnan(at_centre.moved), [False, True])
    with pytest.raises(InputError, match="none of the 10"):
        terms.shares(slice(0, 0))
