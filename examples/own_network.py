"""FSSD on a Flax network of your own, with nothing but noise: no labels, no OoD data.

python examples/own_network.py
"""

# %%
import flax.linen as nn
import jax

import fssd_jax
from analysis import plots
from fssd_jax.data import load
from fssd_jax.detectors import fssd
from fssd_jax.train import train

# %% [markdown]
# ## A network
#
# Any Linen network will do; only the submodules whose output is wanted need a name.


# %%
class MyNetwork(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Sequential([nn.Conv(8, (3, 3), strides=2), nn.relu], name="conv")(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.Sequential([nn.Dense(64), nn.relu], name="hidden")(x)
        return nn.Dense(10, name="logits")(x)


# %% [markdown]
# Yours is trained already: then `variables` is what you have, such as
# `{"params": ...}`, and this cell goes. Here it learns scikit-learn's digits.

# %%
EPOCHS = 5
model, digits = MyNetwork(), load("digits", "train")
trained = train(
    *(model, digits.x, digits.y),
    num_classes=10,
    seed=0,
    epochs=EPOCHS,
    progress=False,
)
variables = trained.variables

# %% [markdown]
# ## The five lines
#
# F\* is the mean feature of uniform noise, and FSSD the distance to it. The layers are
# added, each in units of the noise's own distance.

# %%
images, photos = load("digits", "test").x, load("photo_patches", "test").x

feature_fn = fssd_jax.make_feature_fn(model, layers=["hidden", "logits"])
noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
state = fssd.fit(feature_fn, variables, noise)
scores = fssd_jax.map_batches(fssd.score, feature_fn, variables, state, images)
of_photos = fssd_jax.map_batches(fssd.score, feature_fn, variables, state, photos)

# %% [markdown]
# Scores are higher for in-distribution images. Digits are told from patches of
# photographs, which the network never saw, and neither did the detector:

# %%
found = fssd_jax.evaluate(scores, of_photos)
print(f"{len(scores)} digits, {len(of_photos)} patches: AUROC {found.auroc:.3f}")

# %% [markdown]
# ## Look at it
#
# Where the two histograms overlap no threshold can be right. `fssd_jax.threshold`
# chooses one from in-distribution images alone.

# %%
figure = plots.histogram(scores, of_photos, "FSSD, digits and photographs")
figure.savefig("own_network.png", dpi=200)
