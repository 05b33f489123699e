"""Networks of `fssd_jax.models`, and what PyTorch's state dicts call their parts."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from fssd_jax import models

MOST_BLOCKS = 1000  # that are believed of a file; He et al. went to 600


class Format(NamedTuple):
    build: Callable[..., nn.Module]
    side: int  # height and width of its images
    renames: tuple[tuple[str, str], ...]  # of Flax: regular expressions, one by one
    landmarks: tuple[str, ...]  # entries of all networks of this format
    # Fields of the network, as a state dict tells them.
    tell: Callable[[Mapping[str, np.ndarray]], dict[str, Any]]
    # What others call a part, and what `renames` calls it.
    aliases: tuple[tuple[str, str], ...] = ()
    # Dense layers that see a flattened image. PyTorch flattens it channels first.
    flattened: tuple[str, ...] = ()


# ---- names --------------------------------------------------------------------------

_BLOCKS = (
    (r"^stem\.", ""),
    (r"^stage(\d)\.block(\d+)\.", r"layer\1.block\2."),
    (r"(^|\.)conv(\d)\.norm\.", r"\1bn\2."),
    (r"(^|\.)conv(\d)\.conv\.", r"\1conv\2."),
)
_CIFAR = (
    *_BLOCKS,
    (r"shortcut\.conv\.", "shortcut.0."),
    (r"shortcut\.norm\.", "shortcut.1."),
    (r"^logits\.", "linear."),
)
_SHORTCUT = (
    (r"shortcut\.conv\.", "downsample.0."),
    (r"shortcut\.norm\.", "downsample.1."),
)
_IMAGENET = (*_BLOCKS, *_SHORTCUT, (r"^logits\.", "fc."))
_FACE = (
    *_BLOCKS,
    *_SHORTCUT,
    (r"^embedding\.conv\.conv\.", "conv_last.0."),
    (r"^embedding\.conv\.norm\.", "conv_last.1."),
    (r"^embedding\.norm1\.", "output_layer.0."),
    (r"^embedding\.dense\.", "output_layer.3."),
    (r"^embedding\.norm2\.", "output_layer.4."),
    (r"^", "backbone."),
    (r"^backbone\.logits\.weight", "head.kernel"),
)
_WIDE = (
    (r"^stem\.", "conv1."),
    (r"^last\.norm\.", "bn1."),
    (r"^stage(\d)\.(block\d+)\.", r"block\1.layer.\2."),
    (r"\.norm(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.", ".convShortcut."),
    (r"^logits\.", "fc."),
)
_LENET = (
    (r"\.(Conv|Dense)_0\.", "."),
    (r"^logits\.", "fc2."),
)
_RESNET_LANDMARKS = (
    *("conv1.weight", "bn1.weight"),
    *("layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer3.0.conv1.weight"),
)


# ---- what a file tells --------------------------------------------------------------


def _size(state, name: str, axis: int = 0) -> int | None:
    if name in state and state[name].size and state[name].ndim > axis:
        return state[name].shape[axis]
    return None


def _known(**fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _tell_size(state, *, last: str, axis: int = 0, first: str = "") -> dict[str, Any]:
    """The width and the number of classes."""
    return _known(width=_size(state, first), num_classes=_size(state, last, axis))


def _count(state, pattern: str) -> int:
    """How many numbers an entry has in place of the pattern's group."""
    found = (re.fullmatch(pattern, name) for name in state)
    return len({match[1] for match in found if match})


def _tell_narrow(state) -> dict[str, Any]:
    """A ResNet of three stages, whose shortcuts may have weights."""
    told = _tell_size(state, first="conv1.weight", last="linear.weight")
    convolved = any(".shortcut." in name for name in state)
    return told | {"shortcut": "conv" if convolved else "pad"}


