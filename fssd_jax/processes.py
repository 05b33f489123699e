"""Several processes as one: all run the same program, each on rows of its own.

A batch is laid over the devices of all processes. What is computed of it is sent to
each, so that all know all results and come to the same decisions; the first alone reads
and writes what is kept on disk (`agreed`). JAX starts them, and ends all when one dies.
"""

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fssd_jax.checks import InputError

T = TypeVar("T")
HEARTBEAT = 30  # seconds without a sign of life, after which a process counts as dead
# Whether `begin` was called; a program that started JAX's processes itself did not.
_TOGETHER: list[bool] = []
_ALONE: list[bool] = []  # within `agreed`, where the first does what it does by itself
LOST = (
    "another process has ended, or cannot be reached: see what it said. Start all of "
    "them again, in any number: they go on from what was kept"
)


def begin(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the others, before JAX is used; under Slurm or on a Cloud TPU by itself.

    Args:
      coordinator: HOST:PORT of the first process, as all reach it.
      num_processes: how many there are.
      process_id: which this is, from 0 on.

    Raises:
      InputError: none are found and these are not given, or they do not come together.
    """
    try:
        jax.distributed.initialize(
            *(coordinator, num_processes, process_id),
            heartbeat_timeout_seconds=HEARTBEAT,
            # Of one that failed, on whose end the others do not count.
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        told = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the processes do not come together ({told}); under Slurm, Open MPI or on "
            "a Cloud TPU --distributed is enough, elsewhere start each with "
            "--coordinator HOST:PORT --num-processes N --process-id 0 … N−1"
        ) from error
    _TOGETHER.append(True)
    # The first exchange has to be reached by all within half a minute; later ones not.
    agreed(lambda: None)


def begun() -> bool:
    """Whether this is one of any number of processes, which `begin` has joined."""
    return bool(_TOGETHER)


def several() -> bool:
    """Whether this process works together with others."""
    return begun() and jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that reads, writes and tells; one alone is."""
    return not several() or jax.process_index() == 0


def agreed(make: Callable[[], T]) -> T:
    """`make()` of the first process, for all: what it returns, or raises.

    All have to call it, but for the first within such a call, and `make` computes
    nothing by several processes. What it returns is pickled.
    """
    if not several() or _ALONE:
        return make()
    found: Any = True, None
    if first():
        _ALONE.append(True)
        try:
            found = True, make()
        except Exception as error:  # which the others have to hear of
            found = False, error
        finally:
            _ALONE.pop()
    told = np.frombuffer(pickle.dumps(found), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(told))))
    # One of few sizes, for each of which a program is compiled.
    sent = np.zeros(1 << (size - 1).bit_length(), np.uint8)
    if first():
        sent[:size] = told
    sent = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    good: bool
    value: Any
    good, value = found if first() else pickle.loads(sent.tobytes())
    if good:
        return value
    value.told = not first()  # by the first
    raise value


def all_of(holds: bool) -> bool:
    """Whether it holds in every process."""
    if not several() or _ALONE:
        return holds
    return bool(np.all(multihost_utils.process_allgather(np.bool_(holds))))


def check_same(what: str, value: str) -> None:
    """Raise `InputError` unless all processes have the same.

    Args:
      what: it is, for the error.
      value: that stands for it, such as a digest.
    """
    if not all_of(value == agreed(lambda: value)):
        raise InputError(
            f"{what} differ between the processes; give all of them the same"
        )


def end(status: int) -> None:
    """Leave at once, without waiting for the others, which then end, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def is_lost(error: BaseException) -> bool:
    """Whether this says that another process has gone."""
    text = str(error)
    return several() and any(w in text for w in ("Gloo", "NCCL", "UNAVAILABLE"))
