"""From a command line to a run: options, the process, errors of one line."""

import dataclasses
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro

from experiments.harness.files import CANNOT_WRITE
from experiments.harness.provenance import available_cores, config_digest
from fssd_jax import processes
from fssd_jax.allocator import keep_memory
from fssd_jax.checks import DivergedError, InputError
from fssd_jax.convolutions import convolve_by_eigen
from fssd_jax.data.image_files import located
from fssd_jax.data.sources import fetched_dir

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Together:
    """What an experiment can be told that takes several processes as one."""

    distributed: bool = False
    """Several processes, perhaps on several machines, work as one: the same command on
    each, with --out on a disk that all see. Slurm's and a Cloud TPU's are found; others
    need the three that follow."""
    coordinator: str | None = None
    """HOST:PORT of the first process, as the others reach it."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which this is: 0 to NUM_PROCESSES − 1."""


def join(config: Together) -> None:
    """Begin as one of several processes, if that was asked for.

    Raises:
      InputError: some of the options are missing, or the others do not come.
    """
    given = config.coordinator, config.num_processes, config.process_id
    some = any(value is not None for value in given)
    if some and not (config.distributed and None not in given):
        raise InputError(
            "--coordinator, --num-processes and --process-id go together, and with "
            "--distributed"
        )
    if not config.distributed:
        return
    processes.begin(*given)
    if not processes.first():  # one tells for all; errors each tells itself
        sys.stdout = Path(os.devnull).open("w")


def start() -> None:
    """Set up the process, before JAX is used: for the entry points only.

    Memory is kept (see `fssd_jax.allocator`), CPUs convolve by Eigen (see
    `fssd_jax.convolutions`), and arithmetic is made full float32 and repeatable: by
    default a GPU may multiply in TF32 and a TPU in bfloat16, which is coarser than
    differences between scores and can flip the sign of a gradient. What XLA compiles is
    kept on disk, because the functions of another seed are the same.
    """
    keep_memory()
    convolve_by_eigen()
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


def need_neural_tangents() -> None:
    """Raise `InputError` at once, not after the training, if it cannot be imported."""
    try:
        import_module("analysis.neural_tangents_compat")
    except ImportError as error:
        raise InputError(str(error)) from error


def _at_home(config: C) -> C:
    """The same, of paths that begin with ~, which no shell expands behind a =."""
    given = [(f.name, getattr(config, f.name)) for f in dataclasses.fields(config)]  # pyright: ignore
    paths = {name: path for name, path in given if isinstance(path, Path)}
    homes = {n: located(p) for n, p in paths.items() if str(p).startswith("~")}
    return dataclasses.replace(config, **homes)  # pyright: ignore


def run_main(
    config_type: type[C],
    run: Callable[[C], Any],
    description: str | None,
    args: list[str] | None,
    failed: Callable[[Any], Sequence[str]] = lambda result: (),
) -> int:
    """Parse the command line, set up the process and run; return the exit status.

    The user's own mistakes become one line, not a traceback.

    Args:
      failed: from what `run` returns to the names of what failed while the rest was
        written: the last line of stderr, and exit status 1.
    """
    config = tyro.cli(config_type, args=args, description=description)
    start()
    try:
        status = _status(config, run, failed)
    except Exception as error:
        if not processes.several():
            raise
        traceback.print_exception(error)
        status = 1
    if status and processes.several():
        processes.end(status)  # the others may wait for what this one does not do
    return status


def _status(config: Any, run: Callable, failed: Callable) -> int:
    """Of the process, after what went wrong was told."""
    try:
        if isinstance(config, Together):
            join(config)
        names = failed(run(_at_home(config)))
    except (InputError, DivergedError) as error:
        if not getattr(error, "told", False):
            print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        where = error.filename or "the results folder"
        print(
            f"error: cannot write {where}: {error.strerror}; mend that, or choose "
            "another folder with --out: the same command goes on from what was kept",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on from what was kept (see --help)",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        if not processes.is_lost(error):
            raise
        print(f"error: {processes.LOST}\n({error})", file=sys.stderr)
        return 1
    if names:
        print(
            f"error: failed: {', '.join(names)}; all else is written, and the same "
            "command tries again what failed",
            file=sys.stderr,
        )
        return 1
    return 0