def _tell_resnet(state, *, last: str) -> dict[str, Any]:
    """Depth, width, groups and the sort of block."""
    told = _tell_size(state, first="conv1.weight", last=last)
    stages = 4 if _count(state, r"layer(4)\..*") else 3
    sizes = tuple(
        max(1, _count(state, rf"layer{i + 1}\.(\d+)\.conv1\.weight"))
        for i in range(stages)
    )
    if sum(sizes) > MOST_BLOCKS:
        sizes = (1,) * stages
    told |= {"stage_sizes": sizes, "bottleneck": "layer1.0.conv3.weight" in state}
    if told["bottleneck"] and "width" in told:
        inner = _size(state, "layer1.0.conv2.weight")
        group = _size(state, "layer1.0.conv2.weight", 1)
        if inner and group and inner % group == 0:
            told["groups"] = inner // group
            told["group_width"] = -(-group * 64 // told["width"])
    if last == "linear.weight" and not told["bottleneck"] and stages == 3:
        told |= _tell_narrow(state)
    return told


def _tell_wide(state, *, depth: bool) -> dict[str, Any]:
    told = _tell_size(state, first="conv1.weight", last="fc.weight")
    if depth:
        sizes = tuple(
            max(1, _count(state, rf"block{i}\.layer\.(\d+)\.conv1\.weight"))
            for i in (1, 2, 3)
        )
        told["stage_sizes"] = sizes if sum(sizes) <= MOST_BLOCKS else (1, 1, 1)
        wide = _size(state, "block1.layer.0.conv1.weight") or 1
        told["widen"] = max(1, wide // told.get("width", wide))
    return told


# ---- formats ------------------------------------------------------------------------


def _cifar(build, tell=None) -> Format:
    tell = tell or partial(_tell_size, first="conv1.weight", last="linear.weight")
    # The second names are those of OpenOOD, and of torchvision with another stem.
    aliases = (("downsample", "shortcut"), ("fc", "linear"))
    return Format(build, 32, _CIFAR, _RESNET_LANDMARKS, tell, aliases)


def _imagenet(build, tell=None) -> Format:
    tell = tell or partial(_tell_size, first="conv1.weight", last="fc.weight")
    return Format(build, 224, _IMAGENET, _RESNET_LANDMARKS, tell)


def _wide(build, depth: bool) -> Format:
    landmarks = ("conv1.weight", *(f"block{i}.layer.0.conv1.weight" for i in (1, 2, 3)))
    return Format(build, 32, _WIDE, landmarks, partial(_tell_wide, depth=depth))


FORMATS = {
    "lenet": Format(
        models.LeNet,
        28,
        _LENET,
        ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"),
        partial(_tell_size, first="conv1.weight", last="fc2.weight"),
        flattened=("fc1.weight",),
    ),
    # Of any depth: as the file has it.
    "cifar_resnet": _cifar(
        models.cifar_resnet, partial(_tell_resnet, last="linear.weight")
    ),
    "cifar_resnet18": _cifar(models.cifar_resnet18),
    "cifar_resnet34": _cifar(models.cifar_resnet34),
    "cifar_resnet50": _cifar(models.cifar_resnet50),
    "cifar_resnet101": _cifar(models.cifar_resnet101),
    "cifar_resnet152": _cifar(models.cifar_resnet152),
    "cifar_resnet20": _cifar(models.cifar_resnet20, _tell_narrow),
    "cifar_resnet32": _cifar(models.cifar_resnet32, _tell_narrow),
    "cifar_resnet44": _cifar(models.cifar_resnet44, _tell_narrow),
    "cifar_resnet56": _cifar(models.cifar_resnet56, _tell_narrow),
    "cifar_resnet110": _cifar(models.cifar_resnet110, _tell_narrow),
    "wrn": _wide(models.WideResNet, depth=True),
    "wrn28_10": _wide(models.wrn28_10, depth=False),
    "wrn40_2": _wide(models.wrn40_2, depth=False),
    "resnet": _imagenet(models.ResNet, partial(_tell_resnet, last="fc.weight")),
    "resnet18": _imagenet(models.resnet18),
    "resnet34": _imagenet(models.resnet34),
    "resnet50": _imagenet(models.resnet50),
    "resnet101": _imagenet(models.resnet101),
    "resnet152": _imagenet(models.resnet152),
    "wide_resnet50_2": _imagenet(models.wide_resnet50_2),
    "wide_resnet101_2": _imagenet(models.wide_resnet101_2),
    "resnext50": _imagenet(models.resnext50),
    "resnext50_32x4d": _imagenet(models.resnext50),
    "resnext101_32x8d": _imagenet(models.resnext101_32x8d),
    "resnext101_64x4d": _imagenet(models.resnext101_64x4d),
    "face_resnext50": Format(
        models.face_resnext50,
        112,
        _FACE,
        (*(f"backbone.{name}" for name in _RESNET_LANDMARKS), "head.kernel"),
        partial(_tell_size, first="backbone.conv1.weight", last="head.kernel", axis=1),
        flattened=("backbone.output_layer.3.weight",),
    ),
}
# Those that hold all others, which a file may turn out to be.
KINDS = ("lenet", "cifar_resnet", "wrn", "resnet", "face_resnext50")


# ---- entries ------------------------------------------------------------------------


class Entry(NamedTuple):
    name: str  # in the state dict
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]


def wanted(format: Format, network) -> dict[tuple, Entry]:
    """PyTorch's entry for each of the network's arrays."""
    try:
        shapes = _shapes(network, format.side)
    except TypeError:  # a field that cannot be hashed, such as an array
        shapes = _shapes.__wrapped__(network, format.side)
    return {key: _entry(format, shapes, key) for key in shapes}


@lru_cache(maxsize=64)
def _shapes(network, side: int) -> dict[tuple, tuple[int, ...]]:
    """Of the network's arrays; kept, because a deep network takes long to trace."""
    image = np.zeros((1, side, side, len(network.mean)), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    leaves: dict[tuple, Any] = flatten_dict(variables)  # pyright: ignore[reportAssignmentType]
    return {key: leaf.shape for key, leaf in leaves.items()}


def fields_of(format: Format, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a network with such variables, as its state dict would tell them."""
    leaves: dict[tuple, Any] = flatten_dict(variables)  # pyright: ignore[reportAssignmentType, reportArgumentType]
    # Of another network there may be what has no name here.
    shapes = {k: np.shape(a) for k, a in leaves.items() if k[-1] in _LEAVES}
    names = ((_name(format, key), shapes[key]) for key in shapes)
    return format.tell({k: np.broadcast_to(0.0, _turned(k, s)) for k, s in names})


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias",
           "mean": "running_mean", "var": "running_var"}  # fmt: skip


def _name(format: Format, key: tuple) -> str:
    name = ".".join((*key[1:-1], _LEAVES[key[-1]]))
    for pattern, new in format.renames:
        name = re.sub(pattern, new, name)
    # Blocks are counted from 0: "layer1.block2", or "block1.layer.block2".
    return re.sub(r"(layer\d?\.)block(\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}", name)


def _turned(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of PyTorch's array, from that of ours."""
    if len(shape) == 4:  # height, width, in, out
        return tuple(shape[i] for i in (3, 2, 0, 1))
    return shape[::-1] if len(shape) == 2 and name != "head.kernel" else shape


def _entry(format: Format, shapes, key) -> Entry:
    name, shape = _name(format, key), shapes[key]
    turned = _turned(name, shape)
    if len(shape) == 4:
        return Entry(name, turned, _convolution)
    if name in format.flattened:
        channels = _channels_before(shapes, key)
        return Entry(name, turned, lambda w: _after_flatten(w, channels))
    if len(shape) == 2 and name != "head.kernel":
        return Entry(name, turned, np.transpose)
    return Entry(name, shape, lambda a: a)


def _convolution(w: np.ndarray) -> np.ndarray:
    return w.transpose(2, 3, 1, 0)


def _channels_before(shapes, key) -> int:
    """Of the image that a dense layer sees flattened: LeNet's conv2, or the face's."""
    before = ("conv2", "Conv_0") if key[1] == "fc1" else ("embedding", "conv", "conv")
    return shapes["params", *before, "kernel"][-1]


def _after_flatten(w: np.ndarray, channels: int) -> np.ndarray:
    """[out, channel · height · width] → [height · width · channel, out]."""
    out, size = w.shape
    w = w.reshape(out, channels, size // channels)
    return w.transpose(2, 1, 0).reshape(size, out)
