"""What `torch.save` wrote, read by PyTorch; nothing in it is run."""

import io
import mmap
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fssd_jax.bounded import check_size
from fssd_jax.checks import InputError
from fssd_jax.extras import MissingExtraError, command

SHOWN = 12  # names in an error, of each kind
SHORT = 100  # characters of a name that a pickle says
NESTED = (Mapping, list, tuple)
# Of what `weights_only` lets a pickle call: with a number, or over and over on its own
# result, these make much of few bytes.
FILLERS = re.compile(r"bytearray$|encode$|Tensor$")
# The number that begins a file of PyTorch before 1.6, as pickle writes it.
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"
# Classes that hold settings, and whose unpickling sets attributes and does no more.
SETTINGS = {"argparse.Namespace", "types.SimpleNamespace"}
RESAVE = "where it came from, save torch.save(network.state_dict(), path)"


def read_pickled(path: Path, zipped: bool) -> Mapping | list | tuple:
    """What the file holds, read with `weights_only=True`.

    Args:
      path: a file that begins as those of `torch.save` do.
      zipped: whether it is a zip archive, as since PyTorch 1.6.

    Raises:
      InputError: PyTorch is missing or refuses it, or it is no dict or list, cut off,
        damaged, or made to fill memory.
    """
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
        raise MissingExtraError(
            f"{path}: reading it needs PyTorch: {command('torch')}; or turn it into "
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
            f"{path}: cannot be read as weights only: it {holds}{makes}, which no "
            f"state dict holds; {_trusted(path)}"
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
