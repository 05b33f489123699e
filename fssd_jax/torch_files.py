"""Files of PyTorch's and of safetensors, as arrays by name; nothing in them is run.

What a file is, its content tells and not its ending: .pth, .pt, .th, .t7, .pkl, .bin,
.ckpt, .tar, .model, or none.
"""

import io
import math
import mmap
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax.bounded import check_size
from fssd_jax.checks import InputError

SHOWN = 12  # names in an error, of each kind
SHORT = 100  # characters of a name that a pickle says
# Of what `weights_only` lets a pickle call: with a number, or over and over on its own
# result, these make much of few bytes.
FILLERS = re.compile(r"bytearray$|encode$|Tensor$")
DEPTH = 30  # dicts in dicts; module names have dots of their own
NESTED = (Mapping, list, tuple)
# The number that begins a file of PyTorch before 1.6, as pickle writes it.
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"
# Classes that hold settings, and whose unpickling sets attributes and does no more.
SETTINGS = {"argparse.Namespace", "types.SimpleNamespace"}
RESAVE = "where it came from, save torch.save(network.state_dict(), path)"

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
    path = Path(path)
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
        return _read_torch(path, zipped=head.startswith(b"PK"))
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


def _read_torch(path: Path, zipped: bool) -> Mapping | list | tuple:
    names: list[str] = []
    try:
        pickles = _zipped(path) if zipped else _legacy(path)
        names += _called(pickles)
        _check_calls(path, names)
        import torch  # pyright: ignore[reportMissingImports]

        # Opened, as it would read a path by its ending. It warns of what it refuses.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs PyTorch: pip install torch; or turn it into "
            "safetensors where PyTorch is: safetensors.torch.save_file(state, path)"
        ) from error
    except Exception as error:  # pickle, zipfile and PyTorch raise a dozen kinds
        raise InputError(f"{path}: {_refused(path, names, error)}") from error
    if not isinstance(found, NESTED):
        raise InputError(
            f"{path}: holds a {type(found).__name__}, not a state dict: {RESAVE}"
        )
    return found


def _zipped(path: Path) -> list[Any]:
    """The pickles of what `torch.save` writes since PyTorch 1.6."""
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: is cut off: it begins as torch.save's files do, and has no "
            f"directory at its end ({path.stat().st_size} bytes); copy or download it "
            "again"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        check_size(path, path.stat().st_size, unpacked)
        names = [entry.filename for entry in entries]
        if any(name.endswith("/constants.pkl") for name in names):
            raise InputError(
                f"{path}: is a program (TorchScript), which is not run: {RESAVE}; of "
                "a program that you trust, network = torch.jit.load(path)"
            )
        if not any(re.fullmatch("([^/]+/)?data.pkl", name) for name in names):
            raise InputError(
                f"{path}: is a zip archive that torch.save did not write, with "
                f"{sorted(names)[:SHOWN]}; if a file of weights is in it, unpack it"
            )
        return [
            io.BytesIO(archive.read(entry))
            for entry in entries
            if entry.filename.lower().endswith(".pkl")
        ]


def _legacy(path: Path) -> list[Any]:
    """Magic number, version, machine, state dict, and keys, one after another."""
    with path.open("rb") as file:
        # In memory: a file would set aside as much as a pickle says will come.
        return [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)] * 5


def _called(pickles: Iterable) -> list[str]:
    """The classes and functions that pickles name."""
    return [
        str(argument).replace(" ", ".")
        for each in pickles
        for opcode, argument, _ in pickletools.genops(each)
        if opcode.name == "GLOBAL"
    ]


def _check_calls(path: Path, names: list[str]) -> None:
    """`weights_only` runs no foreign code, but calls what may be told to fill memory.

    A state dict has it call nothing like that.
    """
    for name in names:
        if not FILLERS.search(name):
            continue
        short = name.split(".")[-1][:SHORT]
        makes = f"calls {name}" if short == "encode" else f"makes a {short}"
        numbers = [n[:SHORT] for n in names if n.startswith("numpy.")]
        holds = f"holds NumPy's numbers ({numbers[0]}), and so " if numbers else ""
        raise InputError(
            f"{path}: cannot be read as weights only: it {holds}{makes}, which no state "
            f"dict holds; {_trusted(path)}"
        )


def _trusted(path: Path) -> str:
    return (
        f"{RESAVE}; or, if you trust it, as this runs what it holds, take the state "
        f"dict out of found = torch.load({str(path)!r}, weights_only=False) and save it"
    )


def _refused(path: Path, names: list[str], error: Exception) -> str:
    """Why PyTorch, or a look at the pickles, refused a file, and what to do."""
    said = str(error).strip()
    found = re.search(r"WeightsUnpickler error:\s*(.+)", said)
    if not found:
        line = said.splitlines()[0][:200] if said else ""
        return (
            f"cannot be read as weights only ({type(error).__name__}: {line}): cut off "
            f"or damaged; copy or download it again, or {RESAVE}"
        )
    refused = re.search(r"GLOBAL (\S+)", found[1])
    if not refused:
        return f"cannot be read as weights only: {found[1][:200]}; {_trusted(path)}"
    name = refused[1][:SHORT]
    if any(name.startswith("torch.nn.modules.") for name in names):
        return (
            "cannot be read as weights only: it holds a whole module that was pickled "
            f"({name}), and would run its own code: {RESAVE}"
        )
    if name in SETTINGS:
        return (
            f"cannot be read as weights only: it holds {name}, which PyTorch refuses "
            f"unless told otherwise: import torch and {name.split('.')[0]}, call torch."
            f"serialization.add_safe_globals([{name}]), and load it again. Or "
            f"{_trusted(path)}"
        )
    return f"cannot be read as weights only: it asks for {name}; {_trusted(path)}"


def _flat(path: Path, tree: Mapping | list | tuple) -> dict[str, Any]:
    """What dicts and lists in dicts hold, by their keys joined; none may recur."""
    flat, seen = {}, set()
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        again = id(node) in seen
        if again and not any(
            _is_floating(v) or isinstance(v, NESTED) for _, v in pairs
        ):
            continue  # settings that two others share
        if again or prefix.count(".") > DEPTH:
            raise InputError(
                f"{path}: {prefix!r} is a dict or list that stands there twice, or in "
                f"more than {DEPTH} others; save network.state_dict() alone"
            )
        seen.add(id(node))
        for key, value in pairs:
            if not isinstance(key, str | int):
                continue  # names of weights are strings
            if isinstance(value, NESTED):
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return flat


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
