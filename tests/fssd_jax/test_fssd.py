import re
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, estimate_singularity, map_batches, uniform_noise
from fssd_jax import fssd as F
from fssd_jax.features import join
from fssd_jax.steps import gradient

EPSILONS = jnp.asarray([0.0, 0.03, 0.2])


def numpy_distances(feature_fn, variables, singularity, x):
    features = feature_fn(variables, x)
    columns = []
    for name, f in features.items():
        flat = np.asarray(f, np.float64).reshape(len(x), -1)
        center = np.asarray(singularity.center[name], np.float64)
        columns.append([np.sqrt(((row - center) ** 2).sum()) for row in flat])
    return np.array(columns).T


@pytest.mark.parametrize("network", ["smooth", "lenet"])
def test_distances_agree_with_numpy(network, request):
    feature_fn, variables, singularity, x = request.getfixturevalue(network)
    x = jnp.asarray(x, jnp.float32) / (255 if network == "lenet" else 1)
    found = F.fssd(feature_fn, variables, singularity, x)
    expected = numpy_distances(feature_fn, variables, singularity, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_singularity_is_the_mean_and_spread_of_all_noise(smooth):
    feature_fn, variables, _, _ = smooth
    noise = uniform_noise(jax.random.key(5), 37, (4, 4, 1))
    found = estimate_singularity(feature_fn, variables, noise, batch_size=8)
    for name, f in feature_fn(variables, noise).items():
        f = np.asarray(f, np.float64)
        np.testing.assert_allclose(found.center[name], f.mean(0), atol=1e-6)
        rms = np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean())
        np.testing.assert_allclose(found.spread[name], rms, rtol=1e-5)
    assert found.count == 37


def test_singularity_does_not_depend_on_how_noise_arrives(smooth):
    feature_fn, variables, _, _ = smooth
    noise = uniform_noise(jax.random.key(5), 37, (4, 4, 1))
    one = estimate_singularity(feature_fn, variables, noise, batch_size=37)
    pieces = (noise[i : i + 10] for i in range(0, 37, 10))  # a stream: read once
    many = estimate_singularity(feature_fn, variables, pieces)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, many)


def test_noise_is_uniform_and_the_same_piece_by_piece():
    key = jax.random.key(3)
    whole = uniform_noise(key, 1000, (5,))
    pieces = [uniform_noise(key, 250, (5,), start=s) for s in range(0, 1000, 250)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    # Mean ½ and variance 1/12, to five standard errors of 5,000 draws.
    assert abs(whole.mean() - 0.5) < 5 * (1 / 12 / 5000) ** 0.5
    assert abs(whole.var() - 1 / 12) < 5 * (1 / 180 / 5000) ** 0.5
    assert 0 <= whole.min() <= whole.max() <= 1


def test_gradient_agrees_with_finite_differences(smooth):
    feature_fn, variables, singularity, x = smooth
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
        center = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), singularity.center)
        exact = singularity._replace(center=center)
        x = jnp.asarray(x, jnp.float64)
        for layer in singularity.center:
            score = partial(F.layer_distance, feature_fn, wide, exact, layer)
            gradient = jax.grad(lambda x, f=score: f(x).sum())(x)
            for pixel in [(0, 0), (1, 2), (3, 3)]:
                bump = jnp.zeros_like(x).at[:, pixel[0], pixel[1], 0].set(1e-6)
                difference = (score(x + bump) - score(x - bump)) / 2e-6
                np.testing.assert_allclose(
                    gradient[:, pixel[0], pixel[1], 0], difference, rtol=1e-5
                )


def test_gradient_is_zero_at_the_singularity(smooth):
    feature_fn, variables, singularity, x = smooth
    features = feature_fn(variables, x[:1])
    here = singularity._replace(
        center=OrderedDict((k, f[0]) for k, f in features.items())
    )
    for layer in here.center:
        score = partial(F.layer_distance, feature_fn, variables, here, layer)
        assert score(x[:1])[0] == 0
        np.testing.assert_array_equal(gradient(score, x[:1]), 0)
    np.testing.assert_array_equal(F.fssd(feature_fn, variables, here, x[:1], 0.1), 0)


def test_the_step_is_the_papers_and_raises_the_score(smooth):
    feature_fn, variables, singularity, x = smooth
    score = partial(F.layer_distance, feature_fn, variables, singularity, "second")
    stepped = F.perturb(score, x, 0.01)
    gradient = jax.grad(lambda x: score(x).sum())(x)
    np.testing.assert_allclose(stepped - x, 0.01 * np.sign(gradient), atol=1e-7)
    assert (score(stepped) > score(x)).all()
    found = F.fssd(feature_fn, variables, singularity, x, 0.01)
    np.testing.assert_allclose(found[:, 1], score(stepped), rtol=1e-6)
    found = F.fssd(feature_fn, variables, singularity, x, -0.01)  # the released step
    np.testing.assert_allclose(found[:, 1], score(2 * x - stepped), rtol=1e-6)


def test_epsilon_zero_is_the_identity(lenet):
    feature_fn, variables, singularity, images = lenet
    x = images[:5] / np.float32(255)
    plain = F.fssd(feature_fn, variables, singularity, jnp.asarray(x))
    traced = F.fssd(feature_fn, variables, singularity, jnp.asarray(x), jnp.float32(0))
    np.testing.assert_allclose(plain, traced, rtol=1e-6)
    score = partial(F.layer_distance, feature_fn, variables, singularity, "fc1")
    np.testing.assert_array_equal(F.perturb(score, jnp.asarray(x), 0.0), x)


