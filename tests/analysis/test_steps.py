"""Steps of plain SGD are told from others."""

import numpy as np
import pytest

from analysis.steps import check_sgd, sgd_error
from fssd_jax import InputError


def follow(rate, beta):
    """Check three steps at width 512 that NumPy takes, with gradients of length 1.5."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (512, 512), "bias": (512,)}
    trace = dict.fromkeys(shapes, np.float32(0))
    before = {
        k: rng.normal(0, 512**-0.5, shape).astype(np.float32)
        for k, shape in shapes.items()
    }
    for step in range(3):
        gradient = {
            k: rng.normal(0, 1 / 512 if k == "kernel" else 0.05, shape)
            for k, shape in shapes.items()
        }
        trace = {k: beta * trace[k] + gradient[k] for k in shapes}
        after = {k: before[k] - (rate * trace[k]).astype(np.float32) for k in shapes}
        # As computed elsewhere, the gradient differs in its last digits.
        seen = {
            k: (g * (1 + rng.normal(0, 1e-6, g.shape))).astype(np.float32)
            for k, g in gradient.items()
        }
        error = sgd_error({"params": before}, {"params": after}, seen, rate)
        check_sgd(step, rate, error)
        before = after


def test_momentum_is_told_from_sgd_by_steps_near_rounding():
    """At rate 10⁻⁴ a step is no longer than the spacing at 1 times four times ‖θ‖."""
    for rate in (1e-4, 1e-6):
        follow(rate, 0.0)
        for beta in (0.9, 0.1):
            with pytest.raises(InputError, match=r"step 1 is not .* plain SGD"):
                follow(rate, beta)
    for beta in (0.0, 0.9):
        with pytest.raises(
            InputError, match=r"step 0: cannot tell .* takes 9\d%|takes 100%"
        ):
            follow(1e-8, beta)


@pytest.mark.parametrize("rate", [1e-3, 3e-4, 1e-4])
def test_in_16_bits_a_step_upwards_is_none_downwards(rate):
    """Squares of such steps are 0 there, and so was what they were told by."""
    rng = np.random.default_rng(0)
    before = {"w": rng.normal(0, 0.5, 50).astype(np.float16)}
    gradient = {"w": rng.normal(0, 0.1, 50).astype(np.float16)}
    down, up = (
        {"w": before["w"] - np.float16(sign * rate) * gradient["w"]} for sign in (1, -1)
    )
    of = {"params": before}
    with pytest.raises(InputError, match=r"differs by|cannot tell"):
        check_sgd(0, rate, sgd_error(of, {"params": up}, gradient, rate))
    found = sgd_error(of, {"params": down}, gradient, rate)
    assert found.gap < 0.02
