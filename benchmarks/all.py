"""Speed beside what people would use instead, and whether it is what it must be.

  python -m benchmarks.all --quick      under ten minutes on two cores
  python -m benchmarks.all              four times the images: under an hour
  python -m benchmarks.all --tiny       a minute or two; its numbers mean nothing

Each contender has a process of its own, with the same weights, images and number of
threads, and the batch (and of PyTorch, the layout) at which it is fastest. A peer is
timed only if it computes our numbers to 1e-4 (behind an input step, which goes by the
sign of derivatives that may be all but 0, 95 % of them); then all take turns, and what
is compared are the ratios of each round: their median [smallest, largest]. Compilation
is not counted. The machine must have nothing else to do.

The last line tells which gates (benchmarks/gates.py) were missed, if any were; then the
exit status is 1. Peers need PyTorch, `pip install torch`: without it their gates are
not run, which is no pass, and with --strict a failure.

Leaves OUT/benchmarks/all.json and all.md.
"""

import dataclasses
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gates, inputs, ours, results, work
from benchmarks.gates import LOGISTIC, NOT_RUN, TANGENTS
from benchmarks.inputs import NETWORKS
from benchmarks.tables import to_sheet, work_sheet
from benchmarks.tasks import (
    BATCHED,
    BATCHES,
    COUNTS,
    IMPORTED,
    LAYOUTS,
    PEERS,
    STEPPED,
    WITHOUT,
)
from benchmarks.timed import EQUAL, Worker, best, check_equal, in_turn, nearly_equal
from experiments.harness import cli, files, provenance
from fssd_jax.checks import InputError
from fssd_jax.ensemble import EPSILONS

PRODUCTS = 10


@dataclasses.dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = tuple(PEERS)
    """Which of them: plain, one, sweep, training, mahalanobis, regression, kernel, fit,
    metrics, import, first use."""
    networks: tuple[str, ...] = tuple(COUNTS)
    """Which of them."""
    rounds: int | None = None
    """How often each contender does each task: 7, or 3 with --quick."""
    threads: int | None = None
    """Of each contender; by default a thread for each core that there is."""
    quick: bool = False
    """A quarter of the images."""
    strict: bool = False
    """Fail, too, if a gate is not run because PyTorch is not installed."""
    tiny: bool = False
    """A smoke test, without gates: few images, one round, batches of 32."""
    out: Path = Path("results")
    """Where the result goes."""


