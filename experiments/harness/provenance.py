"""Where a number came from: code, versions, device, data."""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from fssd_jax import processes
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.sources import ArrayDataset, digest

ROOT = Path(__file__).parents[2]
OURS = ("fssd_jax", "analysis", "experiments", "benchmarks")
PACKAGES = (
    *("fssd-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn"),
    "neural-tangents",  # an extra
)


@cache
def code_digest(module: str, packages: bool = True) -> str:
    """Digest of the code that decides what a module computes: its import closure.

    Taken once: a file that is edited during a run is not the code that runs.
    """
    paths = import_closure(module, packages)
    return config_digest({name: bare_code(paths[name].read_text()) for name in paths})


def import_closure(module: str, packages: bool = True) -> dict[str, Path]:
    """This module and all of ours that it imports, directly or not: name → file.

    Read from the code, imports inside functions included. A package counts with what
    its `__init__.py` imports, because importing any module of it runs that file;
    unless `packages` is false, for what lives longer than a score: an `__init__.py`
    that only offers names decides nothing.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name in found or path is None:
            continue
        if path.name == "__init__.py" and not packages:
            continue
        found[name] = path
        reached = imported(path.read_text(), name)
        homes = [_home(other) for other in reached]
        waiting += [name.rpartition(".")[0], *reached, *filter(None, homes)]
    return dict(sorted(found.items()))


@cache
def imported(source: str, module: str = "") -> tuple[str, ...]:
    """Names of the modules, and of what may be one, that a source imports.

    `fssd_jax.evaluate` in its code counts as imported, because packages import what
    they offer when it is first used.
    """
    names: list[str] = []
    known: dict[str, str] = {}  # name in the source → what it stands for
    nodes = list(_run(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.append(alias.name)
                root = alias.name.partition(".")[0]
                known |= {alias.asname: alias.name} if alias.asname else {root: root}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module}: relative imports are not followed")
            whole = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            names += [f"{node.module}", *whole.values()]
            known |= whole
    chains = filter(None, (_chain(n) for n in nodes if isinstance(n, ast.Attribute)))
    used = [".".join([known[root], *rest]) for root, *rest in chains if root in known]
    return (*names, *used)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a source, less what only type checkers read."""
    yield node
    inner = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        inner = node.orelse
    for child in inner:
        yield from _run(child)


def _chain(node: ast.AST) -> list[str] | None:
    """["a", "b", "c"] of `a.b.c`; None of anything else, such as `a().b`."""
    if isinstance(node, ast.Name):
        return [node.id]
    if not isinstance(node, ast.Attribute):
        return None
    inner = _chain(node.value)
    return inner and [*inner, node.attr]


def _home(name: str) -> str | None:
    """The module of what one of our packages imports when it is first used."""
    package, _, attribute = name.rpartition(".")
    path = _source(package)
    if path is None or path.name != "__init__.py":
        return None
    return _offered(path.read_text()).get(attribute)


@cache
def _offered(source: str) -> dict[str, str]:
    """Name → module, of what an `__init__.py` imports for type checkers only."""
    tree = ast.parse(source)
    run = set(_run(tree))
    return {
        alias.name: f"{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node not in run
        for alias in node.names
    }


def _source(name: str) -> Path | None:
    """The file of a module of ours; None for a foreign one, or if it is no module."""
    if name.split(".")[0] not in OURS:
        return None
    stem = ROOT.joinpath(*name.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def bare_code(source: str) -> str:
    """Python without what cannot change a number: comments, docstrings, annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def config_digest(config: Any) -> str:
    """Eight hexadecimal digits that tell one configuration from another."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def training_digest(data: ArrayDataset) -> str:
    """Digest of the images really trained on, a part of the set perhaps."""
    if isinstance(data.x, Decoded):
        return data.x.digest(data.y)
    return digest(data.x, data.y)


def sources(
    sets: Sequence[ArrayDataset] | Mapping[str, ArrayDataset],
) -> dict[str, dict[str, str]]:
    """Where each set came from, and its digest, by name and split or a mapping."""
    if isinstance(sets, Mapping):
        return {name: _origin(data) for name, data in sets.items()}
    found: dict[str, dict[str, str]] = {}
    for data in sets:
        name, origin = f"{data.name}/{data.split}", _origin(data)
        if found.setdefault(name, origin) != origin:
            # Folders of one name, such as cifar10/test and svhn/test.
            found[f"{name}, {data.sha256[:8]}"] = origin
    return found


def _origin(data: ArrayDataset) -> dict[str, str]:
    where = "path" if Path(data.source).is_absolute() else "version"
    return {where: data.source, "sha256": data.sha256}


def versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device() -> str:
    devices = jax.devices()
    if processes.begun():  # of any number, which may change before a run goes on
        return f"several processes' {devices[0].platform} ({devices[0].device_kind})"
    return f"{len(devices)} × {devices[0].platform} ({devices[0].device_kind})"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_sums() -> int | None:
    """How many cores share a sum decides its last bits; as do processes, of any number,
    which may lie on other machines when a run goes on: None."""
    return None if processes.begun() else available_cores()


def numerics() -> dict[str, Any]:
    """What JAX is told that decides numbers."""
    names = ("jax_enable_x64", "jax_default_prng_impl", "jax_default_matmul_precision")
    names += ("jax_threefry_partitionable", "jax_random_seed_offset")
    flags = os.environ.get("XLA_FLAGS", "").split()
    return {name: getattr(jax.config, name) for name in names} | {"xla_flags": flags}
