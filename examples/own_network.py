"""FSSD on a Flax network of your own, with nothing but noise: no labels, no OoD data.

python examples/own_network.py
"""

import flax.linen as nn
import jax
import numpy as np

import fssd_jax
from fssd_jax.detectors import fssd


class MyNetwork(nn.Module):
    """Any Linen network; only the submodules whose output is wanted need a name."""

    @nn.compact
    def __call__(self, x):
        x = nn.Sequential([nn.Conv(8, (3, 3), strides=2), nn.relu], name="conv")(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.Sequential([nn.Dense(32), nn.relu], name="hidden")(x)
        return nn.Dense(10, name="logits")(x)


def main() -> np.ndarray:
    model = MyNetwork()
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28, 1), np.uint8)
    variables = model.init(jax.random.key(0), images[:1] / 255)  # your trained weights

    # The five lines:
    feature_fn = fssd_jax.make_feature_fn(model, layers=["conv", "hidden", "logits"])
    noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
    state = fssd.fit(feature_fn, variables, noise)
    scores = fssd_jax.map_batches(fssd.score, feature_fn, variables, state, images)
    print(f"{scores.shape} scores, higher = more in-distribution: {scores[:3]} …")

    # Each layer alone, Eq. (1): [images, layers].
    layers = fssd_jax.map_batches(
        fssd.layer_scores, feature_fn, variables, state, images
    )
    print(dict(zip(state.singularity.center, layers.mean(0).round(2), strict=True)))
    return scores


if __name__ == "__main__":
    main()
