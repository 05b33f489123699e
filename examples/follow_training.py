"""Eq. (3) and Eq. (4) along a training loop of your own, with any optimiser.

python examples/follow_training.py
"""

import jax
import numpy as np
import optax

import fssd_jax
from analysis.dynamics import Recorder, log_steps, make_loss_fn
from analysis.kernel_regression import PathForm
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.features import make_init_fn
from fssd_jax.models import MLP


def main(steps: int = 40) -> float:
    model, digits = MLP(), load("digits", "train")  # any Linen network
    images, photos = load("digits", "test").x[:100], load("photo_patches", "test").x
    noise = fssd_jax.uniform_noise(jax.random.key(1), 100, images.shape[1:])
    feature_fn = fssd_jax.make_feature_fn(model, layers=["fc2", "logits"])
    loss_fn = make_loss_fn(model)

    # What follows the run: speeds and distances now and then, Eq. (4) at every step.
    probes = {"in-distribution": images, "OoD": photos[:100], "noise": noise}
    recorder = Recorder(feature_fn, loss_fn, probes, log_steps(steps, 6))
    path = PathForm(feature_fn, images, nodes=4)

    # Your own loop; all it must do is to call them with the variables and the batch.
    optimiser = optax.adam(1e-3)
    variables = make_init_fn(model)(jax.random.key(0), as_input(images[:1]))
    opt_state = optimiser.init(variables["params"])

    @jax.jit
    def update(variables, opt_state, x, y):
        loss = lambda params: loss_fn({"params": params}, x, y).mean()  # noqa: E731
        gradient = jax.grad(loss)(variables["params"])
        updates, opt_state = optimiser.update(gradient, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates)}, opt_state

    rng = np.random.default_rng(0)
    for step in range(steps):
        chosen = rng.integers(0, len(digits.x), 64)
        x, y = as_input(digits.x[chosen]), digits.y[chosen]
        before = variables
        variables, opt_state = update(before, opt_state, x, y)
        recorder(step, before, variables, x, y)
        path(step, before, variables)

    for record in recorder.records:
        speeds = {
            name: float(np.median(of["speed"][:, -1]))
            for name, of in record.movements.items()
        }
        told = ", ".join(f"{name} {speed:.2f}" for name, speed in speeds.items())
        print(f"step {record.step}: median speed of the logits: {told}")
    error = path.error()["logits"]
    print(f"Eq. (4), path form, is F_T − F_0 but for {error:.1e} of it")
    return error


if __name__ == "__main__":
    main()