def test_a_sweep_equals_separate_calls(lenet):
    feature_fn, variables, singularity, images = lenet
    x = jnp.asarray(images[:6] / np.float32(255))
    swept = F.sweep(feature_fn, variables, singularity, x, EPSILONS)
    for epsilon, row in zip(EPSILONS, swept, strict=True):
        alone = F.fssd(feature_fn, variables, singularity, x, epsilon)
        np.testing.assert_allclose(row, alone, rtol=1e-5)


def test_a_sweep_over_a_data_set_traces_each_network_once(smooth):
    """Not once a layer and ε; and the rows are those of separate calls."""
    feature_fn, variables, _, x = smooth
    traces = []

    def counted(variables, x):
        traces.append(x.shape)
        return feature_fn(variables, x)

    joined = join({"one": counted, "two": counted})
    both = {"one": variables, "two": jax.tree.map(lambda a: a + 0.1, variables)}
    noise = uniform_noise(jax.random.key(2), 4, (4, 4, 1))
    singularity = estimate_singularity(joined, both, noise)
    traces.clear()
    apply = partial(map_batches, F.sweep, joined, both, singularity, np.asarray(x))
    swept = apply(epsilons=EPSILONS, batch_size=4, batch_axis=1)  # 6: one is padded
    assert swept.shape == (3, 6, 6)
    assert traces == [(4, 4, 4, 1)] * 2
    apply(epsilons=jnp.linspace(0, 0.1, 21), batch_size=4, batch_axis=1)
    assert len(traces) == 2
    score = jax.jit(partial(F.layer_distance, joined, both, singularity, "two/second"))
    for row, epsilon in zip(swept, EPSILONS, strict=True):
        expected = score(F.perturb(score, x, epsilon))
        np.testing.assert_allclose(row[:, 4], expected, rtol=1e-6)


def test_a_sweep_under_jit_is_the_same_and_does_not_grow(smooth):
    feature_fn, variables, singularity, x = smooth
    sweep = jax.jit(partial(F.sweep, feature_fn))
    by_calls = F.sweep(feature_fn, variables, singularity, x, EPSILONS)
    whole = sweep(variables, singularity, x, EPSILONS)
    np.testing.assert_allclose(whole, by_calls, rtol=1e-6)
    lines = [
        len(sweep.lower(variables, singularity, x, e).as_text().splitlines())
        for e in (EPSILONS, jnp.zeros(21))
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("epsilon", [0.0, 0.08])
def test_a_score_does_not_depend_on_its_batch(lenet, epsilon):
    feature_fn, variables, singularity, images = lenet
    apply = partial(map_batches, F.fssd, feature_fn, variables, singularity)
    together = apply(images, batch_size=23, epsilon=jnp.float32(epsilon))
    for batch_size, order in ((4, np.arange(23)), (10, np.arange(23)[::-1]), (1, [7])):
        found = apply(
            images[order], batch_size=batch_size, epsilon=jnp.float32(epsilon)
        )
        np.testing.assert_allclose(found, together[order], rtol=1e-5)


def test_scoring_compiles_once_although_the_last_batch_is_short(smooth):
    feature_fn, variables, singularity, _ = smooth
    traces = []

    def counted(variables, x):
        traces.append(x.shape)
        return feature_fn(variables, x)

    x = np.random.default_rng(0).uniform(size=(23, 4, 4, 1)).astype(np.float32)
    for images in (x, x[:9], x[:12]):
        map_batches(F.fssd, counted, variables, singularity, images, batch_size=8)
    assert traces == [(8, 4, 4, 1), (9, 4, 4, 1)]  # 9: to see which axis grows


def test_nothing_above_a_layer_is_compiled(lenet):
    feature_fn, variables, singularity, images = lenet
    x = jnp.asarray(images[:4] / np.float32(255))
    found = {}
    for layer in singularity.center:
        score = partial(F.layer_distance, feature_fn)
        compiled = jax.jit(score, static_argnums=2).lower(
            variables, singularity, layer, x
        )
        text = compiled.compile().as_text()
        assert text is not None
        found[layer] = [
            len(re.findall(rf"\b{op}\(", text)) for op in ("convolution", "dot")
        ]
    # Convolutions and matrix products: one each up to and with the layer.
    assert found == {
        "conv1": [1, 0],
        "conv2": [2, 0],
        "fc1": [2, 1],
        "logits": [2, 2],
    }


def test_features_of_other_layers_are_an_error(smooth):
    feature_fn, variables, singularity, x = smooth
    features = feature_fn(variables, x)
    features.pop("first")
    with pytest.raises(InputError, match="fitted on layers"):
        F.distances(singularity, features)


def test_no_noise_or_bad_noise_is_an_error(smooth):
    feature_fn, variables, _, _ = smooth
    with pytest.raises(InputError, match="empty"):
        estimate_singularity(feature_fn, variables, [])
    with pytest.raises(InputError, match="NaN"):
        estimate_singularity(feature_fn, variables, jnp.full((3, 4, 4, 1), jnp.nan))
    with pytest.raises(InputError, match=r"its rows are .*those before it"):
        estimate_singularity(
            feature_fn, variables, [jnp.ones((2, n, 4, 1)) for n in (4, 5)]
        )
