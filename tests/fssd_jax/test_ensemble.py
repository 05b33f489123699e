import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fssd_jax import InputError
from fssd_jax.ensemble import (
    Ensemble,
    choose_epsilon,
    combine,
    fit_ensemble,
    fit_swept,
    standardise,
)

LAYERS = ["a", "b", "c"]


def sklearn_pipeline():
    regression = LogisticRegressionCV(
        Cs=10,
        cv=5,
        scoring="accuracy",
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
        tol=1e-10,
    )
    return make_pipeline(StandardScaler(), regression)


@pytest.fixture
def scores():
    """Layer a tells the sets apart, b is inverted, c is noise; very unlike scales."""
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 100.0, 0.01])
    ind = rng.normal([1.0, -0.8, 0.0], 1, (80, 3)) * scale
    ood = rng.normal(0.0, 1, (90, 3)) * scale
    return ind, ood


def test_combination_is_scikit_learns_decision_function(scores):
    ind, ood = scores
    d, y = np.concatenate(scores), np.r_[np.ones(80), np.zeros(90)]
    ensemble = fit_ensemble(ind, ood, LAYERS)
    expected = sklearn_pipeline().fit(d, y).decision_function(d)
    found = combine(ensemble, jnp.asarray(d, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_without_weight_is_not_looked_at():
    """By hand: −1 · (3 − 1) / 2 + 0.5 · 4 + 0.25, and −1 · (0 − 1) / 2 + 0.25."""
    of = (jnp.float32([1, 2, 0]), jnp.float32([2, 0.5, 1]), jnp.float32([-1, 0, 0.5]))
    d = jnp.float32([[3, jnp.inf, 4], [0, jnp.nan, 0]])
    found = combine(Ensemble(*of, jnp.float32(0.25)), d)
    np.testing.assert_allclose(found, [1.25, 0.75])


def test_logarithms_are_taken_of_the_layers_that_say_so():
    """By hand: 2 · (log e² − 1) / 4 + 3 · (5 − 1) / 2, and of 0 as of 1e-12."""
    of = (jnp.float32([1, 1]), jnp.float32([4, 2]), jnp.float32([2, 3]), jnp.float32(0))
    d = jnp.float32([[np.e**2, 5], [0, 5]])
    found = combine(Ensemble(*of, jnp.array([True, False])), d)
    np.testing.assert_allclose(found, [6.5, (np.log(1e-12) - 1) / 2 + 6], rtol=1e-5)


def test_signs_are_learned(scores):
    alpha = fit_ensemble(*scores, LAYERS).alpha
    assert alpha[0] > 0 > alpha[1]
    assert abs(alpha[2]) < min(alpha[0], -alpha[1])


def test_epsilon_is_chosen_by_nested_cross_validation(scores):
    """Against scikit-learn's own cross_val_score on the same folds."""
    rng = np.random.default_rng(1)
    gains = (0.0, 1.0, 0.7)
    ind = [scores[0] + g * np.array([1, 0, 0]) for g in gains]
    ood = [scores[1] + rng.normal(0, 0.1, scores[1].shape) for _ in gains]
    found = choose_epsilon(ind, ood, [0.0, 0.1, 0.2], LAYERS, seed=3)
    y = np.r_[np.ones(80), np.zeros(90)]
    expected = [
        cross_val_score(
            sklearn_pipeline(),
            np.concatenate([i, o]),
            y,
            cv=StratifiedKFold(5, shuffle=True, random_state=3),
            scoring="roc_auc",
        ).mean()
        for i, o in zip(ind, ood, strict=True)
    ]
    np.testing.assert_allclose(found.auroc, expected, atol=1e-12)
    assert found.epsilon == 0.1


def test_a_tie_keeps_the_smaller_epsilon(scores):
    ind, ood = scores
    separable = ind + np.array([10, 0, 0])
    found = choose_epsilon(
        [ind, separable, separable], [ood] * 3, [0.0, 0.1, 0.2], LAYERS
    )
    assert found.epsilon == 0.1
    assert found.auroc[1] == found.auroc[2] == 1


def test_bad_validation_sets(scores):
    ind, ood = scores
    with pytest.raises(InputError, match=r"OoD validation set: 0 images.*both classes"):
        fit_ensemble(ind, ood[:0], LAYERS)
    with pytest.raises(InputError, match="in-distribution validation set: 5 images"):
        fit_ensemble(ind[:5], ood, LAYERS)
    with pytest.raises(InputError, match="one column for each of"):
        fit_ensemble(ind, ood[:, :2], LAYERS)
    with pytest.raises(InputError, match="NaN"):
        fit_ensemble(ind * np.nan, ood, LAYERS)
    flat = [np.array(part) for part in scores]
    for part in flat:
        part[:, 1] = 4.0
    with pytest.raises(InputError, match=r"layers \['b'\] give all.*constant"):
        fit_ensemble(*flat, LAYERS)
    for sets in (([ind] * 3, [ood] * 3), ([ind] * 5, [ood] * 3)):
        for fit in (choose_epsilon, fit_swept):
            with pytest.raises(InputError, match="swept over 3 ε"):
                fit(*sets, [0.0, 0.1, 0.2, 0.3, 0.4], LAYERS, seed=0)
    with pytest.raises(InputError, match="without repeats"):
        choose_epsilon([ind, ind], [ood, ood], [0.1, 0.1], LAYERS)


def test_a_layer_that_is_constant_but_for_rounding_is_refused_by_every_fit(scores):
    """Standardised it would be worth as much as a layer that tells."""
    rng = np.random.default_rng(2)
    rounded = (40 * (1 + rng.normal(0, 1e-7, 170))).astype(np.float32)
    assert np.ptp(rounded) > 0
    ind, ood = (np.array(part) for part in scores)
    ind[:, 1], ood[:, 1] = rounded[:80], rounded[80:]
    message = r"layers \['b'\] give all .* the same score, up to rounding"
    for fit in (
        lambda: fit_ensemble(ind, ood, LAYERS),
        lambda: choose_epsilon([ind], [ood], [0.0], LAYERS),
        lambda: standardise(ind, LAYERS),
    ):
        with pytest.raises(InputError, match=message):
            fit()
    # What varies a hundred times as much is no rounding.
    ind[:, 1], ood[:, 1] = (
        40 + 0.004 * rng.normal(size=len(part)) for part in (ind, ood)
    )
    fit_ensemble(ind, ood, LAYERS)
    standardise(ind, LAYERS)
