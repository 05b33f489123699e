import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.preprocessing import label_binarize

from fssd_jax import losses

LOGITS = 3 * jax.random.normal(jax.random.key(0), (20, 4))
Y = jax.random.randint(jax.random.key(1), (20,), 0, 4)
P = softmax(np.asarray(LOGITS, float), axis=1)


def test_cross_entropy_agrees_with_scikit_learn():
    expected = log_loss(Y, P, labels=range(4))
    assert losses.cross_entropy(LOGITS, Y) == pytest.approx(expected, rel=1e-5)


def test_squared_agrees_with_scikit_learn():
    targets = label_binarize(Y, classes=range(4)) - 0.25
    expected = 4 / 2 * mean_squared_error(targets, LOGITS)  # a mean over classes too
    assert losses.squared(LOGITS, Y) == pytest.approx(expected, rel=1e-5)


def test_cosface_has_the_margin_of_its_paper():
    """s = 64 and m = 0.35, taken from the own class."""
    logits = 64 * np.tanh(np.asarray(LOGITS, float))
    probabilities = softmax(logits - 64 * 0.35 * np.eye(4)[Y], axis=1)
    expected = -np.log(probabilities[np.arange(20), Y]).mean()
    found = losses.cosface(jnp.float32(logits), Y)
    assert found == pytest.approx(expected, rel=1e-5)


def test_to_uniform_is_the_divergence_from_uniform():
    """KL(uniform ‖ p) + log C."""
    expected = entropy(np.full((20, 4), 0.25), P, axis=1).mean() + np.log(4)
    assert losses.to_uniform(LOGITS) == pytest.approx(expected, rel=1e-5)


def test_to_uniform_is_least_at_uniform():
    """There it is log C, whatever the common logit, and flat."""
    uniform = jnp.repeat(LOGITS[:, :1], 4, axis=1)
    least, flat = jax.value_and_grad(losses.to_uniform)(uniform)
    assert least == pytest.approx(np.log(4), rel=1e-6)
    np.testing.assert_allclose(flat, 0, atol=1e-8)
    for size in (0.01, 1, 100):
        assert losses.to_uniform(uniform + size * LOGITS) > least


def test_gradients_are_the_closed_forms():
    """(p − one-hot) / n and (p − 1/C) / n."""
    found = jax.grad(losses.cross_entropy)(LOGITS, Y)
    np.testing.assert_allclose(found, (P - np.eye(4)[Y]) / 20, atol=1e-7)
    found = jax.grad(losses.to_uniform)(LOGITS)
    np.testing.assert_allclose(found, (P - 0.25) / 20, atol=1e-7)


def test_sure_logits_stay_finite():
    logits, y = jnp.array([[1e4, 0.0]]), jnp.array([1])
    assert losses.cross_entropy(logits, y) == 1e4
    assert losses.to_uniform(logits) == 5e3
