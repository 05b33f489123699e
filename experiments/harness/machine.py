"""What suits a machine and decides no number: who reads, and what is kept when."""

import dataclasses
from collections.abc import Mapping

from fssd_jax.checks import InputError
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.records import WORKERS
from fssd_jax.data.sources import ArrayDataset


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a run can be told that changes seconds only, and so names no result."""

    workers: int = WORKERS
    """How many read and decode images, of benchmarks that do not fit into memory
    (docs/scale.md says what accelerators need); by default as many as there are cores,
    8 at most. 0: none reads ahead."""
    worker_processes: bool = False
    """They are processes while a network is trained, not threads, for more than about
    16 of them. What is scored is read by threads in any case."""
    shard_optimiser: bool = False
    """Each of several devices keeps a part of the optimiser's state only."""
    save_every_steps: int = 1000
    """Steps of training between checkpoints within an epoch, beside that at its end: a
    killed run goes on from the last. Of 256 images at 430 a second, ten minutes."""


def check(machine: Machine) -> None:
    """Raise `InputError` for numbers that could not work."""
    for name, least in (("workers", 0), ("save_every_steps", 1)):
        value = getattr(machine, name)
        if value < least:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag}: expected {least} or more, got {value}")
    if machine.worker_processes and not machine.workers:
        raise InputError("--worker-processes: needs --workers, 1 or more")


def reading(machine: Machine, data: ArrayDataset) -> ArrayDataset:
    """The same set; images that are decoded as they come are read as it is told."""
    if not isinstance(data.x, Decoded):
        return data
    how = {"workers": machine.workers, "processes": machine.worker_processes}
    return data._replace(x=dataclasses.replace(data.x, **how))


def reading_all(machine: Machine, benchmark: Benchmark) -> Benchmark:
    """The same benchmark, each of whose sets is so read."""
    held = benchmark.held and _each(machine, benchmark.held)
    return benchmark._replace(
        train=reading(machine, benchmark.train),
        test=reading(machine, benchmark.test),
        ood=_each(machine, benchmark.ood),
        held=held,
    )


def _each(
    machine: Machine, sets: Mapping[str, ArrayDataset]
) -> dict[str, ArrayDataset]:
    return {name: reading(machine, data) for name, data in sets.items()}
