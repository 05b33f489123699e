"""FSSD where inputs are no images: text as token ids, and one-dimensional signals.

Nothing of a detector is of images. What changes is the noise of which F* is the mean
feature: random ids where ids are, and noise in the range of the data where they are
not in [0, 1].

python examples/text_and_signals.py
"""

# %%
import codecs
import inspect
import random
import string
import unicodedata

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn import datasets

import fssd_jax
from analysis import plots
from fssd_jax.detectors import fssd, msp
from fssd_jax.models import BiLSTM
from fssd_jax.train import accuracy, train

TEXTS, SIGNALS, EPOCHS = 3000, 1500, 12
rng = np.random.default_rng(0)

# %% [markdown]
# ## Text
#
# Three kinds of text that every installation has: English, which are scikit-learn's
# descriptions of its data sets; Python, which is its standard library; and the names of
# Unicode's characters. Ids are those of the letters and of the space, all else left
# out. OoD is the same English in ROT13: its rhythm of words, with other letters. These
# are toy data, to see that it runs; they say nothing of language models.

# %%
LENGTH = 32
LETTERS = string.ascii_lowercase + " "


def ids(text: str) -> np.ndarray:
    kept = "".join(c if c in LETTERS else " " for c in text.lower())
    return np.array([LETTERS.index(c) for c in " ".join(kept.split())], np.int32)


def windows(text: str, count: int) -> np.ndarray:
    """[count, LENGTH], cut at random places."""
    found = ids(text)
    starts = rng.integers(0, len(found) - LENGTH, count)
    return found[starts[:, None] + np.arange(LENGTH)[None]]


sets = (datasets.load_iris, datasets.load_wine, datasets.load_digits)
english = "".join(load().DESCR for load in (*sets, datasets.load_diabetes))
python = "".join(inspect.getsource(module) for module in (random, string, codecs))
names = "\n".join(unicodedata.name(chr(i), "") for i in range(5000))

# %% [markdown]
# Even lines are for training, odd ones for testing.

# %%
lines = [text.splitlines() for text in (english, python, names)]
x = np.concatenate([windows("\n".join(of[::2]), TEXTS // 3) for of in lines])
y = np.repeat(np.arange(3), TEXTS // 3)
text_in = np.concatenate([windows("\n".join(of[1::2]), 200) for of in lines])
of_test = np.repeat(np.arange(3), 200)
text_ood = windows(codecs.encode(english, "rot13"), 600)

# %% [markdown]
# Integers are ids and stay so. They have no gradient, so there is no input step, which
# noise alone takes none of anyway.

# %%
lstm = BiLSTM(
    num_classes=3,
    symbols=len(LETTERS),
    embedding=8,
    hidden=32,
    num_layers=1,
    dropout=0.0,
    positions=(),
)
lstm_variables = train(
    *(lstm, x, y),
    num_classes=3,
    seed=0,
    epochs=EPOCHS,
    recipe=lambda epochs, steps: optax.adam(1e-2),
    progress=False,
).variables
random_ids = fssd_jax.noise.random_tokens(
    jax.random.key(1), 1000, (LENGTH,), vocabulary=len(LETTERS)
)

# %% [markdown]
# ## Signals
#
# Sines, squares and triangles of any frequency and phase, with noise of deviation 0.1;
# OoD are sawtooths. All are synthetic. A small convolutional network of one dimension
# tells the three apart.


# %%
def wave(kind: str, count: int) -> np.ndarray:
    """[count, 64, 1], in about [−1.3, 1.3]."""
    frequency, phase = rng.uniform(2, 5, (count, 1)), rng.uniform(0, 1, (count, 1))
    t = (frequency * np.linspace(0, 1, 64)[None] + phase) % 1
    shapes = {
        "sine": np.sin(2 * np.pi * t),
        "square": np.sign(t - 0.5),
        "triangle": 4 * np.abs(t - 0.5) - 1,
        "sawtooth": 2 * t - 1,
    }
    noisy = shapes[kind] + rng.normal(0, 0.1, t.shape)
    return noisy[..., None].astype(np.float32)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for i, features in enumerate((16, 32)):
            x = nn.relu(nn.Conv(features, (7,), strides=2, name=f"conv{i + 1}")(x))
        x = nn.Sequential([nn.Dense(32), nn.relu], name="hidden")(x.mean(1))
        return nn.Dense(3, name="logits")(x)


# %% [markdown]
# `train` takes images in [0, 1], so this loop is our own, as yours may be.

# %%
kinds = ("sine", "square", "triangle")
x = np.concatenate([wave(kind, SIGNALS // 3) for kind in kinds])
y = np.repeat(np.arange(3), SIGNALS // 3)
signal_in = np.concatenate([wave(kind, 200) for kind in kinds])
signal_ood = wave("sawtooth", 600)

convolutional = Convolutional()
conv_variables = convolutional.init(jax.random.key(0), x[:1])
optimiser = optax.adam(3e-3)
opt_state = optimiser.init(conv_variables)


@jax.jit
def update(variables, opt_state, x, y):
    def loss(variables):
        logits = convolutional.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = optimiser.update(jax.grad(loss)(variables), opt_state)
    return optax.apply_updates(variables, updates), opt_state


for _ in range(EPOCHS * len(x) // 50):
    batch = rng.integers(0, len(x), 50)
    conv_variables, opt_state = update(conv_variables, opt_state, x[batch], y[batch])

# %% [markdown]
# Which noise? `noise_like` is uniform in the range of the data, and `normal_noise` has
# their deviation. `unit_range=False` says that floats outside [0, 1] are meant; without
# it they are an error, because as pixels they would be wrong.

# %%
key, shape = jax.random.key(1), x.shape[1:]
uniform = fssd_jax.noise.noise_like(key, 1000, x)
normal = fssd_jax.noise.normal_noise(key, 1000, shape, std=float(x.std()))

# %% [markdown]
# ## Score both


# %%
def compare(model, layers, variables, noises, ind, ood):
    """FSSD about the mean feature of each noise, and MSP."""
    feature_fn = fssd_jax.make_feature_fn(model, layers=layers)
    logit_fn = fssd_jax.make_logit_fn(model)
    right = accuracy(logit_fn, variables, ind, of_test, unit_range=False)
    print(f"test accuracy {right:.3f}")
    methods = {"msp": (msp.score, logit_fn, msp.fit())}
    for name, noise in noises.items():
        state = fssd.fit(feature_fn, variables, noise, unit_range=False)
        methods[f"fssd, {name}"] = (fssd.score, feature_fn, state)
    return fssd_jax.compare(methods, variables, ind, ood, unit_range=False)


noises = {"random ids": random_ids}
of_text = compare(lstm, ["last", "logits"], lstm_variables, noises, text_in, text_ood)
print(of_text)

# %%
noises = {"uniform": uniform, "normal": normal}
layers = ["hidden", "logits"]
of_signals = compare(
    *(convolutional, layers, conv_variables, noises, signal_in, signal_ood)
)
print(of_signals)

# %% [markdown]
# ## Look at it
#
# Noise is a stand-in for what OoD inputs do to a network, and a guess. For these
# signals it is a bad one: sawtooths lie farther from the F\* of uniform noise than the
# data do, so that FSSD orders them the wrong way, and about that of normal noise it is
# at chance. MSP, which needs no noise, tells them apart. So compare, on OoD inputs that
# you can make, before you trust a score.

# %%
curves = {f"text, {name}": scores for name, scores in of_text.scores.items()}
curves |= {f"signals, {name}": scores for name, scores in of_signals.scores.items()}
figure = plots.roc(curves)
figure.savefig("text_and_signals.png", dpi=200)