class Contenders:
    """Ours and, where they are installed, theirs."""

    def __init__(self, threads: int):
        self.ours = Worker("benchmarks.ours", threads)
        installed = find_spec("torch") is not None
        self.theirs = Worker("benchmarks.torch_peers", threads) if installed else None
        self.others = Worker("benchmarks.other_peers", threads)
        self._best: dict[tuple, dict] = {}

    def __enter__(self):
        return self

    def of(self, peer: str) -> Worker | None:
        """Who does that; None where it is not installed."""
        if peer == TANGENTS and find_spec("neural_tangents") is None:
            return None
        return self.others if peer in (LOGISTIC, TANGENTS) else self.theirs

    def best(
        self, worker, network: str, name: str, count: int, kinds: dict, tiny: bool
    ) -> dict[str, Any]:
        """At which setting a contender is fastest, of all, or the first if tiny."""
        settings = [dict(zip(kinds, v, strict=True)) for v in product(*kinds.values())]
        name = name.replace("sweep", "one")  # the same operations, in less time
        images = max(max(BATCHES), count // 8)

        def seconds(**setting) -> float:
            worker.prepare("tried", name, network, images, **setting)
            return worker.seconds("tried")

        known = worker, network, name
        if known not in self._best:
            self._best[known] = best(settings[:1] if tiny else settings, seconds)
        return self._best[known]

    def __exit__(self, *_):
        for worker in filter(None, (self.ours, self.theirs, self.others)):
            worker.close()


def run(config: Config) -> dict[str, Any]:
    _check(config)
    start = time.monotonic()
    folder = files.writable(config.out / "benchmarks")
    threads = inputs.checked_threads(config.threads)
    rounds = 1 if config.tiny else config.rounds or (3 if config.quick else 7)
    tasks: dict[str, dict[str, Any]] = {}
    with Contenders(threads) as contenders:
        for network, counts in [*COUNTS.items(), ("", WITHOUT)]:
            if network and network not in config.networks:
                continue
            chosen = {t: n for t, n in counts.items() if t in config.tasks}
            for task, count in chosen.items():
                if task in IMPORTED:
                    seconds = imported(IMPORTED[task], rounds)
                    found = {"images": None, "seconds": {"ours": seconds}}
                else:
                    count = _count(config, task, count)
                    sizes = network, task, count, rounds, config.tiny
                    found = compared(contenders, *sizes)
                tasks.setdefault(network, {})[task] = found
                print(f"{network} {task}: {found['seconds']}", flush=True)
        machine = contenders.ours
        machine.prepare("product", "product", "", 1 if config.tiny else PRODUCTS)
        seconds = machine.seconds("product") / (1 if config.tiny else PRODUCTS)
    verdicts = [] if config.tiny else gates.verdicts(tasks)
    fail, conclusion = gates.conclusion(verdicts, config.strict)
    result = {
        "tasks": tasks,
        "work": {n: worked(n, of) for n, of in tasks.items() if n},
        "matrix_product_gflops": 2 * ours.SIDE**3 / seconds / 1e9,
        "gates": [{"told": v.told, "passed": v.passed} for v in verdicts],
        "threads": threads,
        "rounds": rounds,
        "size": "tiny" if config.tiny else "quick" if config.quick else "full",
        "seconds": time.monotonic() - start,
        "commit": results.commit(),
        "versions": provenance.versions() | {"torch": _torch_version()},
        "device": provenance.device(),
    }
    tables = to_sheet(result, verdicts), work_sheet(result)
    results.leave(folder, "all", result, *tables)
    if fail:
        raise InputError(conclusion)
    print("gates were not looked at" if config.tiny else conclusion)
    return result


def _check(config: Config) -> None:
    """Raise `InputError` for a name that there is not."""
    inputs.check_names("tasks", config.tasks, PEERS)
    inputs.check_names("networks", config.networks, COUNTS)
    inputs.checked_threads(config.threads)
    if config.rounds is not None and config.rounds < 1:
        raise InputError(f"--rounds: 1 or more, got {config.rounds}")


def _count(config: Config, task: str, count: int) -> int:
    if config.tiny:
        few = {"training": 128, "metrics": 1_000, "kernel": 2}
        return (few | dict.fromkeys(("fit", "regression"), 100)).get(task, 64)
    # Gates tell how large these are.
    return count if task in WITHOUT or not config.quick else count // 4


def _torch_version() -> str:
    return provenance.version("torch") if find_spec("torch") else NOT_RUN


def compared(
    contenders: Contenders, network: str, task: str, count: int, rounds: int, tiny: bool
) -> dict[str, Any]:
    """Seconds of a task by all that do it, in turn; peers are checked before."""
    mine = contenders.ours
    kinds: dict[str, Any] = {"batch": BATCHES if task in BATCHED else BATCHES[:1]}
    tried = contenders.best(mine, network, task, count, kinds, tiny)
    settings, turns = {"ours": tried}, {"ours": partial(mine.seconds, "ours")}
    expected = mine.prepare("ours", task, network, count, **tried)
    for peer, name in PEERS[task].items():
        theirs = contenders.of(peer)
        if theirs is None:
            continue
        if theirs is contenders.theirs:
            kinds["channels_last"] = LAYOUTS
        tried = contenders.best(theirs, network, name, count, kinds, tiny)
        found = theirs.prepare(peer, name, network, count, **tried)
        what = f"{network}, {task}, {peer}"
        if task == "training":  # its order and dropout are random
            steps = "steps", "steps", network, count
            check_equal(what, mine.prepare(*steps), theirs.prepare(*steps))
        elif task in STEPPED:
            nearly_equal(what, expected, found, EQUAL)
        else:
            check_equal(what, expected, found)
        settings[peer], turns[peer] = tried, partial(theirs.seconds, peer)
    seconds = in_turn(turns, rounds)
    return {"images": count, "settings": settings, "seconds": seconds}


def imported(module: str, rounds: int) -> list[float]:
    """Seconds of importing a module of ours, beyond JAX's, in new processes."""

    def seconds(what: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {what}"], check=True)
        return time.perf_counter() - start

    tasks = {w: partial(seconds, w) for w in (f"jax, {module}", "jax")}
    in_turn(tasks, 1)  # files are read from the disk once
    return [a - b for a, b in zip(*in_turn(tasks, rounds).values(), strict=True)]


def worked(network: str, tasks: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of each procedure: operations an image, and how many a second there were."""
    model, shape = NETWORKS[network].build(), NETWORKS[network].shape
    by_hand = work.needed(work.BY_HAND[network](), len(EPSILONS))
    programs = work.programs(model, shape, NETWORKS[network].recipe)
    by_xla = work.counted(programs, len(EPSILONS), work.BATCH)
    found = {}
    for name, operations in by_xla.items():
        found[name] = {"needed": by_hand[name], "counted": operations}
        if name in tasks:
            seconds = float(np.median(tasks[name]["seconds"]["ours"]))
            rate = by_hand[name] * tasks[name]["images"] / seconds
            found[name]["gflops"] = rate / 1e9
    return found


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
