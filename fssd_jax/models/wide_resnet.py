"""Wide residual networks for 32×32 images, with activations before convolutions.

Zagoruyko and Komodakis (2016), "Wide Residual Networks": WRN-d-k has d = 6n + 4 layers
and is k times as wide. As Outlier Exposure, OpenOOD and RobustBench have them.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.models.inputs import normalised
from fssd_jax.models.resnet import CIFAR10, HE, BatchNorm


class NormRelu(nn.Module):
    """relu(BatchNorm)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(BatchNorm(not train, dtype=self.dtype, name="norm")(x))


class WideBlock(nn.Module):
    """x + conv(a(conv(a(x)))), a = relu(BatchNorm).

    Where the number of channels changes, a 1×1 convolution of a(x) in place of x.
    """

    features: int
    strides: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        conv = partial(nn.Conv, use_bias=False, kernel_init=HE, dtype=self.dtype)
        around = ((1, 1), (1, 1))
        first = conv(self.features, (3, 3), self.strides, padding=around, name="conv1")
        branch = NormRelu(self.dtype, name="norm1")(x, train)
        if x.shape[-1] != self.features:
            x = conv(self.features, (1, 1), self.strides, name="shortcut")(branch)
        branch = NormRelu(self.dtype, name="norm2")(first(branch), train)
        return x + conv(self.features, (3, 3), padding=around, name="conv2")(branch)


class WideStage(nn.Module):
    """Blocks, the first of which may halve the size."""

    blocks: int
    features: int
    strides: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        for i in range(self.blocks):
            sizes = self.features, self.strides if i == 0 else 1, self.dtype
            x = WideBlock(*sizes, name=f"block{i + 1}")(x, train)
        return x


class WideResNet(nn.Module):
    """A convolution, three stages, relu(BatchNorm), logits; raw images in [0, 1]."""

    stage_sizes: tuple[int, int, int]  # blocks: (d − 4) / 6 each
    widen: int  # k: stages have k, 2k and 4k times as many channels as the stem
    num_classes: int = 10
    mean: tuple[float, ...] = CIFAR10["mean"]
    std: tuple[float, ...] = CIFAR10["std"]
    width: int = 16  # channels of the stem
    # Of features and of the arithmetic; parameters, statistics and logits are float32.
    dtype: Any = jnp.float32

    feature_layers = ("stem", "stage1", "stage2", "stage3", "last")

    @nn.compact
    def __call__(
        self,
        x: Num[Array | np.ndarray, "batch *height_width_channel"],
        train: bool = False,
    ) -> Float[Array, "batch {self.num_classes}"]:
        x = normalised(x, self.mean, self.std).astype(self.dtype)
        stem = partial(nn.Conv, use_bias=False, kernel_init=HE, dtype=self.dtype)
        x = stem(self.width, (3, 3), padding=((1, 1), (1, 1)), name="stem")(x)
        for i, blocks in enumerate(self.stage_sizes):
            features = self.width * self.widen * 2**i
            stage = WideStage(
                blocks, features, min(i, 1) + 1, self.dtype, name=f"stage{i + 1}"
            )
            x = stage(x, train)
        x = NormRelu(self.dtype, name="last")(x, train)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.num_classes, name="logits")(x)


wrn28_10 = partial(WideResNet, (4, 4, 4), 10)
wrn40_2 = partial(WideResNet, (6, 6, 6), 2)
