"""A fitted detector in one file, to be used with the network that it was fitted on.

The file is an .npz without pickle. `fssd_jax_detector` is JSON: version, method and
config, the state's structure, names, shapes and digest of the weights. `arr_0`, … are
the state's arrays in the order of that structure. The last 64 bytes, a comment of the
zip format, are the SHA-256 of all before them: it tells damage, and signs nothing.
"""

import hashlib
import io
import json
import os
import pkgutil
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import fssd_jax
from fssd_jax import detectors, encoded
from fssd_jax.bounded import read_arrays
from fssd_jax.checks import InputError
from fssd_jax.data.image_files import located
from fssd_jax.outputs import Variables
from fssd_jax.shown import brief

FORMAT = "fssd_jax_detector"
VERSION = 1  # of the format
# What the header must hold, beside its version.
HEADER = {
    "package": str,
    "method": str,
    "config": dict,
    "state": dict,
    "weights": dict,
    "sha256": str,
}


class Fitted(NamedTuple):
    """A fitted detector, and what must be known to use it again."""

    method: str  # a module of fssd_jax.detectors
    # JSON data. By convention `mean` and `std`, the normalisation, which a model holds
    # as attributes and not among its variables, and `threshold`, if one was chosen.
    config: dict[str, Any]
    state: Any  # what the method's `fit` returned

    __repr__ = brief


def save(path: str | os.PathLike, fitted: Fitted, variables: Variables) -> None:
    """Write a fitted detector to the one file `path`, all or nothing.

    Args:
      path: the file, by custom .npz; one that is there is replaced.
      fitted: its state may hold NamedTuples of this package, dicts, OrderedDicts,
        tuples, lists, None, Python numbers and arrays, PRNG keys too.
      variables: the variables of the network that it was fitted on. Only their names,
        shapes and digest are kept.

    Raises:
      InputError: an unknown method, a config that is not JSON, something else in the
        state, or a file that cannot be written.
    """
    config = _plain(fitted.config, "config")
    if not isinstance(config, dict):
        raise InputError(f"config: expected a dict, got {config!r}; give {{}} for none")
    arrays: list[np.ndarray] = []
    header = {
        "format": FORMAT,
        "version": VERSION,
        "package": fssd_jax.__version__,
        "method": _known(fitted.method, "method"),
        "config": config,
        "state": encoded.encode(fitted.state, "state", arrays),
        **_describe_network(variables, config),
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, allow_pickle=False, **{FORMAT: text})
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * 64  # where the digest goes
    content = buffer.getvalue()[:-64]
    _write(located(path), content + hashlib.sha256(content).hexdigest().encode())


def load(path: str | os.PathLike, variables: Variables, **expected) -> Fitted:
    """Read what `save` wrote, if it belongs to this network.

    Args:
      path: the file.
      variables: the variables of the network that it is to be used with.
      **expected: what the config must hold: `mean=model.mean, std=model.std`. Tuples
        and lists are equal; the config comes back with lists. `layers=[...]` is
        compared, in any order, with the keys of the state's first OrderedDict, or if
        it has none, with the config's.

    Returns:
      The same method, config and state. Its arrays are JAX arrays of the same dtype,
      and its scores equal to the last bit.

    Raises:
      InputError: no such file, not one of `save`, damaged, of a newer format, or
        fitted on other weights, normalisation or layers.
    """
    header, arrays = _read(located(path))
    _known(header["method"], f"{path}: method")
    _check_network(path, header, variables)
    try:
        of = f"{path}, of {header['package']}"
        state = encoded.decode(header["state"], iter(arrays), of)
    except InputError:
        raise
    except Exception as error:  # a digest that is right does not say who wrote it
        raise InputError(
            f"{path}: its header describes no state ({type(error).__name__}: {error}); "
            "fit and save again"
        ) from error
    _check_expected(path, header["config"], state, expected)
    return Fitted(header["method"], header["config"], state)


def _known(method: str, name: str) -> str:
    methods = [module.name for module in pkgutil.iter_modules(detectors.__path__)]
    if method not in methods:
        raise InputError(
            f"{name}: {method!r} is none of {methods}; choose one, or update fssd_jax"
        )
    return method


def _plain(value, name: str):
    """`value` as JSON gives it back: tuples become lists, keys strings."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: not JSON data ({error}); give None, booleans, finite numbers, "
            "strings, lists and dicts (an array: .tolist())"
        ) from error


def _describe_network(variables: Variables, config: dict[str, Any]) -> dict[str, Any]:
    """Dtype and shape of each array by its path, and a digest with the values too."""
    specs, digest = {}, hashlib.sha256()
    leaves = jax.tree.leaves_with_path(variables)
    named = {f"variables{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
    for name in sorted(named):
        array = encoded.to_numpy(named[name], name)
        specs[name] = f"{array.dtype.name}{list(array.shape)}"
        digest.update(f"{name} {specs[name]}\n".encode() + array.tobytes())
    digest.update(json.dumps([config.get("mean"), config.get("std")]).encode())
    return {"weights": specs, "sha256": digest.hexdigest()}


def _check_network(path, header: dict[str, Any], variables: Variables) -> None:
    given = _describe_network(variables, header["config"])
    was, now = header["weights"], given["weights"]
    what = [
        f"{name}: {was.get(name, 'none')} then, {now.get(name, 'none')} now"
        for name in sorted({**was, **now})
        if was.get(name) != now.get(name)
    ]
    if what or given["sha256"] != header["sha256"]:
        raise InputError(
            f"{path}: it was fitted on other weights "
            f"({[*what, 'of the same shapes: only the values differ'][0]}); load the "
            "weights that it was fitted on, or fit again"
        )


def _check_expected(path, config: dict[str, Any], state, expected: dict) -> None:
    for name, value in expected.items():
        given, saved = _plain(value, name), config.get(name, "nothing")
        if name == "layers":
            is_dict = lambda node: isinstance(node, OrderedDict)  # noqa: E731
            dicts = filter(is_dict, jax.tree.leaves(state, is_leaf=is_dict))
            saved = sorted(next(dicts, config.get(name, ())))
            given = sorted(given or ())
        if given != saved or name not in {*config, "layers"}:
            raise InputError(
                f"{path}: it was fitted with {name} {saved}, expected {given}; use it "
                "with the network that it was fitted on, or fit again"
            )


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays, all bytes checked."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a file of fssd_jax.save"
        ) from error
    if hashlib.sha256(content[:-64]).hexdigest().encode() != content[-64:]:
        ours = f"{FORMAT}.npy".encode() in content
        raise InputError(
            f"{path}: expected a file that fssd_jax.save wrote, but it is "
            f"{'damaged or cut off' if ours else 'something else'}; copy it again, or "
            "fit and save again"
        )
    entries = read_arrays(path, "fit and save again", content)
    try:
        header = json.loads(entries.pop(FORMAT).tobytes())
        if header["version"] > VERSION:
            raise InputError(
                f"{path}: format version {header['version']}, of fssd_jax "
                f"{header['package']}; expected {VERSION}; update fssd_jax"
            )
        for key, kind in HEADER.items():
            if not isinstance(header[key], kind):
                raise ValueError(f"{key} is {header[key]!r}")
        return header, [entries[f"arr_{i}"] for i in range(len(entries))]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: no header of fssd_jax.save ({type(error).__name__}: {error}); "
            "fit and save again"
        ) from error


def _write(path: Path, content: bytes) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            unfinished.write_bytes(content)
            unfinished.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a file in a folder "
            "that exists and that you may write to"
        ) from error
