"""Every detector beside FSSD: against an independent implementation, and in common."""

import inspect
import itertools
from collections import OrderedDict
from functools import partial

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.nn import log_sigmoid
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from fssd_jax import InputError, make_feature_fn, make_logit_fn, map_batches, metrics
from fssd_jax.detectors import (
    deep_ensemble,
    displacement,
    energy,
    knn,
    mahalanobis,
    max_logit,
    mc_dropout,
    odin,
)
from fssd_jax.features import make_stochastic_logit_fn
from tests.conftest import Smooth

EPSILONS = (0.0, 0.02)
LAYERS = ["second", "logits"]


class Dropped(nn.Module):
    """The network `Smooth` with dropout, of the same parameters."""

    rate: float = 0.05

    @nn.compact
    def __call__(self, x, train=False):
        from tests.conftest import Tanh

        x = Tanh(7, name="first")(x.reshape(x.shape[0], -1))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        x = Tanh(5, name="second")(x)
        return nn.Dense(3, name="logits")(x)


def nearby(variables, size=0.1):
    """Another network: the same with noise on its weights."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    moved = [
        a + size * jax.random.normal(k, a.shape)
        for k, a in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def fitted(name, model, variables, x, y, ind, ood):
    """(score, network function, variables, state) of each method, fitted on blobs."""
    feature_fn, logit_fn = make_feature_fn(model, LAYERS), make_logit_fn(model)
    if name.startswith("mahalanobis"):
        gaussians = mahalanobis.estimate_gaussians(feature_fn, variables, x, y, 3)
        other = ood if name.endswith("step") else None
        state = mahalanobis.fit(
            feature_fn, variables, gaussians, ind, other, epsilons=(0.02,)
        )
        return mahalanobis.score, feature_fn, variables, state
    if name.startswith("odin"):
        other = ood if name.endswith("step") else None
        state = odin.fit(logit_fn, variables, ind, other, epsilons=(0.02,))
        return odin.score, logit_fn, variables, state
    if name == "deep ensemble":
        members = deep_ensemble.stack([variables, nearby(variables)])
        return deep_ensemble.score, logit_fn, members, deep_ensemble.fit()
    if name == "mc dropout":
        stochastic = make_stochastic_logit_fn(Dropped(), train=True)
        state = mc_dropout.fit(jax.random.key(0), 8)
        return mc_dropout.score, stochastic, variables, state
    if name == "knn":
        state = knn.fit(feature_fn, variables, x, "second", k=5)
        return knn.score, feature_fn, variables, state
    if name.startswith("displacement"):
        initial = model.init(jax.random.key(3), x[:1])
        relative = name.endswith("relative")
        state = displacement.fit(feature_fn, variables, initial, ind, relative=relative)
        return displacement.score, feature_fn, variables, state
    module = {"energy": energy, "max logit": max_logit}[name]
    return module.score, logit_fn, variables, module.fit()


METHODS = (
    *("mahalanobis", "mahalanobis, step", "odin", "odin, step", "deep ensemble"),
    *("mc dropout", "knn", "displacement", "displacement, relative"),
    *("energy", "max logit"),
)


@pytest.mark.parametrize("name", METHODS)
def test_it_separates_blobs_and_does_not_depend_on_the_batch(blobs, name):
    model, variables, (ind, ood), (val_ind, val_ood) = blobs
    y = map_batches(_classes, make_logit_fn(model), variables, None, ind)
    score, *network, state = fitted(name, model, variables, ind, y, val_ind, val_ood)
    apply = partial(map_batches, score, *network, state)
    scores = apply(ind), apply(ood)
    assert all(s.shape == (100,) for s in scores)
    assert metrics.auroc(*scores) > 0.9
    again = apply(ind[::-1], batch_size=7)[::-1]
    np.testing.assert_allclose(scores[0], again, rtol=1e-4, atol=1e-5)


def _classes(logit_fn, variables, _, x):
    return logit_fn(variables, x).argmax(-1)


# ---- ODIN ---------------------------------------------------------------------------


def test_odins_temperatures_without_a_step_are_the_log_odds_at_each():
    logits = np.random.default_rng(0).normal(0, 5, (9, 4)).astype(np.float32)
    temperatures = np.float32([0.5, 1, 10])
    by_hand = lambda variables, x: x  # noqa: E731
    found = odin.no_step(by_hand, {}, temperatures, jnp.asarray(logits))
    s = scipy.special.softmax(logits[..., None] / np.float64(temperatures), axis=1)
    rest = np.sort(s, axis=1)[:, :-1].sum(1)
    np.testing.assert_allclose(found[0], np.log(s.max(1) / rest), rtol=1e-4)


@pytest.mark.parametrize("temperature", odin.TEMPERATURES)
def test_odin_is_the_log_softmax_at_a_temperature(smooth, temperature):
    _, variables, _, x = smooth
    logits = np.asarray(Smooth().apply(variables, x), np.float64)
    expected = scipy.special.log_softmax(logits / temperature, axis=1).max(1)
    state = odin.fit(temperatures=(temperature,))
    found = log_sigmoid(odin.score(make_logit_fn(Smooth()), variables, state, x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_odin_tells_apart_what_is_surest():
    """Logits whose gaps are far beyond where every probability rounds to 1."""
    rng = np.random.default_rng(0)
    gaps = rng.normal([[300], [150]], [[60], [25]], (2, 200)).astype(np.float32)
    logit_fn = lambda variables, x: jnp.stack([x[:, 0], jnp.zeros(len(x))], -1)  # noqa: E731
    state = odin.fit(temperatures=(1.0,))
    of = lambda g: np.asarray(odin.score(logit_fn, {}, state, jnp.asarray(g)[:, None]))  # noqa: E731
    ind, ood = map(of, gaps)
    assert metrics.auroc(ind, ood) == pytest.approx(metrics.auroc(*gaps))


def test_odins_choice_is_the_best_auroc_of_the_whole_grid(blobs):
    model, variables, _, (ind, ood) = blobs
    logit_fn = make_logit_fn(model)
    state = odin.fit(logit_fn, variables, ind, ood, epsilons=EPSILONS)
    table = np.zeros((2, 4))
    for e, epsilon in enumerate(EPSILONS):
        for t, temperature in enumerate(odin.TEMPERATURES):
            s = []
            for x in map(jnp.asarray, (ind, ood)):

                def confidence(x, t=temperature):
                    return jax.nn.log_softmax(logit_fn(variables, x) / t).max(-1).sum()

                stepped = x + epsilon * jnp.sign(jax.grad(confidence)(x))
                z = np.asarray(logit_fn(variables, stepped), np.float64) / temperature
                s.append(scipy.special.log_softmax(z, axis=1).max(1))
            table[e, t] = roc_auc_score([1] * 60 + [0] * 60, np.concatenate(s))
    np.testing.assert_allclose(state.validation_auroc, table, atol=2e-3)
    e, t = np.unravel_index(np.argmax(np.asarray(state.validation_auroc)), (2, 4))
    assert float(state.temperature) == odin.TEMPERATURES[t]
    chosen = 0.0 if state.epsilon is None else float(state.epsilon)
    assert chosen == pytest.approx(EPSILONS[e])


@pytest.mark.parametrize("gap", [10.0, 72.0, 90.0, 200.0, 2000.0])
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_odin_takes_its_step_however_sure_the_network_is(gap, temperature):
    """Against float64; a step back is taken, so that the score tells where it led."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(20, 6)), rng.normal(size=(6, 3))
    logits = x @ kernel
    first, second = np.sort(logits)[:, :-3:-1].T
    x *= (gap / (first - second))[:, None]

    def linear(variables, x):
        return x @ kernel.astype(np.float32)

    z = x @ kernel / temperature
    top = z.argmax(1)
    others = z - np.where(np.eye(3)[top], np.inf, 0)
    weights = np.eye(3)[top] - scipy.special.softmax(others, axis=1)
    step = np.sign(weights @ kernel.T)  # of the gradient of log S_T, times a positive
    # So far that one of the images is left with a margin of about 3.
    back = (3 * temperature - gap) / abs(weights @ kernel.T).sum(1).max()
    moved = (x + back * step) @ kernel / temperature
    expected = scipy.special.log_softmax(moved, axis=1).max(1)
    state = odin.fit(temperatures=(temperature,))
    state = state._replace(epsilon=jnp.float32(back))
    found = log_sigmoid(odin.score(linear, {}, state, jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    assert expected.min() < -0.01


def test_knn_ranks_features_that_lie_close_together():
    """Directions 2·10⁻⁴ apart, which a product does not resolve in float32."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=16)
    bank, x = (base + 2e-4 * rng.normal(size=(n, 16)) for n in (200, 20))
    feature_fn = lambda variables, x: OrderedDict(z=jnp.asarray(x))  # noqa: E731
    train, tested = bank.astype(np.float32), x.astype(np.float32)
    state = knn.fit(feature_fn, {}, train, "z", k=10, unit_range=False)
    unit = [a / np.linalg.norm(a, axis=1)[:, None] for a in (train, tested)]
    unit = [a.astype(np.float64) for a in unit]
    distance = np.sort(np.linalg.norm(unit[1][:, None] - unit[0][None], axis=-1), 1)
    found = -np.asarray(knn.score(feature_fn, {}, state, jnp.asarray(tested)))
    np.testing.assert_allclose(found, distance[:, 9], rtol=2e-2)


def test_odin_without_ood_images_chooses_nothing():
    state = odin.fit()
    assert (float(state.temperature), state.epsilon) == (1000, None)


# ---- many networks, many passes -----------------------------------------------------


def test_a_deep_ensemble_averages_probabilities(smooth):
    _, variables, _, x = smooth
    members = [variables, nearby(variables, 1.0), nearby(variables, 2.0)]
    mean = np.mean([jax.nn.softmax(Smooth().apply(v, x)) for v in members], axis=0)
    stacked = deep_ensemble.stack(members)
    found = deep_ensemble.score(
        make_logit_fn(Smooth()), stacked, deep_ensemble.fit(), x
    )
    np.testing.assert_allclose(expit(found), mean.max(1), rtol=1e-5)
    with pytest.raises(InputError, match="one member or more"):
        deep_ensemble.stack([])
    with pytest.raises(InputError, match="one architecture"):
        deep_ensemble.stack([variables, {"params": {}}])
    with pytest.raises(InputError, match="dicts of several kinds"):
        deep_ensemble.stack([variables, flax.core.freeze(variables)])
    with pytest.raises(InputError, match=r"expected one such as jax\.random\.key"):
        inspect.unwrap(mc_dropout.fit)(0)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.25, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(2, use_bias=False)(x)


def test_mc_dropout_has_the_mean_and_variance_of_bernoulli_masks():
    """For logits Σ_i w_i m_i x_i / (1 − p): the variance is Σ w² x² p / (1 − p)."""
    x = jax.random.uniform(jax.random.key(1), (3, 2, 2, 1))
    model = Linear()
    variables = model.init(jax.random.key(0), x)
    w = np.asarray(variables["params"]["Dense_0"]["kernel"])
    flat = np.asarray(x).reshape(3, -1)
    logit_fn = make_stochastic_logit_fn(model, train=True)
    scores = jax.jit(mc_dropout.scores, static_argnums=0)
    runs = [
        scores(logit_fn, variables, mc_dropout.fit(jax.random.key(seed), 16), x)
        for seed in range(200)
    ]
    # Of 16 passes, the mean square deviation from their own mean is 15/16 of it.
    found = -np.mean(runs, axis=0)[:, 1] * 16 / 15
    # Only where all runs predict the class that the mean logits do.
    mean = np.sort(flat @ w, axis=1)
    clear = mean[:, 1] - mean[:, 0] > 0.5
    assert clear.any()
    predicted = (flat @ w).argmax(1)
    variance = ((flat**2) @ (w**2) * 0.25 / 0.75)[np.arange(3), predicted]
    np.testing.assert_allclose(found[clear], variance[clear], rtol=0.1)

    # The mean softmax over all 2⁴ masks, each by its probability.
    masks = np.array(list(itertools.product((0, 1), repeat=4)))
    chance = 0.75 ** masks.sum(1) * 0.25 ** (4 - masks.sum(1))
    logits = (masks[:, None] * flat[None] / 0.75) @ w  # [mask, image, class]
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("m,mic->ic", chance, softmax)[np.arange(3), predicted]
    found = np.mean(expit(runs), axis=0)[:, 0]
    np.testing.assert_allclose(found[clear], expected[clear], rtol=0.01)
    # It is not the softmax of the mean logits.
    without = np.exp(flat @ w)[np.arange(3), predicted] / np.exp(flat @ w).sum(1)
    assert np.any(np.abs(without / expected - 1)[clear] > 0.02)


def test_without_dropout_all_passes_agree(smooth):
    _, variables, _, x = smooth
    logit_fn = make_stochastic_logit_fn(Dropped(0.0), train=True)
    state = mc_dropout.fit(jax.random.key(0), 4)
    found = mc_dropout.scores(logit_fn, variables, state, x)
    expected = jax.nn.softmax(Smooth().apply(variables, x)).max(-1)
    np.testing.assert_allclose(expit(found[:, 0]), expected, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-10)
    passes = mc_dropout.fit(jax.random.key(0), 4)._replace(keys=state.keys[:1])
    dropped = make_stochastic_logit_fn(Dropped(0.5), train=True)
    one = mc_dropout.score(dropped, variables, passes, x)
    assert np.any(np.abs(expit(one) - expected) > 1e-3)


# ---- label-free references ----------------------------------------------------------


def test_energy_and_maximum_logit(smooth):
    _, variables, _, x = smooth
    logit_fn = make_logit_fn(Smooth())
    logits = np.asarray(Smooth().apply(variables, x), np.float64)
    found = energy.score(logit_fn, variables, energy.fit(), x)
    np.testing.assert_allclose(found, scipy.special.logsumexp(logits, 1), rtol=1e-6)
    found = max_logit.score(logit_fn, variables, max_logit.fit(), x)
    np.testing.assert_allclose(found, logits.max(1), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("chunk", [10, 4096])
def test_knn_is_scikit_learns(blobs, monkeypatch, k, chunk):
    """Also where the last chunk is not full: 60 images in chunks of 10 or 4096."""
    monkeypatch.setattr(knn, "CHUNK", chunk)
    model, variables, (ind, _), (train, _) = blobs
    train = train[:57]
    feature_fn = make_feature_fn(model)
    state = knn.fit(feature_fn, variables, train, "second", k=k)
    z = [
        np.asarray(feature_fn(variables, x)["second"], np.float64) for x in (train, ind)
    ]
    bank, tested = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in z)
    distance, _ = NearestNeighbors(n_neighbors=k).fit(bank).kneighbors(tested)
    found = map_batches(knn.score, feature_fn, variables, state, ind)
    np.testing.assert_allclose(found, -distance[:, -1], rtol=1e-3, atol=1e-6)


def knn_scores(train, tested, k, dtype=jnp.float32):
    """The detector's scores, and scikit-learn's distances of normalised features.

    The input is the feature.
    """

    def directions(variables, x):
        return OrderedDict(image=x.astype(dtype))

    train, tested = (a[:, None, None].astype(np.float32) for a in (train, tested))
    of = directions, {}
    state = knn.fit(*of, train, "image", k=k, unit_range=False)
    found = map_batches(knn.score, *of, state, tested, unit_range=False)
    z = [a[:, 0, 0].astype(np.float64) for a in (train, tested)]
    lengths = [np.linalg.norm(a, axis=1, keepdims=True) for a in z]
    bank, tested = (a / np.where(n == 0, 1, n) for a, n in zip(z, lengths, strict=True))
    distance, _ = NearestNeighbors(n_neighbors=k).fit(bank).kneighbors(tested)
    return found, distance[:, -1]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("k", [1, 20, 45, 50])
def test_knn_ranks_features_of_zeros_by_distance(monkeypatch, k, x64):
    """A feature of zeros is 1 away from all, nearer than one at more than 60°."""
    monkeypatch.setattr(knn, "CHUNK", 16)  # the last chunk is filled with zeros, too
    rng = np.random.default_rng(0)
    train, tested = rng.normal(size=(50, 4)), rng.normal(size=(40, 4))
    train[::10] = 0
    tested[0] = 0
    with jax.enable_x64(x64):  # then float32 networks are there, too
        for dtype in (jnp.float32, jnp.float64) if x64 else (jnp.float32,):
            found, expected = knn_scores(train, tested, k, dtype)
            assert found.dtype == dtype
            tolerance = 1e-12 if dtype == jnp.float64 else 1e-6
            np.testing.assert_allclose(found, -expected, tolerance, tolerance)


def test_what_fills_the_last_chunk_of_knn_is_nobodys_neighbour(monkeypatch):
    """All training features point away from what is tested: at more than zeros' 1."""
    monkeypatch.setattr(knn, "CHUNK", 16)
    train = np.abs(np.random.default_rng(0).normal(size=(50, 4)))
    found, expected = knn_scores(train, -train[:7], 3)
    assert expected.min() > 1.4
    np.testing.assert_allclose(found, -expected, rtol=1e-6)


def test_knn_refuses_an_unknown_layer_and_too_many_neighbours(blobs):
    model, variables, _, (train, _) = blobs
    with pytest.raises(InputError, match=r"k: expected 1 to 60"):
        knn.fit(make_feature_fn(model), variables, train, "second", k=61)
    with pytest.raises(InputError, match=r"unknown layer 'third'; choose from"):
        knn.fit(make_feature_fn(model), variables, train, "third", k=1)


@pytest.mark.parametrize("relative", [False, True])
def test_displacement_is_how_far_training_moved_the_features(blobs, relative):
    model, variables, (x, _), (ind, _) = blobs
    initial = model.init(jax.random.key(4), ind[:1])
    feature_fn = make_feature_fn(model, LAYERS)
    expected = []
    for name in LAYERS:
        now, then = (np.asarray(feature_fn(v, x)[name]) for v in (variables, initial))
        moved = np.linalg.norm(now - then, axis=1)
        expected.append(moved / np.linalg.norm(then, axis=1) if relative else moved)
    start = (initial, jnp.asarray(relative))
    found = displacement.displacements(feature_fn, variables, start, jnp.asarray(x))
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-4)
    state = displacement.fit(feature_fn, variables, initial, ind, relative=relative)
    of_ind = displacement.displacements(feature_fn, variables, start, jnp.asarray(ind))
    of_ind = np.asarray(of_ind)
    standard = (np.stack(expected, 1) - of_ind.mean(0)) / of_ind.std(0)
    scores = displacement.score(feature_fn, variables, state, jnp.asarray(x))
    np.testing.assert_allclose(scores, standard.sum(1), rtol=1e-3, atol=1e-3)
