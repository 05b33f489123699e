"""The operations that each procedure needs, by hand, and that XLA counts.

A product of a number with a weight, and its addition to a sum, are two operations. All
else (biases, ReLUs, pooling, norms) is left out by hand: one to four per cent.

A convolution of stride s, k taps and p zeros on each side takes an axis of n numbers to
m = ⌊(n + 2p − k) / s⌋ + 1. Products with the zeros are not needed: of output o and
tap t one is if 0 ≤ o·s + t − p < n. With P such pairs on an axis of a square image, it
needs 2 P² · (channels in) · (channels out) operations, a dense layer 2 · in · out. The
derivative by its input multiplies the same pairs of numbers, once each: as many.

Let c_j be the operations from feature j − 1 to feature j, F_k = c_1 + … + c_k those of
a forward pass that ends at layer k of K. A forward pass needs F_K. ∇ₓ FSSD^(k), beside
the forward pass, which all layers share, needs F_k: it ends at the pixels. A step's
score needs F_k again, of other pixels for each layer. So with E values of ε

    plain      F_K
    gradients  F_K + Σ_k F_k
    sweep      F_K + Σ_k F_k + E Σ_k F_k
    released   E Σ_k 3 F_k      (forward, backward, forward, for each layer and ε)
    training   3 F_K − c_1      (the derivative by the pixels is not needed)
"""

import re
from functools import partial
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp

import fssd_jax
from benchmarks import networks
from fssd_jax import fssd, recipes, steps

BATCH = 8
# XLA's, in a compiled program's text; a fusion's body has them too.
PRODUCTS = re.compile(r" = \S+ (convolution|dot)\(")


def convolution(
    n: int, inside: int, out: int, *, taps: int = 3, stride: int = 1, zeros: int = 0
) -> int:
    """Operations of a square convolution on n × n pixels."""
    outputs = (n + 2 * zeros - taps) // stride + 1
    pairs = sum(
        0 <= o * stride + t - zeros < n for o in range(outputs) for t in range(taps)
    )
    return 2 * pairs**2 * inside * out


def dense(inside: int, out: int) -> int:
    return 2 * inside * out


def lenet(side: int = 28) -> list[int]:
    """c_j of conv1, conv2, fc1 and logits."""
    pooled = (side - 4) // 2
    return [
        convolution(side, 1, 32),
        convolution(side - 2, 32, 64),
        dense(pooled**2 * 64, 128),
        dense(128, 10),
    ]


def resnet20(side: int = 32, width: int = 16, blocks: int = 3) -> list[int]:
    """c_j of the stem and the three stages; their shortcuts multiply nothing."""
    found = [convolution(side, 3, width, zeros=1)]
    inside, n = width, side
    for stage in range(3):
        out, stride = width * 2**stage, 1 if stage == 0 else 2
        first = convolution(n, inside, out, stride=stride, zeros=1)
        inside, n = out, n // stride
        rest = convolution(n, out, out, zeros=1)
        found.append(first + (2 * blocks - 1) * rest)
    return found


def resnet34(side: int = 224, width: int = 64) -> list[int]:
    """c_j of the stem and the four stages; a later stage's first shortcut is 1×1."""
    found = [convolution(side, 3, width, taps=7, stride=2, zeros=3)]
    inside, n = width, side // 4
    for stage, blocks in enumerate((3, 4, 6, 3)):
        out, stride = width * 2**stage, 1 if stage == 0 else 2
        first = convolution(n, inside, out, stride=stride, zeros=1)
        if stage:
            first += convolution(n, inside, out, taps=1, stride=stride)
        inside, n = out, n // stride
        rest = convolution(n, out, out, zeros=1)
        found.append(first + (2 * blocks - 1) * rest)
    return found


BY_HAND = {
    "LeNet": lenet,
    "ResNet-20": resnet20,
    "ResNet-34": resnet34,
    "ResNet-34, narrow": partial(resnet34, 32, 4),
}


def needed(layers: list[int], epsilons: int) -> dict[str, int]:
    """Operations an image of each procedure, from c_j of its layers."""
    until = list(accumulate(layers))
    plain, each = until[-1], sum(until)
    return {
        "plain": plain,
        "gradients": plain + each,
        "one": plain + 2 * each,
        "sweep": plain + (1 + epsilons) * each,
        "released": 3 * epsilons * each,
        "training": 3 * plain - layers[0],
    }


def programs(
    model, shape: tuple[int, ...], recipe=recipes.lenet, batch: int = BATCH
) -> dict[str, Any]:
    """What scoring compiles: forward; gradients; and a step's scores, a call an ε.

    And a step of training, with the optimiser of `recipe`.
    """
    args = networks.shapes(model, shape, batch)
    case = networks.Case(type(model), shape, batch, recipe, {})
    parts = functions(model, *args[:3])
    parts["training"] = networks.steps(case, model)["training"], args
    return {
        name: jax.jit(f).lower(*args).compile() for name, (f, args) in parts.items()
    }


def functions(model, variables, center, x) -> dict[str, tuple]:
    """Of each program the function and its arguments, arrays or their shapes."""
    feature_fn = fssd_jax.make_feature_fn(model)
    scores = steps.Scores(fssd.layer_distance, feature_fn, tuple(center.center))
    arrays, epsilon = (variables, center), jax.ShapeDtypeStruct((), jnp.float32)
    signs = [x] * len(scores.names)
    return {
        "forward": (partial(fssd.fssd, feature_fn), (variables, center, x)),
        "gradients": (partial(steps.signs, scores), (arrays, x)),
        "step": (partial(steps.at_step, scores), (arrays, x, signs, epsilon)),
    }


def counted(compiled: dict[str, Any], epsilons: int, batch: int) -> dict[str, float]:
    """Operations an image by XLA's `cost_analysis`, all kinds of them."""
    of = {k: p.cost_analysis()["flops"] / batch for k, p in compiled.items()}
    return {
        "plain": of["forward"],
        "gradients": of["gradients"],
        "one": of["gradients"] + of["step"],
        "sweep": of["gradients"] + epsilons * of["step"],
        "training": of["training"],
    }


def products(program: Any) -> int:
    """Convolutions and matrix products of a compiled program."""
    return len(PRODUCTS.findall(program.as_text()))
