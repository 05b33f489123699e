"""ODIN: against its formula in float64, and its choice of temperature and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.nn import log_sigmoid
from sklearn.metrics import roc_auc_score

from fssd_jax import make_logit_fn, metrics
from fssd_jax.detectors import odin
from tests.conftest import Smooth

EPSILONS = (0.0, 0.02)


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


def test_odin_without_ood_images_chooses_nothing():
    state = odin.fit()
    assert (float(state.temperature), state.epsilon) == (1000, None)
