"""ResNet and ResNeXt: for 32×32 images, for ImageNet, and for faces.

He et al. (2016), "Deep Residual Learning for Image Recognition"; Xie et al. (2017),
"Aggregated Residual Transformations for Deep Neural Networks"; wide bottlenecks:
Zagoruyko and Komodakis (2016), "Wide Residual Networks". As PyTorch's networks are:
strides in the 3×3 convolution of a bottleneck, and padding by ⌊k/2⌋ on all sides
(Flax's "SAME" pads differently at stride 2).
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.losses import COSFACE_SCALE
from fssd_jax.models.inputs import normalised

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# He et al. (2015), by fan-out as in torchvision. Before training BatchNorm is the
# identity, so this alone decides how large the features are.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# What PyTorch calls momentum 0.1: running = 0.9 · running + 0.1 · batch.
BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
# The released face networks say 0.9 where PyTorch means the other share.
FaceNorm = partial(nn.BatchNorm, momentum=0.1, epsilon=2e-5)


class ConvNorm(nn.Module):
    """BatchNorm(convolution without bias)."""

    features: int
    kernel: int = 3
    strides: int = 1
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        around = self.kernel // 2
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.strides,
            padding=((around, around), (around, around)),
            feature_group_count=self.groups,
            use_bias=False,
            kernel_init=HE,
            dtype=self.dtype,
            name="conv",
        )(x)
        return BatchNorm(not train, dtype=self.dtype, name="norm")(x)


class BasicBlock(nn.Module):
    """relu(x + conv(relu(conv(x)))), each convolution with BatchNorm."""

    features: int
    strides: int = 1
    shortcut: Literal["conv", "pad"] = "conv"
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        conv = partial(ConvNorm, self.features, dtype=self.dtype)
        branch = nn.relu(conv(strides=self.strides, name="conv1")(x, train))
        branch = conv(name="conv2")(_thinned(branch, self.dropout, train), train)
        if self.strides != 1 or x.shape[-1] != self.features:
            if self.shortcut == "conv":
                x = conv(1, self.strides, name="shortcut")(x, train)
            else:
                x = _padded(x, self.strides, self.features)
        return nn.relu(x + branch)


def _thinned(x, rate: float, train: bool):
    """Whole channels dropped, as PyTorch's Dropout2d does; without a rate no layer."""
    if not rate:
        return x
    return nn.Dropout(rate, (1, 2), deterministic=not train, name="dropout")(x)


def _padded(x, strides: int, features: int):
    """Every other pixel, and channels of zeros on both sides: He et al., option A.

    The paper does not say where the zeros go. github.com/akamaster/
    pytorch_resnet_cifar10 has half of them before and half behind.
    """
    more = features - x.shape[-1]
    sides = ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))
    return jnp.pad(x[:, ::strides, ::strides], sides)


class Bottleneck(nn.Module):
    """relu(x + conv(relu(conv(relu(conv(x)))))): 1×1, grouped 3×3, and 1×1."""

    inner: int
    features: int
    strides: int = 1
    groups: int = 1
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        conv = partial(ConvNorm, dtype=self.dtype)
        middle = conv(self.inner, 3, self.strides, self.groups, name="conv2")
        branch = nn.relu(conv(self.inner, 1, name="conv1")(x, train))
        branch = _thinned(nn.relu(middle(branch, train)), self.dropout, train)
        branch = conv(self.features, 1, name="conv3")(branch, train)
        if self.strides != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.strides, name="shortcut")(x, train)
        return nn.relu(x + branch)


class Stem(nn.Module):
    """relu of the first convolution; for ImageNet 7×7 at stride 2, and max-pooling."""

    features: int
    kind: Literal["cifar", "imagenet"]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        if self.kind == "cifar":
            first = ConvNorm(self.features, dtype=self.dtype, name="conv1")
            return nn.relu(first(x, train))
        first = ConvNorm(self.features, 7, 2, dtype=self.dtype, name="conv1")
        x = nn.relu(first(x, train))
        around = ((1, 1), (1, 1))
        return nn.max_pool(x, (3, 3), (2, 2), around)  # pyright: ignore[reportArgumentType]


class Stage(nn.Module):
    """Residual blocks, the first of which may halve the size."""

    blocks: int
    width: int  # of the 3×3 convolutions, if they have one group of 64 for 64
    strides: int
    bottleneck: bool
    groups: int
    group_width: int
    shortcut: Literal["conv", "pad"] = "conv"  # of basic blocks
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train):
        shared = {"dtype": self.dtype, "dropout": self.dropout}
        for i in range(self.blocks):
            strides = self.strides if i == 0 else 1
            name = f"block{i + 1}"
            if self.bottleneck:
                inner = max(1, self.width * self.group_width // 64) * self.groups
                sizes = inner, 4 * self.width, strides, self.groups
                x = Bottleneck(*sizes, **shared, name=name)(x, train)
            else:
                sizes = self.width, strides, self.shortcut
                x = BasicBlock(*sizes, **shared, name=name)(x, train)
        return x


class FaceEmbedding(nn.Module):
    """[batch, 4, 4, 2048] to [batch, 512], as the released face networks do."""

    features: int = 512
    dropout: float = 0.4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(ConvNorm(self.features, 1, dtype=self.dtype, name="conv")(x, train))
        plain = partial(FaceNorm, use_scale=False, use_bias=False)
        x = plain(not train, dtype=self.dtype, name="norm1")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.features, dtype=self.dtype, name="dense")(x)
        return FaceNorm(not train, dtype=jnp.float32, name="norm2")(x)


