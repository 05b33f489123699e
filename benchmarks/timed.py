"""Contenders in processes of their own, timed in turn."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from experiments.harness import cli

EQUAL = 1e-4  # how near a peer's numbers must be, as a share of the largest
# After an input step, that many of them; and all must be within `FARTHEST`. A step goes
# by the sign of a derivative: where that is all but 0, as under ReLUs that are off,
# each takes its own.
SHARE, FARTHEST = 0.95, 0.1


class Worker:
    """A process that prepares tasks of a module of ours, and does them when told.

    A process each, because a thread pool and malloc's settings are those of a process.
    Both sides' malloc keeps its memory (`fssd_jax.allocator`).
    """

    def __init__(
        self, module: str, threads: int, environment: Mapping[str, str] | None = None
    ):
        spawning = multiprocessing.get_context("spawn")  # JAX does not fork
        self._connection, other = spawning.Pipe()
        arguments = other, module, threads
        self._process = spawning.Process(target=_serve, args=arguments, daemon=True)
        with _surrounded(environment or {}):
            self._process.start()
        other.close()

    def prepare(self, label: str, *args, **setting) -> Any:
        """Compile and warm up; what the task computes. A label's last task goes."""
        return self._ask((label, args, setting))

    def seconds(self, label: str) -> float:
        """Of the task so prepared, done once more."""
        return self._ask((label, None, None))

    def _ask(self, what: tuple) -> Any:
        try:
            self._connection.send(what)
            found = self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"a contender's process ended, asked {what}") from error
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self._connection.close()  # of which it hears, and ends
        self._process.join(10)
        self._process.terminate()


@contextmanager
def _surrounded(environment: Mapping[str, str]) -> Iterator[None]:
    """With these environment variables, which a process that is started takes over."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            del os.environ[name]
        os.environ.update(before)


def _serve(connection, module: str, threads: int) -> None:
    """In the worker: answer until the parent ends."""
    if hasattr(os, "sched_setaffinity"):  # XLA has as many threads as it may use cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    cli.start()
    contender = import_module(module)
    if hasattr(contender, "torch"):
        contender.torch.set_num_threads(threads)
    tasks: dict[str, Callable] = {}
    while True:
        try:
            label, args, setting = connection.recv()
        except EOFError:
            return
        try:
            if args is not None:
                tasks[label] = contender.prepare(*args, **setting)
                connection.send(tasks[label]())
            else:
                start = time.perf_counter()
                tasks[label]()
                connection.send(time.perf_counter() - start)
        except Exception as error:
            connection.send(RuntimeError(f"{module}, {label}, {args}: {error!r}"))


def in_turn(tasks: dict[str, Callable[[], float]], rounds: int) -> dict[str, list]:
    """Seconds of each, a round after another; every other round backwards."""
    found: dict[str, list] = {name: [] for name in tasks}
    for i in range(rounds):
        for name in list(tasks)[:: 1 - 2 * (i % 2)]:
            found[name].append(tasks[name]())
    return found


def best(settings: Sequence[dict], seconds: Callable[..., float]) -> dict:
    """The setting of the fewest seconds; one alone is not tried."""
    if len(settings) == 1:
        return settings[0]
    return min(settings, key=lambda setting: seconds(**setting))


def check_equal(
    what: str, ours: np.ndarray, theirs: np.ndarray, within: float = EQUAL
) -> float:
    """Raise unless a peer computes the same: else it would be timed for something else.

    Args:
      what: for the error.
      ours: numbers [..., column]; a column's largest is the measure of its errors.
      theirs: the same, by the peer.
      within: which share of the largest number an error may be.

    Returns:
      The largest error, as such a share.
    """
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: {theirs.shape} instead of {ours.shape}")
    axes = tuple(range(ours.ndim - 1))
    error = np.abs(theirs - ours).max(axes) / np.abs(ours).max(axes)
    if not np.all(error <= within):
        raise AssertionError(
            f"{what}: differs from ours by up to {error.max():.2g} of the largest "
            f"number, more than {within:g}; column by column: {error}"
        )
    return float(error.max())


def nearly_equal(
    what: str, ours: np.ndarray, theirs: np.ndarray, within: float
) -> list[float]:
    """Raise unless `SHARE` of scores [..., layer] are within, and all are near.

    Returns:
      The error that this share keeps below, and the largest; both as shares of the
      layer's largest score.
    """
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: {theirs.shape} instead of {ours.shape}")
    axes = tuple(range(ours.ndim - 1))
    errors = np.abs(theirs - ours) / np.abs(ours).max(axes)
    of_layers = np.quantile(errors, SHARE, axes)
    found = [float(of_layers.max()), float(errors.max())]
    if not (found[0] <= within and found[1] <= FARTHEST):  # NaN is neither
        raise AssertionError(
            f"{what}: {SHARE:.0%} of the scores are within {found[0]:.2g} of ours and "
            f"all within {found[1]:.2g}, shares of the layer's largest; expected "
            f"{within:g} and {FARTHEST:g}; layer by layer {of_layers}"
        )
    return found
