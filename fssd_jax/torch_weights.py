"""Weights of PyTorch networks, for the Flax networks of `fssd_jax.models`.

    model, variables = load(
        "resnet34.pth", "cifar_resnet34",
        mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010),
    )

Every entry of the file must be used, and every weight of the network must be in the
file: a state dict that fits only partly is an error that lists what does not.
"""

import io
import math
import mmap
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fssd_jax import models
from fssd_jax.bounded import check_size
from fssd_jax.checks import InputError
from fssd_jax.extras import MissingExtraError, command
from fssd_jax.features import Variables

# What training scripts call the state dict, when they save more than that.
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
# And what wrappers put before all names: torch.compile, DataParallel, Lightning.
WRAPPERS = ("_orig_mod.", "module.", "model.")
SHOWN = 12  # names in an error, of each kind
# Of what `weights_only` lets a pickle call: with a number, or over and over on its own
# result, these make much of few bytes.
FILLERS = re.compile(r"bytearray$|encode$|Tensor$")
DEPTH = 30  # dicts in dicts; module names have dots of their own


class Format(NamedTuple):
    """A network of `fssd_jax.models`, and PyTorch's names for its parts."""

    build: Callable[..., nn.Module]
    side: int  # height and width of its images
    renames: tuple[tuple[str, str], ...]  # regular expressions, applied one by one
    classes: tuple[str, int]  # an entry, and its axis of classes
    width: str | None  # entry whose first axis is the network's width, if that varies
    # Dense layers that see a flattened image. PyTorch flattens it channels first.
    flattened: tuple[str, ...] = ()


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
_LENET = (
    (r"\.(Conv|Dense)_0\.", "."),
    (r"^logits\.", "fc2."),
)


def _cifar(build) -> Format:
    return Format(build, 32, _CIFAR, ("linear.weight", 0), "conv1.weight")


def _imagenet(build) -> Format:
    return Format(build, 224, _IMAGENET, ("fc.weight", 0), "conv1.weight")


FORMATS = {
    "lenet": Format(models.LeNet, 28, _LENET, ("fc2.weight", 0), None, ("fc1.weight",)),
    "cifar_resnet18": _cifar(models.cifar_resnet18),
    "cifar_resnet34": _cifar(models.cifar_resnet34),
    "cifar_resnet50": _cifar(models.cifar_resnet50),
    "resnet34": _imagenet(models.resnet34),
    "resnext50": _imagenet(models.resnext50),
    "face_resnext50": Format(
        models.face_resnext50,
        112,
        _FACE,
        ("head.kernel", 1),
        "backbone.conv1.weight",
        ("backbone.output_layer.3.weight",),
    ),
}


