"""Files of PyTorch's and of safetensors, as arrays by name.

What a file is, its content tells and not its ending: .pth, .pt, .th, .t7, .pkl, .bin,
.ckpt, .tar, .model, or none.
"""

import bisect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax.bounded import check_size
from fssd_jax.checks import InputError
from fssd_jax.data.image_files import located
from fssd_jax.torch_pickle import LEGACY, NESTED, RESAVE, SHOWN, read_pickled

DEPTH = 30  # dicts in dicts; module names have dots of their own

# How other files begin, what they are, and what to do.
OTHERS = (
    (
        rb"version https://git-lfs",
        "is a pointer of Git LFS and not the file itself: run git lfs pull where it "
        "was cloned",
    ),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|!--)",
        "is a web page, which a download gave in place of the file: open its address "
        "in a browser to see why, and download the file itself",
    ),
    (
        rb'(?s)\s*\{.{0,4000}"weight_map"',
        "is the index of a network in several files: where it came from, save "
        "network.state_dict() in one",
    ),
    (rb"\s*[\[{]", "is JSON, or text like it, and no file of weights: give that"),
    (
        rb"\x89HDF\r\n\x1a\n",
        "is HDF5, as Keras writes it: only weights of PyTorch networks are read",
    ),
    (
        rb"model_checkpoint_path:",
        "is TensorFlow's list of checkpoints: only PyTorch's weights are read",
    ),
    (rb"\x93NUMPY", f"is an array of NumPy's (.npy), without names: {RESAVE}"),
    (rb"\x1f\x8b", "is compressed by gzip: unpack it by gunzip, or by tar -xzf"),
    (rb"BZh|\xfd7zXZ\x00|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "is compressed: unpack it"),
    (
        rb"(?s).{257}ustar",
        "is a tar archive: unpack it by tar -xf, and give what it held",
    ),
    (
        rb"\x80[\x00-\x05]",
        "is a pickle that torch.save did not write, or damaged at its start, and to "
        f"unpickle it might run what it holds: copy it again, or {RESAVE}",
    ),
)
# Files of TensorFlow's that begin like any other, by their names.
TENSORFLOW = re.compile(r"(\.data-\d{5}-of-\d{5}|\.ckpt.*\.(index|meta))$|^saved_model")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The floating-point arrays of a checkpoint, as float32, by the keys to them.

    Args:
      path: what `torch.save` or safetensors wrote. The former is read with
        `weights_only=True`, and only where PyTorch is installed.

    Returns:
      Arrays by names: keys of dicts in dicts and places in lists, joined by dots.

    Raises:
      InputError: it cannot be read; the message says what it is, and what to do.
    """
    path = located(path)
    state = _flat(path, _read(path))
    # Beside weights there are counters, and in checkpoints settings.
    arrays = {name: value for name, value in state.items() if _is_floating(value)}
    # A tensor's strides may make much of few bytes.
    unpacked = sum(4 * math.prod(value.shape) for value in arrays.values())
    check_size(path, path.stat().st_size, unpacked)
    arrays = {name: _array(path, name, value) for name, value in arrays.items()}
    if not arrays:
        raise InputError(f"{path}: holds no state dict, but {sorted(state)[:SHOWN]}")
    return arrays


def _read(path: Path) -> Mapping | list | tuple:
    """What the file holds, by what it begins with."""
    try:
        if path.is_dir():
            held = sorted(p.name for p in path.iterdir())[:SHOWN]
            raise InputError(
                f"{path}: is a folder, with {held}; give the file that torch.save or "
                "safetensors wrote"
            )
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head:
        raise InputError(f"{path}: is empty; copy or download it again")
    if head.startswith(b"PK\x03\x04") or LEGACY in head[:64]:  # as PyTorch itself asks
        return read_pickled(path, zipped=head.startswith(b"PK"))
    # The header's length in 8 bytes, and the header, in JSON.
    if head[4:9] == b"\0\0\0\0{":
        return _read_safetensors(path, int.from_bytes(head[:8], "little"))
    for start, told in OTHERS:
        if re.match(start, head):
            raise InputError(f"{path}: {told}")
    if TENSORFLOW.search(path.name):
        raise InputError(
            f"{path}: is named as TensorFlow's files are: only weights of PyTorch "
            "networks are read"
        )
    raise InputError(
        f"{path}: begins with {head[:8]!r}, as no file of torch.save or safetensors "
        f"does: damaged, or of another kind; copy it again, or {RESAVE}"
    )


def _read_safetensors(path: Path, header: int) -> Mapping:
    from safetensors.flax import load_file

    size = path.stat().st_size
    if 8 + header > size:
        raise InputError(
            f"{path}: not a whole safetensors file: cut off, its header alone has "
            f"{header} bytes and the file {size}; copy or download it again"
        )
    try:
        return load_file(path)
    except Exception as error:  # its own, and those of what it makes of the header
        raise InputError(
            f"{path}: not a whole safetensors file, cut off or damaged ({error}); "
            "copy or download it again"
        ) from error


def _flat(path: Path, tree: Mapping | list | tuple) -> dict[str, Any]:
    """What dicts and lists in dicts hold, by their keys joined.

    Settings may stand there twice, and even in themselves; not what holds arrays.
    """
    flat: dict[str, Any] = {}
    seen: dict[int, str] = {}  # where it stood first
    again: list[str] = []
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        if id(node) in seen:
            again.append(seen[id(node)])
            continue
        if prefix.count(".") > DEPTH:
            raise _twice(path, prefix)
        seen[id(node)] = prefix
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in pairs:
            if not isinstance(key, str | int):
                continue  # names of weights are strings
            if isinstance(value, NESTED):
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    arrays = sorted(name for name, value in flat.items() if _is_floating(value))
    for prefix in again:
        behind = bisect.bisect_left(arrays, prefix)
        if behind < len(arrays) and arrays[behind].startswith(prefix):
            raise _twice(path, prefix)
    return flat


def _twice(path: Path, prefix: str) -> InputError:
    return InputError(
        f"{path}: {prefix!r} is a dict or list that stands there twice, or in more "
        f"than {DEPTH} others; save network.state_dict() alone"
    )


def _is_floating(value) -> bool:
    if callable(getattr(value, "is_floating_point", None)):  # of a dtype a bool
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
