"""Eq. (3) and Eq. (4) along a training loop of your own, with any optimiser.

The paper says that features of in-distribution inputs move fastest (Eq. 3), and that
what they moved by is a regression with the network's tangent kernel (Eq. 4).

python examples/follow_training.py
"""

# %%
import jax
import numpy as np
import optax

import fssd_jax
from analysis import dynamics_plots
from analysis.dynamics import Recorder, log_steps, make_loss_fn
from analysis.kernel_regression import PathForm
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.features import make_init_fn
from fssd_jax.models import MLP

STEPS = 40
model, digits = MLP(), load("digits", "train")  # any Linen network
images, photos = load("digits", "test").x[:100], load("photo_patches", "test").x[:100]
noise = fssd_jax.uniform_noise(jax.random.key(1), 100, images.shape[1:])
feature_fn = fssd_jax.make_feature_fn(model, layers=["fc2", "logits"])
loss_fn = make_loss_fn(model)

# %% [markdown]
# ## What follows the run
#
# Speeds and distances now and then, Eq. (4) at every step.

# %%
probes = {"in-distribution": images, "OoD": photos, "noise": noise}
recorder = Recorder(feature_fn, loss_fn, probes, log_steps(STEPS, 6))
path = PathForm(feature_fn, images, nodes=4)

# %% [markdown]
# ## A loop of your own
#
# All it must do is to call them with the variables before and after the step, and with
# the batch. It must not donate the variables before the step.

# %%
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
for step in range(STEPS):
    chosen = rng.integers(0, len(digits.x), 64)
    x, y = as_input(digits.x[chosen]), digits.y[chosen]
    before = variables
    variables, opt_state = update(before, opt_state, x, y)
    recorder(step, before, variables, x, y)
    path(step, before, variables)

# %% [markdown]
# ## Who moves, and how fast
#
# The speed of a feature is ‖dF/dt‖ along the gradient of the loss.

# %%
speeds = {
    record.step: {name: of["speed"][:, -1] for name, of in record.movements.items()}
    for record in recorder.records
}
for step, sets in speeds.items():
    told = ", ".join(f"{name} {np.median(of):.2f}" for name, of in sets.items())
    print(f"step {step}: median speed of the logits: {told}")

# %% [markdown]
# The path form of Eq. (4) is exact but for its quadrature: a test of the code, and no
# evidence that training is a kernel regression ([what is evidence](
# ../docs/kernel.md#eq-4-a-regression-or-the-runs-own-gradients)).

# %%
error = path.error()["logits"]
print(f"Eq. (4), path form, is F_T − F_0 but for {error:.1e} of it")

# %% [markdown]
# ## Look at it

# %%
figure = dynamics_plots.speeds(speeds, "logits")
figure.savefig("follow_training.png", dpi=200)
