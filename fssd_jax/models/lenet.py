"""LeNet as the authors released it for FashionMNIST: 1.2 million parameters."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.models.inputs import normalised


class ConvRelu(nn.Module):
    """relu(3×3 convolution, no padding)."""

    features: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.features, (3, 3), padding="VALID")(x))


class DenseRelu(nn.Module):
    """relu(dense)."""

    features: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(self.features)(x))


class LeNet(nn.Module):
    """Two convolutions, max-pooling, two dense layers; dropout only when training.

    Takes raw images in [0, 1]: the normalisation (x − mean) / std is part of the model,
    so that noise and ε are in pixel units. The mean and std are per channel.
    """

    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    # Whole channels are dropped after each convolution, as PyTorch's Dropout2d does.
    conv_dropout: tuple[float, float] = (0.0, 0.25)
    dense_dropout: float = 0.5
    width: int = 32  # channels of conv1; conv2 has twice as many, fc1 four times

    feature_layers = ("conv1", "conv2", "fc1", "logits")

    @nn.compact
    def __call__(
        self,
        x: Num[Array | np.ndarray, "batch *height_width_channel"],
        train: bool = False,
    ) -> Float[Array, "batch {self.num_classes}"]:
        x = normalised(x, self.mean, self.std)
        channels = partial(nn.Dropout, broadcast_dims=(1, 2), deterministic=not train)
        x = ConvRelu(self.width, name="conv1")(x)
        x = channels(self.conv_dropout[0], name="conv1_dropout")(x)
        x = ConvRelu(2 * self.width, name="conv2")(x)
        x = max_pool_2x2(x)
        x = channels(self.conv_dropout[1])(x)
        x = DenseRelu(4 * self.width, name="fc1")(x.reshape(x.shape[0], -1))
        x = nn.Dropout(self.dense_dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="logits")(x)


def max_pool_2x2(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """2×2 max-pooling; an odd last row or column is left out, as in PyTorch."""
    # Reshape and compare: on a CPU its gradient is faster than `reduce_window`'s. Not
    # `x.max(axis)`, whose derivative looks for the x that equals the maximum: XLA may
    # compute x anew for it, to another last bit, and then none does.
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])