class CosineHead(nn.Module):
    """s · cos of the angle to each class's direction; the margin is in the loss.

    Wang et al. (2018), "CosFace: Large Margin Cosine Loss for Deep Face Recognition";
    train with `fssd_jax.losses.cosface`.
    """

    classes: int

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32)
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        kernel = self.param("kernel", init, (x.shape[-1], self.classes))
        return COSFACE_SCALE * (_unit(x, 1) @ _unit(kernel, 0))


def _unit(v, axis):
    # Where the norm is 0, so is the gradient: of both factors.
    squares = jnp.square(v).sum(axis, keepdims=True)
    zero = squares == 0
    return jnp.where(zero, 0, v) / jnp.sqrt(jnp.where(zero, 1, squares))


class ResNet(nn.Module):
    """Stem, three or four stages, and logits; raw images in [0, 1].

    `cifar_resnet34` and the other names below fill in the fields. The features are the
    outputs of the stem (after max-pooling, if it has any) and of the stages; "logits"
    is a layer, too.
    """

    stage_sizes: tuple[int, ...]  # blocks
    bottleneck: bool = False
    stem: Literal["cifar", "imagenet"] = "imagenet"
    num_classes: int = 1000
    mean: tuple[float, ...] = IMAGENET["mean"]
    std: tuple[float, ...] = IMAGENET["std"]
    width: int = 64  # channels of the stem; stages have 1, 2, 4, … times as many
    groups: int = 1  # of a bottleneck's 3×3 convolution
    group_width: int = 64  # channels of a group in the first stage, at width 64
    shortcut: Literal["conv", "pad"] = "conv"  # 1×1 with weights, or zeros: option A
    face: bool = False  # embedding and cosines in place of mean-pooling and a layer
    # Of features and of the arithmetic; parameters, statistics and logits are float32.
    dtype: Any = jnp.float32
    # Of whole channels before the last convolution of each block, in training.
    dropout: float = 0.0

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return ("stem", *(f"stage{i + 1}" for i in range(len(self.stage_sizes))))

    @nn.compact
    def __call__(
        self,
        x: Num[Array | np.ndarray, "batch *height_width_channel"],
        train: bool = False,
    ) -> Float[Array, "batch {self.num_classes}"]:
        x = normalised(x, self.mean, self.std).astype(self.dtype)
        x = Stem(self.width, self.stem, self.dtype, name="stem")(x, train)
        for i, blocks in enumerate(self.stage_sizes):
            stage = Stage(
                blocks,
                self.width * 2**i,
                1 if i == 0 else 2,
                self.bottleneck,
                self.groups,
                self.group_width,
                self.shortcut,
                self.dtype,
                self.dropout,
                name=f"stage{i + 1}",
            )
            x = stage(x, train)
        if self.face:
            embed = FaceEmbedding(8 * self.width, dtype=self.dtype, name="embedding")
            x = embed(x, train)
            return CosineHead(self.num_classes, name="logits")(x)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.num_classes, name="logits")(x)


# As the released code and github.com/kuangliu/pytorch-cifar have them.
cifar_resnet = partial(ResNet, stem="cifar", num_classes=10, **CIFAR10)
cifar_resnet18 = partial(cifar_resnet, (2, 2, 2, 2))
cifar_resnet34 = partial(cifar_resnet, (3, 4, 6, 3))
cifar_resnet50 = partial(cifar_resnet, (3, 4, 6, 3), bottleneck=True)
cifar_resnet101 = partial(cifar_resnet, (3, 4, 23, 3), bottleneck=True)
cifar_resnet152 = partial(cifar_resnet, (3, 8, 36, 3), bottleneck=True)
# As He et al. have them, section 4.2: 6n + 2 layers, in three stages.
_narrow = partial(cifar_resnet, width=16, shortcut="pad")
cifar_resnet20 = partial(_narrow, (3, 3, 3))
cifar_resnet32 = partial(_narrow, (5, 5, 5))
cifar_resnet44 = partial(_narrow, (7, 7, 7))
cifar_resnet56 = partial(_narrow, (9, 9, 9))
cifar_resnet110 = partial(_narrow, (18, 18, 18))
# As torchvision has them.
resnet18 = partial(ResNet, (2, 2, 2, 2))
resnet34 = partial(ResNet, (3, 4, 6, 3))
resnet50 = partial(ResNet, (3, 4, 6, 3), bottleneck=True)
resnet101 = partial(ResNet, (3, 4, 23, 3), bottleneck=True)
resnet152 = partial(ResNet, (3, 8, 36, 3), bottleneck=True)
wide_resnet50_2 = partial(resnet50, group_width=128)
wide_resnet101_2 = partial(resnet101, group_width=128)
resnext50 = partial(resnet50, groups=32, group_width=4)  # 32×4d
resnext101_32x8d = partial(resnet101, groups=32, group_width=8)
resnext101_64x4d = partial(resnet101, groups=64, group_width=4)
# As the released face networks: 112×112 images, less 0.5 and not divided; the stem of
# ImageNet. The released scoring takes the layer "embedding", too.
face_resnext50 = partial(resnext50, face=True, mean=(0.5,) * 3, std=(1.0,) * 3)