def load(
    path: str | Path,
    model: str,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    **options: Any,
) -> tuple[nn.Module, Variables]:
    """A Flax network with the weights of a PyTorch state dict.

    The number of classes and the width are those of the file.

    Args:
      path: .safetensors, or .pt/.pth (read with `weights_only=True`, and only where
        PyTorch is installed). Checkpoints that hold the state dict under "state_dict",
        "model_state_dict", "model" or "net" are looked into; "module.", "_orig_mod."
        or "model." before all names is dropped.
      model: "lenet" (the released one), "cifar_resnet18", "cifar_resnet34",
        "cifar_resnet50" (github.com/kuangliu/pytorch-cifar and the released code),
        "resnet34", "resnext50" (torchvision), "face_resnext50" (the released one).
      mean: by which the images were normalised when the network was trained, for each
        channel, of images in [0, 1]. Nothing in the file tells.
      std: likewise.
      **options: other fields of the Flax model, such as `dtype`.

    Returns:
      The model and its variables, float32.

    Raises:
      InputError: no such file or model; entries that are missing, surplus or of
        another shape, all listed; weights that are not finite.
    """
    if model not in FORMATS:
        raise InputError(f"unknown model {model!r}; choose from {sorted(FORMATS)}")
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise InputError(
            f"mean {mean} and std {std}: expected those of pixels in [0, 1]; constants "
            "for 0 to 255 are to be divided by 255"
        )
    format, state = FORMATS[model], read(path)
    last, axis = format.classes
    if last in state:
        options = {"num_classes": state[last].shape[axis], **options}
    if format.width in state:
        options = {"width": len(state[format.width]), **options}
    network = format.build(mean=tuple(mean), std=tuple(std), **options)
    wanted = _wanted(format, network)
    _check(path, model, state, {e.name: e.shape for e in wanted.values()})
    leaves = {}
    for key, entry in wanted.items():
        if not np.isfinite(state[entry.name]).all():
            raise InputError(f"{path}: {entry.name} holds NaN or infinite values")
        leaves[key] = jnp.asarray(entry.convert(state[entry.name]))
    return network, unflatten_dict(leaves)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """A state dict's floating-point entries, as float32.

    Raises:
      InputError: it cannot be read; the message says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        found: Mapping = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".tar"):
        found = _read_torch(path)
    else:
        raise InputError(f"{path}: expected .safetensors, .pt or .pth")
    for name in CONTAINERS:
        if isinstance(found.get(name), Mapping):
            found = found[name]
            break
    state = _flat(path, found)
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): v for name, v in state.items()}
    # Beside weights there are counters, and in checkpoints settings.
    arrays = {
        name: value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked") and _is_floating(value)
    }
    # A tensor's strides may make much of few bytes.
    unpacked = sum(4 * math.prod(value.shape) for value in arrays.values())
    check_size(path, path.stat().st_size, unpacked)
    arrays = {name: _array(path, name, value) for name, value in arrays.items()}
    if not arrays:
        raise InputError(f"{path}: holds no state dict, but {sorted(state)[:SHOWN]}")
    return arrays


def _read_safetensors(path: Path) -> Mapping:
    from safetensors.flax import load_file

    try:
        return load_file(path)
    except Exception as error:  # its own, and those of what it makes of the header
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error


def _read_torch(path: Path) -> Mapping:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading it needs PyTorch: {command('torch')}; or turn it into "
            "safetensors where PyTorch is: safetensors.torch.save_file(state, path)"
        ) from error
    try:
        _check_pickles(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # pickle, zipfile and PyTorch raise a dozen kinds
        raise InputError(
            f"{path}: cannot be read as weights only ({type(error).__name__}). A whole "
            "module that was pickled would run its own code: where it came from, save "
            "torch.save(network.state_dict(), path)"
        ) from error
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a state dict")
    return found


def _check_pickles(path: Path) -> None:
    """`weights_only` runs no foreign code, but calls what may be told to fill memory.

    A state dict has it call nothing like that.
    """
    pickles: list[Any]  # an mmap is no file to the types
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                unpacked = sum(entry.file_size for entry in entries)
                check_size(path, path.stat().st_size, unpacked)
                named = [e for e in entries if e.filename.lower().endswith(".pkl")]
                pickles = [io.BytesIO(archive.read(e)) for e in named]
        else:  # before PyTorch 1.6: magic number, version, machine, state dict, keys
            # In memory: a file would set aside as much as a pickle says will come.
            pickles = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)] * 5
        for each in pickles:
            for opcode, argument, _ in pickletools.genops(each):
                if opcode.name == "GLOBAL" and FILLERS.search(str(argument)):
                    raise InputError(
                        f"{path}: makes a {str(argument).split()[-1]}, which no state "
                        "dict holds; save network.state_dict() alone"
                    )


def _flat(path: Path, tree: Mapping) -> dict[str, Any]:
    """What dicts in dicts hold, by their keys joined; none of them may recur."""
    flat, seen = {}, set()
    waiting = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        if id(node) in seen or prefix.count(".") > DEPTH:
            raise InputError(
                f"{path}: {prefix!r} is a dict that stands there twice, or in more "
                f"than {DEPTH} others; save network.state_dict() alone"
            )
        seen.add(id(node))
        for key, value in node.items():
            if not isinstance(key, str | int):
                raise InputError(f"{path}: a {type(key).__name__} in place of a name")
            if isinstance(value, Mapping):
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat


def _is_floating(value) -> bool:
    if hasattr(value, "is_floating_point"):
        return value.is_floating_point()
    is_array = isinstance(value, np.ndarray | jax.Array)
    return is_array and jnp.issubdtype(value.dtype, jnp.floating)


def _array(path: Path, name: str, value) -> np.ndarray:
    """NumPy's float32 of either library's floats."""
    try:
        if hasattr(value, "is_floating_point"):
            value = value.detach().float().numpy()
        return np.asarray(value, np.float32)
    except Exception as error:  # of a sparse tensor, one without memory, …
        raise InputError(
            f"{path}: {name} is no dense array of numbers ({type(error).__name__}); "
            "save network.state_dict() of a network in memory"
        ) from error


class Entry(NamedTuple):
    name: str  # in the state dict
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]


def _wanted(format: Format, network) -> dict[tuple, Entry]:
    """PyTorch's entry for each of the network's arrays."""
    image = np.zeros((1, format.side, format.side, len(network.mean)), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    leaves: dict[tuple, Any] = flatten_dict(variables)  # pyright: ignore[reportAssignmentType]
    shapes = {key: leaf.shape for key, leaf in leaves.items()}
    return {key: _entry(format, shapes, key) for key in shapes}


_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias",
           "mean": "running_mean", "var": "running_var"}  # fmt: skip


def _entry(format: Format, shapes, key) -> Entry:
    name = ".".join((*key[1:-1], _LEAVES[key[-1]]))
    for pattern, new in format.renames:
        name = re.sub(pattern, new, name)
    # Blocks are counted from 0.
    name = re.sub(r"block(\d+)", lambda m: str(int(m[1]) - 1), name)
    shape = shapes[key]
    if len(shape) == 4:  # height, width, in, out
        return Entry(name, tuple(shape[i] for i in (3, 2, 0, 1)), _convolution)
    if name in format.flattened:
        channels = _channels_before(shapes, key)
        return Entry(name, shape[::-1], lambda w: _after_flatten(w, channels))
    if len(shape) == 2 and name != "head.kernel":
        return Entry(name, shape[::-1], np.transpose)
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


def _check(path, model: str, state, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise an `InputError` that lists all that does not fit."""
    shapes = {
        f"{name} {state[name].shape}, expected {shape}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    }
    wrong = {
        "missing": wanted.keys() - state.keys(),
        "surplus": state.keys() - wanted.keys(),
        "of another shape": shapes,
    }
    if not any(wrong.values()):
        return
    lines = [
        f"{kind} ({len(names)}): {', '.join(sorted(names)[:SHOWN])}"
        + (f", … and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for kind, names in wrong.items()
        if names
    ]
    others = [name for name in FORMATS if name != model and _fits(name, state)]
    hint = f"; its names are those of {', '.join(others)}" if others else ""
    raise InputError(f"{path} does not fit {model}{hint}\n  " + "\n  ".join(lines))


def _fits(model: str, state) -> bool:
    format = FORMATS[model]
    names = {entry.name for entry in _wanted(format, format.build()).values()}
    return names == state.keys()
