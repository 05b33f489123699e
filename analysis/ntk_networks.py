"""Networks that can be compared across widths, in three parametrisations.

    y = m_w · σ_w/√fan_in · W x + m_b · σ_b · b,   W ~ N(0, s_w²), b ~ N(0, s_b²)

With r = width / base_width, plain SGD at one rate for all layers (`stable_rate`), and

                    layer           m_w, s_w      m_b, s_b      rate
    "ntk"           all             1, 1          1, 1          η
    "standard"      first           1, 1          1, 1          η/r
                    others          √r, 1/√r      1, 1          η/r
    "mup"           all but logits  √r, 1/√r      √r, 1/√r      η
                    logits          1, 1/√r       1, 1/√r       η

these are the abc-parametrisations of Yang and Hu (2021, "Feature Learning in Infinite-
Width Neural Networks", arXiv:2011.14522, Table 1), y = n^-a w x, w ~ N(0, n^-2b), rate
η n^-c, of width n:

    "ntk"           a = 0 (first), 1/2;               b = 0;               c = 0
    "standard"      a = 0;                            b = 0 (first), 1/2;  c = 1
    "mup"           a = −1/2 (first), 0, 1/2 (last);  b = 1/2;             c = 0

Their biases, of which Table 1 tells nothing, are those of a first layer, but in "mup"
the logits' are drawn as small as the logits are. At width `base_width` the three are
one network and one training, as in Yang et al. (2022, arXiv:2203.03466). At first, each
hidden feature is of size 1 at every width, and so are the logits, but in "mup", where
they fall as r^-1/2. A step moves the logits by O(1) in all three; each hidden feature
by O(r^-1/2) in "ntk", and no more in "standard" (its first layer by O(r^-3/2)), and by
O(1) in "mup". So "ntk" and "standard" at this rate are lazy in the limit, where the
tangent kernel stays what it was (Jacot et al. 2018), and "mup" is not.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax import checks
from fssd_jax.models.inputs import normalised
from fssd_jax.models.lenet import max_pool_2x2
from fssd_jax.shown import brief

WEIGHT_STD = math.sqrt(2)  # keeps the size of relu features from layer to layer
BIAS_STD = 0.1

PARAMETRISATIONS = ("ntk", "standard", "mup")
# Of a layer: does the width go into its fan-in, into its fan-out, or into both?
Place = Literal["first", "hidden", "last"]


class Factors(NamedTuple):
    weight: float  # m_w
    weight_std: float  # s_w
    bias: float  # m_b
    bias_std: float  # s_b

    __repr__ = brief


def factors(parametrisation: str, ratio: float, place: Place) -> Factors:
    """m and s of a layer, with ratio = width / base_width."""
    checked(parametrisation)
    root = math.sqrt(ratio)
    if parametrisation == "mup":
        times = 1.0 if place == "last" else root
        return Factors(times, 1 / root, times, 1 / root)
    if parametrisation == "standard" and place != "first":
        return Factors(root, 1 / root, 1.0, 1.0)
    return Factors(1.0, 1.0, 1.0, 1.0)


def checked(parametrisation: str) -> str:
    """The same; `InputError` if it is none."""
    if parametrisation not in PARAMETRISATIONS:
        raise checks.InputError(
            f"parametrisation: one of {list(PARAMETRISATIONS)}, got {parametrisation!r}"
        )
    return parametrisation


def stable_rate(network: "Perceptron | ConvNet | ResNet", rate: float) -> float:
    """The learning rate at which training has a limit of infinite width.

    For plain SGD, and the same function at `base_width`: η/r in "standard" (at η itself
    its logits grow with the width), η in "ntk" and "mup".

    Args:
      network: any of this file.
      rate: η at width `base_width`.
    """
    standard = checked(network.parametrisation) == "standard"
    return rate / _ratio(network) if standard else rate


def _ratio(network) -> float:
    checks.at_least_one("base_width", network.base_width)
    return network.width / network.base_width


def _placed(network, place: Place) -> dict:
    """What a layer is told of the network that it stands in."""
    return {
        "parametrisation": network.parametrisation,
        "ratio": _ratio(network),
        "place": place,
    }


class Dense(nn.Module):
    """activation(m_w · σ_w/√fan_in · W x + m_b · σ_b · b)."""

    features: int
    activation: Callable[[Array], Array] | None = None
    parametrisation: str = "ntk"
    ratio: float = 1.0  # width / base_width
    place: Place = "hidden"

    @nn.compact
    def __call__(self, x):
        of = factors(self.parametrisation, self.ratio, self.place)
        normal = jax.nn.initializers.normal
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", normal(of.weight_std), shape)
        bias = self.param("bias", normal(of.bias_std), (self.features,))
        weight = of.weight * WEIGHT_STD / math.sqrt(x.shape[-1])
        x = weight * (x @ kernel) + of.bias * BIAS_STD * bias[None]
        return x if self.activation is None else self.activation(x)


class Conv(nn.Module):
    """activation(m_w · σ_w/√fan_in · W * x + m_b · σ_b · b), 3×3."""

    features: int
    strides: int = 1
    activation: Callable[[Array], Array] | None = nn.relu
    padding: str = "VALID"
    parametrisation: str = "ntk"
    ratio: float = 1.0
    place: Place = "hidden"

    @nn.compact
    def __call__(self, x):
        of = factors(self.parametrisation, self.ratio, self.place)
        normal = jax.nn.initializers.normal
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", normal(of.weight_std), shape)
        bias = self.param("bias", normal(of.bias_std), (self.features,))
        x = jax.lax.conv_general_dilated(
            x,
            of.weight * WEIGHT_STD / math.sqrt(math.prod(shape[:-1])) * kernel,
            (self.strides, self.strides),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = x + of.bias * BIAS_STD * bias[None, None, None]
        return x if self.activation is None else self.activation(x)


class Perceptron(nn.Module):
    """Two hidden layers of `width` units, then logits; the normalisation is inside."""

    width: int = 256
    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    activation: Callable[[Array], Array] = nn.relu
    parametrisation: str = "ntk"
    base_width: int = 128

    feature_layers = ("fc1", "fc2", "logits")

    @nn.compact
    def __call__(
        self, x: Num[Array | np.ndarray, "batch height width channel"], train=False
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        first, hidden, last = (_placed(self, p) for p in ("first", "hidden", "last"))
        x = normalised(x, self.mean, self.std)
        x = x.reshape(x.shape[0], -1)
        x = Dense(self.width, self.activation, name="fc1", **first)(x)
        x = Dense(self.width, self.activation, name="fc2", **hidden)(x)
        return Dense(self.num_classes, name="logits", **last)(x)


class ConvNet(nn.Module):
    """The shape of the released LeNet at width 32, at other widths too; no dropout.

    With `strides=2` and `max_pool=False` it has an infinite-width twin, in "ntk".
    """

    width: int = 32  # channels of conv1; conv2 has twice, fc1 four times as many
    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    strides: int = 1
    max_pool: bool = True
    activation: Callable[[Array], Array] = nn.relu
    parametrisation: str = "ntk"
    base_width: int = 32

    feature_layers = ("conv1", "conv2", "fc1", "logits")

    @nn.compact
    def __call__(
        self, x: Num[Array | np.ndarray, "batch height width channel"], train=False
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        first, hidden, last = (_placed(self, p) for p in ("first", "hidden", "last"))
        how = self.strides, self.activation
        x = normalised(x, self.mean, self.std)
        x = Conv(self.width, *how, name="conv1", **first)(x)
        x = Conv(2 * self.width, *how, name="conv2", **hidden)(x)
        if self.max_pool:
            x = max_pool_2x2(x)
        x = x.reshape(x.shape[0], -1)
        x = Dense(4 * self.width, self.activation, name="fc1", **hidden)(x)
        return Dense(self.num_classes, name="logits", **last)(x)


class Block(nn.Module):
    """activation(x + scale · conv(activation(conv(x)))), of the width of x."""

    scale: float
    activation: Callable[[Array], Array]
    placed: dict

    @nn.compact
    def __call__(self, x):
        conv = {"features": x.shape[-1], "padding": "SAME", **self.placed}
        branch = Conv(activation=self.activation, name="conv1", **conv)(x)
        branch = Conv(activation=None, name="conv2", **conv)(branch)
        return self.activation(x + self.scale * branch)


class ResNet(nn.Module):
    """A stem of half the resolution, residual blocks, mean pooling; no BatchNorm.

    All of the loss passes through the stem and each block (`analysis.bottleneck`). The
    mean square of a branch is at first 1/blocks of its input's, or less, so that the
    features keep their size at any depth, too.
    """

    width: int = 32  # channels of all layers
    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    blocks: int = 2
    activation: Callable[[Array], Array] = nn.relu
    parametrisation: str = "ntk"
    base_width: int = 32

    @property
    def feature_layers(self) -> tuple[str, ...]:
        blocks = (f"block{k}" for k in range(1, self.blocks + 1))
        return ("stem", *blocks, "logits")

    @nn.compact
    def __call__(
        self, x: Num[Array | np.ndarray, "batch height width channel"], train=False
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        first, hidden, last = (_placed(self, p) for p in ("first", "hidden", "last"))
        stem = {"strides": 2, "padding": "SAME", "activation": self.activation}
        x = normalised(x, self.mean, self.std)
        x = Conv(self.width, name="stem", **stem, **first)(x)
        scale = 1 / (WEIGHT_STD * math.sqrt(self.blocks))
        for k in range(1, self.blocks + 1):
            x = Block(scale, self.activation, hidden, name=f"block{k}")(x)
        return Dense(self.num_classes, name="logits", **last)(x.mean((1, 2)))
