"""Is my network's FSSD a kernel regression? Eq. (4), measured on a perceptron.

Eq. (4) of the paper says that FSSD is how far a kernel regression has moved the
features. If training is one, the network that is *linear* in its parameters, trained on
the same batches, gives every image the same FSSD. So train it alongside, and look.

python examples/kernel_regression.py
"""

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from scipy.stats import spearmanr

import fssd_jax
from analysis import style
from analysis.kernel_regression import FrozenForm, make_gradient_fn
from analysis.linearised import LinearisedRun
from fssd_jax.data import load
from fssd_jax.fssd import estimate_singularity
from fssd_jax.metrics import auroc
from fssd_jax.recipes import sgd
from fssd_jax.train import accuracy, train

WIDTHS, EPOCHS, RATE = (32, 512), 40, 0.15
digits = load("digits", "train")
known = digits.select(digits.y < 5)  # trained on 0–4; 5–9 are OoD
test = load("digits", "test")
images, others = test.x[test.y < 5][:200], test.x[test.y >= 5][:200]
points = np.concatenate([images, others])
noise = fssd_jax.uniform_noise(jax.random.key(1), 200, points.shape[1:])

# %% [markdown]
# ## A perceptron in NTK parametrisation
#
# Weights are N(0, 1), and each layer divides by √fan-in in the forward pass: so one
# rate fits every width, and the kernel has a limit. (Flax's own divides the initial
# weights instead; then the rate must fall as the width grows.)


# %%
class NTKDense(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(1.0)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features))
        return x @ kernel * jnp.sqrt(2 / x.shape[-1])


class Perceptron(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], -1)
        x = nn.Sequential([NTKDense(self.width), nn.relu], name="fc1")(x)
        x = nn.Sequential([NTKDense(self.width), nn.relu], name="fc2")(x)
        return NTKDense(5, name="logits")(x)


# %% [markdown]
# ## Train it, and follow it
#
# - `LinearisedRun` trains F_0(x) + J_0(x)(θ − θ_0) by its own gradients on the same
#   batches: a kernel regression, and nothing else.
# - `FrozenForm` is the second line of Eq. (4), −Σ Θ_0(x, x_m) ν_m, with the gradients
#   ν_m of the *network's* run. What its kernel gets wrong it does not see.
#
# Both follow plain SGD from its first step. Any Linen network of yours goes the same
# way; so does a loop of yours that calls them after each step.


# %%
def squared(logits, y):
    return 0.5 * jnp.sum((logits - jax.nn.one_hot(y, 5)) ** 2, -1).mean()


def distances(feature_fn, variables):
    """FSSD [n, layers] of all points, about the mean feature of the noise."""
    star = estimate_singularity(feature_fn, variables, noise)
    score = fssd_jax.fssd.fssd
    return fssd_jax.map_batches(score, feature_fn, variables, star, points)


found = {}
for width in WIDTHS:
    model = Perceptron(width)
    feature_fn = fssd_jax.make_feature_fn(model, layers=["fc2", "logits"])
    linear = LinearisedRun(model, optax.sgd(RATE), squared, feature_fn=feature_fn)
    initial = model.init(jax.random.key(0), known.x[:1])
    gradient_fn = make_gradient_fn(model, feature_fn, squared)
    frozen = FrozenForm(feature_fn, gradient_fn, initial, rate=RATE)
    trained = train(
        *(model, known.x, known.y),
        num_classes=5,
        seed=0,
        epochs=EPOCHS,
        recipe=sgd(RATE),
        loss=squared,
        initial=initial,
        on_step=lambda *step, of=(linear, frozen): [follow(*step) for follow in of],
        progress=False,
    )
    linearised = linear.network
    found[width] = {
        "network": distances(feature_fn, trained.variables),
        "linearised": distances(linearised.feature_fn, linearised.variables),
        "accuracy": accuracy(
            *(fssd_jax.make_logit_fn(model), trained.variables, images),
            test.y[test.y < 5][:200],
        ),
        "error": linear.error(points),
        "frozen": frozen.error(points),
    }

# %% [markdown]
# ## How far it is off
#
# Errors are of the movement: ‖F_lin − F_T‖/‖F_T − F_0‖ over all points; 1 is as bad as
# to say that nothing moved. The rank correlation asks whether the linearised network
# orders the OoD images by FSSD as the network does.

# %%
ood = slice(len(images), None)
for width, of in found.items():
    print(f"width {width}: test accuracy {of['accuracy']:.3f}")
    for k, layer in enumerate(("fc2", "logits")):
        network, line = of["network"][:, k], of["linearised"][:, k]
        rank = spearmanr(network[ood], line[ood]).statistic
        aurocs = (auroc(d[: len(images)], d[ood]) for d in (network, line))
        told = ", ".join(f"{100 * a:.0f}" for a in aurocs)
        print(
            f"  {layer:6}: linearised is {of['error'][layer]:.0%} off, frozen form "
            f"{of['frozen'][layer]:.0%}; rank correlation {rank:.2f}; AUROC in % of "
            f"network and linearised: {told}"
        )

# %% [markdown]
# One seed, a few hundred images and a short run: this is how to ask, not the answer.
# [What was found at length](../docs/kernel.md) has widths to 2,048, five seeds,
# convolutional networks and other data.
#
# ## Look at it
#
# Where FSSD of the logits is a kernel regression, points lie on the diagonal.

# %%
matplotlib.rcParams.update(style.RC)
figure, axes = style.page(1, len(WIDTHS), 3.0)
for ax, (width, of) in zip(axes[0], found.items(), strict=True):
    for name, part in (("in-distribution", slice(len(images))), ("OoD", ood)):
        x, y = of["linearised"][part, -1], of["network"][part, -1]
        ax.scatter(x, y, s=8, label=name, **style.SETS[name].of_points())
    ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle=":")
    ax.set(xlabel="FSSD of the linearised network", ylabel="FSSD of the network")
    ax.set(title=f"logits, width {width}: {of['error']['logits']:.0%} off")
style.legend_below(figure, axes[0, 0], 2)
figure.savefig("kernel_regression.png", dpi=200)
