"""FSSD on a Flax network of your own, with nothing but noise: no labels, no OoD data.

python examples/own_network.py
"""

import flax.linen as nn
import jax
import numpy as np

import fssd_jax
from fssd_jax.data import load
from fssd_jax.detectors import fssd
from fssd_jax.train import train


class MyNetwork(nn.Module):
    """Any Linen network; only the submodules whose output is wanted need a name."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Sequential([nn.Conv(8, (3, 3), strides=2), nn.relu], name="conv")(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.Sequential([nn.Dense(64), nn.relu], name="hidden")(x)
        return nn.Dense(10, name="logits")(x)


def main() -> tuple[np.ndarray, np.ndarray]:
    model, digits = MyNetwork(), load("digits", "train")
    variables = train(
        model, digits.x, digits.y, num_classes=10, seed=0, epochs=5
    ).variables
    images, photos = load("digits", "test").x, load("photo_patches", "test").x

    # The five lines:
    feature_fn = fssd_jax.make_feature_fn(model, layers=["hidden", "logits"])
    noise = fssd_jax.uniform_noise(jax.random.key(1), 1000, images.shape[1:])
    state = fssd.fit(feature_fn, variables, noise)
    scores = fssd_jax.map_batches(fssd.score, feature_fn, variables, state, images)
    print(f"{len(scores)} scores, higher = more in-distribution: {scores[:3]} …")

    of_photos = fssd_jax.map_batches(fssd.score, feature_fn, variables, state, photos)
    print(
        f"AUROC against photographs: {fssd_jax.evaluate(scores, of_photos).auroc:.3f}"
    )
    return scores, of_photos


if __name__ == "__main__":
    main()
