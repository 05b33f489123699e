"""What every experiment shares: trained networks, results folders, provenance."""

import ast
import hashlib
import inspect
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax
import numpy as np
import tyro

from fssd_jax import checkpoint, losses, recipes
from fssd_jax import train as training
from fssd_jax.allocator import keep_memory
from fssd_jax.checks import DivergedError, InputError
from fssd_jax.data.sources import ArrayDataset, digest, fetched_dir
from fssd_jax.features import Variables

C = TypeVar("C")
ROOT = Path(__file__).parent.parent
# The files whose code decides a network's scores.
_SCORING = (
    *("common", "controls", "methods", "networks", "protocols", "setting"),
    *("retrained", "scores", "variants"),
)
SCORING = ("fssd_jax/**/*.py", *(f"experiments/{name}.py" for name in _SCORING))
# And those that make a report of them.
_REPORTING = ("pages", "report", "table2", "tables")
REPORTING = ("analysis/*.py", *(f"experiments/{name}.py" for name in _REPORTING))
PACKAGES = ("fssd-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")


def start() -> None:
    """Set up the process, before JAX is used: for the entry points only.

    Memory is kept (see `fssd_jax.allocator`), and arithmetic is made full float32 and
    repeatable: by default a GPU may multiply in TF32 and a TPU in bfloat16, which is
    coarser than differences between scores and can flip the sign of a gradient. What
    XLA compiles is kept on disk, because the functions of another seed are the same.
    """
    keep_memory()
    option = "jax_compilation_cache_dir"
    if getattr(jax.config, option) is None:
        jax.config.update(option, str(fetched_dir() / "compiled" / _processor()))
    flag = "--xla_gpu_deterministic_ops=true"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    jax.config.update("jax_default_matmul_precision", "float32")


def _processor() -> str:
    """What compiled code may depend on, beside what JAX itself tells apart."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = [line for line in lines if line.startswith("flags")][:1]
    return config_digest([platform.machine(), flags, available_cores()])


@cache
def code_digest(patterns: tuple[str, ...] = SCORING) -> str:
    """Digest of the source that decides scores; results of other code are not used.

    Taken once: a file that is edited during a run is not the code that runs.
    """
    files = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return config_digest([bare_code(path.read_text()) for path in files])


@cache
def training_code(module: str) -> list[str]:
    """Source of a model, of what it takes from other models, and of the training."""
    used = {getattr(v, "__module__", None) for v in vars(sys.modules[module]).values()}
    package = module.rpartition(".")[0]
    names = {module, *(name for name in used if f"{name}".startswith(package + "."))}
    modules = [
        *(sys.modules[name] for name in sorted(names)),
        training,
        losses,
        recipes,
    ]
    return [bare_code(inspect.getsource(m)) for m in modules]


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


def trained(
    model: nn.Module,
    data: ArrayDataset,
    *,
    cache: Path,
    seed: int,
    epochs: int,
    num_classes: int,
    batch_size: int = 64,
    recipe=recipes.lenet,
    initial: Variables | None = None,
    outliers: ArrayDataset | None = None,
    snapshots: Sequence[int] = (),
    save_every: int = 1,
    cores: int | None = None,
    progress: bool = True,
) -> training.Trained:
    """Train, or take the weights of an equal earlier run, or go on with a killed one.

    The folder's name is a digest of all that decides the weights: the arguments, the
    data, and the source of the model and of the training loop. So it is never stale.
    """
    identity = {
        "model": repr(model),
        "data": training_digest(data),
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "recipe": recipe.__name__,
        "initial": None if initial is None else tree_digest(initial),
        "outliers": None if outliers is None else training_digest(outliers),
        "snapshots": tuple(snapshots),
        "sources": training_code(type(model).__module__),
        "versions": {name: version(name) for name in ("jax", "flax", "optax")},
        "device": device(),
        # How many cores share a sum decides its last bits.
        "cores": cores or available_cores(),
    }
    folder = cache / f"{type(model).__name__.lower()}-{seed}-{config_digest(identity)}"
    writable(folder)
    return training.train(
        model,
        data.x,
        data.y,
        num_classes=num_classes,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        recipe=recipe,
        initial=initial,
        outliers=None if outliers is None else outliers.x,
        snapshots=snapshots,
        folder=folder,
        save_every=save_every,
        progress=progress and checkpoint.last_epoch(folder) < epochs,
    )


def training_digest(data: ArrayDataset) -> str:
    """Digest of the images really trained on, a part of the set perhaps."""
    return digest(data.x, data.y)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tree_digest(tree: Any) -> str:
    """Digest of a pytree's structure and of every array's bytes."""
    leaves, structure = jax.tree.flatten(tree)
    return digest(np.frombuffer(str(structure).encode(), np.uint8), *leaves)


def need_neural_tangents() -> None:
    """Raise `InputError` at once, not after the training, if it cannot be imported."""
    try:
        import_module("analysis.neural_tangents_compat")
    except ImportError as error:
        raise InputError(str(error)) from error


def writable(folder: Path) -> Path:
    """Create the folder, or say at once that nothing could be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {folder.absolute()}: {error.strerror}; choose another "
            "folder with --out"
        ) from error
    return folder


@contextmanager
def results_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block has ended well."""
    writable(path.parent)
    for left in path.parent.glob(f".{path.name}.*.unfinished"):
        shutil.rmtree(left)  # by a run that was killed
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """All or nothing; a NaN is an error, because not every reader takes it."""
    text = json.dumps(value, indent=2, allow_nan=False, default=_plain)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    temporary.write_text(text + "\n")
    temporary.rename(path)


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def versions() -> dict[str, str]:
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: version(name) for name in PACKAGES},
    }


def device() -> str:
    devices = jax.devices()
    return f"{len(devices)} × {devices[0].platform} ({devices[0].device_kind})"


class Stopwatch:
    """Seconds spent under each name; they go into timing.json, not metrics.json."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start


def mean_and_deviation(values: list[float]) -> dict[str, float | int | None]:
    """Mean and sample standard deviation over seeds (None for one seed)."""
    mean = math.fsum(values) / len(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": mean, "std": deviation, "seeds": len(values)}


def run_main(
    config_type: type[C],
    run: Callable[[C], Any],
    description: str | None,
    args: list[str] | None,
) -> int:
    """Parse the command line, set up the process and run; return the exit status.

    The user's own mistakes become one line, not a traceback.
    """
    config = tyro.cli(config_type, args=args, description=description)
    start()
    try:
        run(config)
    except (InputError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 0
