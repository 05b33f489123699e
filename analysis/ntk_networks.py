"""Networks in NTK parametrisation, for which a limit of infinite width exists.

    y = σ_w/√fan_in · W x + σ_b · b,   W, b ~ N(0, 1)       (Jacot et al. 2018)

At one learning rate the logits move equally fast at every width, and the tangent kernel
converges as the width grows. In Flax's own parametrisation neither holds.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.models.inputs import normalised
from fssd_jax.models.lenet import max_pool_2x2

WEIGHT_STD = math.sqrt(2)  # keeps the size of relu features from layer to layer
BIAS_STD = 0.1


class Dense(nn.Module):
    """activation(σ_w/√fan_in · W x + σ_b · b)."""

    features: int
    activation: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x):
        normal = jax.nn.initializers.normal(1.0)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features))
        bias = self.param("bias", normal, (self.features,))
        x = WEIGHT_STD / math.sqrt(x.shape[-1]) * (x @ kernel) + BIAS_STD * bias[None]
        return x if self.activation is None else self.activation(x)


class Conv(nn.Module):
    """activation(σ_w/√fan_in · W * x + σ_b · b), 3×3, without padding."""

    features: int
    strides: int = 1
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x):
        normal = jax.nn.initializers.normal(1.0)
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", normal, shape)
        bias = self.param("bias", normal, (self.features,))
        x = jax.lax.conv_general_dilated(
            x,
            WEIGHT_STD / math.sqrt(math.prod(shape[:-1])) * kernel,
            (self.strides, self.strides),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.activation(x + BIAS_STD * bias[None, None, None])


class Perceptron(nn.Module):
    """Two hidden layers of `width` units, then logits; the normalisation is inside."""

    width: int = 256
    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    activation: Callable[[Array], Array] = nn.relu

    feature_layers = ("fc1", "fc2", "logits")

    @nn.compact
    def __call__(
        self, x: Num[Array | np.ndarray, "batch height width channel"], train=False
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        x = normalised(x, self.mean, self.std)
        x = x.reshape(x.shape[0], -1)
        x = Dense(self.width, self.activation, name="fc1")(x)
        x = Dense(self.width, self.activation, name="fc2")(x)
        return Dense(self.num_classes, name="logits")(x)


class ConvNet(nn.Module):
    """The shape of the released LeNet at width 32, at other widths too; no dropout.

    With `strides=2` and `max_pool=False` it has an infinite-width twin.
    """

    width: int = 32  # channels of conv1; conv2 has twice, fc1 four times as many
    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    strides: int = 1
    max_pool: bool = True
    activation: Callable[[Array], Array] = nn.relu

    feature_layers = ("conv1", "conv2", "fc1", "logits")

    @nn.compact
    def __call__(
        self, x: Num[Array | np.ndarray, "batch height width channel"], train=False
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        x = normalised(x, self.mean, self.std)
        x = Conv(self.width, self.strides, self.activation, name="conv1")(x)
        x = Conv(2 * self.width, self.strides, self.activation, name="conv2")(x)
        if self.max_pool:
            x = max_pool_2x2(x)
        x = x.reshape(x.shape[0], -1)
        x = Dense(4 * self.width, self.activation, name="fc1")(x)
        return Dense(self.num_classes, name="logits")(x)
