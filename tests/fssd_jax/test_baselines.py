"""Detectors beside FSSD: all of them on blobs; several networks; label-free ones."""

import inspect
import itertools
from functools import partial

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.special import expit

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
