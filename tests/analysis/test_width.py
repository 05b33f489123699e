"""What width does to the frozen form and to the kernel."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from analysis.kernel_regression import FrozenForm, make_gradient_fn
from analysis.kernel_statistics import drift
from analysis.ntk import sketched_kernel, trace_directions
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax import make_feature_fn, recipes
from fssd_jax.losses import squared
from fssd_jax.train import train
from tests.analysis.following import PROBE, X, Y, by_hand, relative_error


def enlarged(x):
    return np.kron(x, np.ones((1, 2, 2, 1), np.float32))


@pytest.mark.parametrize(
    ("network", "widths", "prepared"),
    [
        (Perceptron, (32, 512), lambda x: x),
        pytest.param(
            partial(ConvNet, strides=2, max_pool=False),
            (8, 128),
            enlarged,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_frozen_form_comes_true_with_width(network, widths, prepared):
    """In NTK parametrisation error and drift fall as 1/√width, in all layers.

    Lee et al. (2019) for the logits; for hidden layers, seen as outputs, likewise.
    """
    x, probe = prepared(X), prepared(PROBE)
    errors, drifts = [], []
    for width in widths:
        # Where relu's gates open and close, hidden layers need more width.
        model = network(width, 3, (0.5,), (0.3,), activation=nn.tanh)
        initial = jax.jit(model.init)(jax.random.key(3), x)
        feature_fn = make_feature_fn(model)
        gradient_fn = make_gradient_fn(model, feature_fn, squared)
        form = FrozenForm(feature_fn, gradient_fn, initial, 0.1)
        trained = train(
            *(model, x, Y),
            num_classes=3,
            seed=0,
            epochs=20,
            batch_size=11,
            recipe=recipes.sgd(0.1),
            initial=initial,
            loss=squared,
            on_step=form,
            progress=False,
        )
        expected = by_hand(feature_fn, initial, trained.variables, probe)
        found = form.value(probe)
        errors.append({k: relative_error(found, {k: expected[k]}) for k in expected})
        drifts.append({})
        for layer, moved in expected.items():
            directions = trace_directions(jax.random.key(0), 8, moved.shape[1])
            kernels = (
                sketched_kernel(feature_fn, v, layer, x, directions=directions)
                for v in (initial, trained.variables)
            )
            drifts[-1][layer] = drift(*kernels)
    # 1/√width would be a quarter.
    for layer in expected:
        for found in (errors, drifts):
            assert found[1][layer] < found[0][layer] / 2
