"""Path form: Σ_t ∫ J Δθ is F_T − F_0, and tells how far it is off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.kernel_regression import PathForm, make_gradient_fn
from fssd_jax import InputError, make_feature_fn, recipes
from tests.analysis.following import (
    PROBE,
    Normed,
    X,
    Y,
    by_hand,
    momentum,
    relative_error,
    run,
    start,
)
from tests.analysis.test_kernel_regression import adam, sgd
from tests.conftest import Smooth


@pytest.mark.parametrize("recipe", [sgd, momentum, adam])
@pytest.mark.parametrize("model", [Smooth(), Normed()])
def test_path_form_is_the_displacement(model, recipe):
    """In float32, for any optimiser, and with statistics that move."""
    feature_fn = make_feature_fn(model)
    form = PathForm(feature_fn, PROBE, nodes=4, batch_size=4)
    trained = run(model, recipe, form, epochs=3)
    expected = by_hand(feature_fn, start(model), trained.variables)
    assert relative_error(form.value(), expected) < 1e-4


def test_path_form_in_float64():
    with jax.enable_x64(True):
        model, rate = Smooth(), 0.5
        feature_fn = make_feature_fn(model)
        form = PathForm(feature_fn, PROBE, nodes=6)
        state = initial = start(model, jnp.float64)
        gradient_fn = make_gradient_fn(model, feature_fn)
        for step in range(5):
            gradient, _ = gradient_fn(state, X, Y)
            after = {
                "params": jax.tree.map(
                    lambda p, g: p - rate * g, state["params"], gradient
                )
            }
            form(step, state, after)
            state = after
        expected = by_hand(feature_fn, initial, state)
        assert form.value()["logits"].dtype == np.float64
        assert relative_error(form.value(), expected) < 1e-8


def test_the_kernel_at_the_start_of_each_step_errs_by_the_step():
    """Half the rate and twice the steps: half the error."""
    model, errors = Smooth(), []
    feature_fn = make_feature_fn(model)
    for steps in (10, 20, 40):
        form = PathForm(feature_fn, PROBE)
        trained = run(
            model,
            recipes.sgd(4 / steps),
            form,
            epochs=steps,
            batch_size=22,
        )
        expected = by_hand(feature_fn, start(model), trained.variables)
        errors.append(relative_error(form.value(), expected))
    assert errors[2] < 0.03
    np.testing.assert_allclose(np.divide(errors[:2], errors[1:]), 2, rtol=0.25)


def test_the_path_form_tells_its_error_and_it_falls_with_the_nodes():
    """Along one long step, against F_T − F_0 by hand."""
    with jax.enable_x64(True):
        model, direction = Smooth(), np.random.default_rng(2)
        feature_fn, before = make_feature_fn(model), start(model, jnp.float64)
        after = jax.tree.map(lambda a: a + direction.normal(0, 1, a.shape), before)
        middle = jax.tree.map(lambda a, b: (a + b) / 2, before, after)
        errors = []
        for nodes in (0, 2, 4, 8):
            form = PathForm(feature_fn, PROBE, nodes=nodes, batch_size=4)
            form(0, before, middle)
            form(1, middle, after)
            errors.append(form.error())
        expected, found = by_hand(feature_fn, before, after), form.value()
        assert list(errors[0]) == list(Smooth.feature_layers)
        for layer in expected:
            of_nodes = [error[layer] for error in errors]
            assert np.all(np.diff(np.log(of_nodes)) < -1), of_nodes
            gap = np.linalg.norm(found[layer] - expected[layer])
            gap = gap / np.linalg.norm(expected[layer])
            np.testing.assert_allclose(of_nodes[-1], gap, rtol=1e-3)
        assert errors[0]["logits"] > 0.3
        assert errors[-1]["logits"] < 0.01


def test_what_does_not_move_has_no_error():
    feature_fn, variables = make_feature_fn(Smooth()), start(Smooth())
    form = PathForm(feature_fn, PROBE)
    with pytest.raises(InputError, match="on_step"):
        form.error()
    form(0, variables, variables)
    assert set(form.error().values()) == {0}
