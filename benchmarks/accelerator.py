"""A GPU or TPU: images a second, beside what the device can do, and beside PyTorch.

  python -m benchmarks.accelerator               ten minutes, on JAX's default device
  python -m benchmarks.accelerator --minutes 3   the most important first, as always
  python -m benchmarks.accelerator --tiny        a smoke test; its numbers mean nothing

LeNet, a ResNet-20 for 32×32 images and the paper's ResNet-34 at 224×224: plain scoring,
one input step, the sweep over ε and a training step, at several batch sizes, with the
images on the device ("on the device"), and as users call it, from NumPy to NumPy ("from
host"). XLA counts operations and bytes (`cost_analysis`); what the device can do is
measured in the same run, by a matrix product and a copy. Then the same in TF32 (what
JAX and PyTorch may use by default) and in bfloat16, and what that does to the scores.

PyTorch is asked if it has the same kind of device. It is timed only if it computes our
numbers; then the two take turns. When the time is over no other task is begun; the
files are written after each. Leaves OUT/benchmarks/accelerator.json and .md.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from shutil import which
from typing import Any

import jax

from benchmarks import accelerator_tables, inputs, on_device, ours, work
from benchmarks.beside_torch import Torch
from benchmarks.inputs import NETWORKS
from benchmarks.on_device import DEFAULT, HIGHEST, Procedure, seconds_of
from benchmarks.tasks import PEERS
from benchmarks.timed import check_equal, in_turn
from experiments.harness import cli, files, provenance, sheets
from fssd_jax.checks import InputError
from fssd_jax.ensemble import EPSILONS

TASKS = "plain", "one", "sweep", "training"
BATCHES = {
    "LeNet": (4096, 1024, 256, 64),
    "ResNet-20": (4096, 1024, 256, 64),
    "ResNet-34": (256, 128, 32),
}
ON_CPU = (64,)  # larger ones take minutes
# Images of a call from host: plain, one, sweep, training.
COUNTS = {
    "LeNet": (65_536, 16_384, 4_096, 16_384),
    "ResNet-20": (16_384, 4_096, 2_048, 8_192),
    "ResNet-34": (1_024, 512, 256, 1_024),
}
LEAST = 0.1  # seconds that a round lasts
REPEATABLE = "--xla_gpu_deterministic_ops=true"
SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
PARTS = "nvidia-cudnn", "nvidia-cublas", "jax-cuda", "torch", "libtpu"


@dataclasses.dataclass(frozen=True)
class Config:
    tasks: tuple[str, ...] = TASKS
    """Which of them."""
    networks: tuple[str, ...] = tuple(BATCHES)
    """Which of them."""
    batches: tuple[int, ...] = ()
    """Images at once; by default several for each network, the largest first."""
    minutes: float = 10
    """After which nothing is begun any more."""
    rounds: int = 5
    """How often each is timed."""
    peak_tflops: float | None = None
    """What the datasheet says, 10¹² operations a second, to be told beside."""
    peak_gbs: float | None = None
    """What the datasheet says, 10⁹ bytes a second, to be told beside."""
    deterministic: bool = False
    """Only kernels that repeat their bits, as the experiments tell XLA."""
    tiny: bool = False
    """A smoke test: one round, batches of 8, a narrow ResNet-34 scored plainly."""
    out: Path = Path("results")
    """Where the result goes."""


class Run:
    """What one run knows: the time left, the peer, and what was found so far."""

    def __init__(self, config: Config, peer: Torch, write: Callable[[], None]):
        self.config, self.peer, self.write = config, peer, write
        self.end = time.monotonic() + 60 * config.minutes
        self.failed: list[str] = []
        self.rounds = 1 if config.tiny else config.rounds
        self.least = 0.0 if config.tiny else LEAST

    def over(self) -> bool:
        return time.monotonic() > self.end

    def attempt(self, what: str, entry: dict[str, Any], part: str, f: Callable) -> None:
        """A part of a task, unless the time is over; what fails is told."""
        if self.over():
            entry.setdefault("not run", []).append(part)
            return
        try:
            entry[part] = f()
        except Exception as error:
            memory = _out_of_memory(error)
            reason = "out of memory" if memory else f"{type(error).__name__}: {error}"
            entry.setdefault("failed", {})[part] = reason[:500]
            if not memory:
                self.failed.append(f"{what}, {part}")
        print(f"{what}: {part}: {entry.get(part, entry.get('failed'))}", flush=True)
        self.write()

    def turns(self, tasks: dict[str, Callable[[], float]]) -> dict[str, list]:
        """Rounds of them all, one at least."""
        found: dict[str, list] = {name: [] for name in tasks}
        for i in range(self.rounds):
            if i and self.over():
                break
            names = list(tasks)[:: 1 - 2 * (i % 2)]
            for name, taken in in_turn({n: tasks[n] for n in names}, 1).items():
                found[name] += taken
        return found


def _out_of_memory(error: Exception) -> bool:
    return any(t in str(error) for t in ("RESOURCE_EXHAUSTED", "out of memory"))


def run(config: Config) -> dict[str, Any]:
    _check(config)
    folder = files.writable(config.out / "benchmarks")
    _set_up(config)
    platform = jax.default_backend()
    small = config.tiny or platform == "cpu"
    found: dict[str, Any] = {"device": provenance.device(), "platform": platform}
    found |= {"versions": _versions(), "numerics": provenance.numerics()}
    found |= {"minutes": config.minutes, "networks": {}, "not run": []}
    found["datasheet"] = {"tflops": config.peak_tflops, "gbs": config.peak_gbs}
    start = time.monotonic()

    def write() -> None:
        found["seconds"] = time.monotonic() - start
        files.write_json(folder / "accelerator.json", found)
        tables = accelerator_tables.to_sheets(found)
        told = "\n".join(map(sheets.to_markdown, tables))
        (folder / "accelerator.md").write_text(told)

    threads = 1 if config.tiny else provenance.available_cores()
    with Torch(platform, threads) as peer:
        found["torch"] = peer.device if peer.worker else None
        of = Run(config, peer, write)
        sizes = (256, 1 / 64, 1) if config.tiny else (1024, 1, 3) if small else None
        of.attempt(
            "the device", found, "ceilings",
            lambda: on_device.ceilings(*(sizes or (8192, 4, 5))),
        )  # fmt: skip
        for name, task in product(config.networks, config.tasks):
            if of.over():
                found["not run"].append(f"{name}, {task}")
                continue
            if config.tiny and name == "ResNet-34" and task != "plain":
                continue  # it takes long to compile
            entry = found["networks"].setdefault(name, {}).setdefault(task, {})
            _measure(of, name, task, entry)
        write()
    print((folder / "accelerator.md").read_text())
    return {**found, "failed": of.failed}


def _set_up(config: Config) -> None:
    """Before JAX uses the device."""
    flags = os.environ.get("XLA_FLAGS", "").replace(REPEATABLE, "")
    if not config.deterministic:
        os.environ["XLA_FLAGS"] = flags.strip()
    if find_spec("torch") is not None:  # which is to have as much
        os.environ.setdefault(SHARE, "0.5")


def _check(config: Config) -> None:
    """Raise `InputError` for a name that there is not, or a useless number."""
    inputs.check_names("tasks", config.tasks, TASKS)
    inputs.check_names("networks", config.networks, BATCHES)
    for what, least in (("rounds", config.rounds), ("minutes", config.minutes)):
        if least <= 0:
            raise InputError(f"--{what}: more than 0, got {least}")
    if any(batch < 1 for batch in config.batches):
        raise InputError(f"--batches: 1 or more, got {list(config.batches)}")


def _versions() -> dict[str, str]:
    known = {d.name: d.version for d in distributions() if d.name.startswith(PARTS)}
    client = jax.devices()[0].client
    found = provenance.versions() | known | {"platform": client.platform_version}
    if which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True, check=False)
        found["driver"] = asked.stdout.strip() or "not told"
    return found


def _measure(of: Run, shown: str, task: str, entry: dict[str, Any]) -> None:
    """All of one task of one network, the most important first."""
    config, small = of.config, of.config.tiny or jax.default_backend() == "cpu"
    name = f"{shown}, narrow" if config.tiny and shown == "ResNet-34" else shown
    batches = (8,) if config.tiny else ON_CPU if small else BATCHES[shown]
    attempt = partial(of.attempt, f"{shown}, {task}")
    tried: dict[str, Any] = entry.setdefault("batches", {})
    for batch in sorted(config.batches or batches, reverse=True):
        attempt(tried, f"{batch}", lambda batch=batch: _timed(of, task, name, batch))
    known = {
        int(b): min(t["seconds"]) / int(b) for b, t in tried.items() if b.isdigit()
    }
    if not known:
        return
    entry["best"] = best = min(known, key=known.__getitem__)
    entry["needed"] = work.needed(work.BY_HAND[name](), len(EPSILONS))[task]
    count = COUNTS[shown][TASKS.index(task)]
    if small:
        count //= 16
    if config.tiny:
        count = 2 * NETWORKS[name].batch if task == "training" else 8
    procedure = partial(on_device.prepare, task, name, best)
    if of.peer.worker and task != "training":
        beside = partial(_beside, of, task, name, procedure, list(known))
        attempt(entry, "beside", lambda: beside(HIGHEST))
    attempt(entry, "host", lambda: _from_host(of, task, name, count, best, list(known)))
    kinds = on_device.precisions(name)
    if not (config.tiny and task != "plain"):
        attempt(entry, "precisions", lambda: _precisions(of, task, procedure, kinds))
    if of.peer.device == "cuda" and of.peer.worker and task != "training":
        attempt(entry, "beside in TF32", lambda: beside(DEFAULT))
    if task == "sweep":
        attempt(entry, "transfers", lambda: on_device.transfers(name, best))


def _timed(of: Run, task: str, name: str, batch: int) -> dict[str, Any]:
    """Seconds of a batch that is on the device, and what XLA counts of it."""
    procedure = on_device.prepare(task, name, batch, HIGHEST)
    times = on_device.calls_in(procedure.call, of.least)
    seconds = of.turns({"ours": partial(seconds_of, procedure.call, times)})["ours"]
    return {"seconds": seconds, "calls": times} | {
        key: getattr(procedure, key) for key in ("compiled_in", "flops", "bytes")
    }


def _precisions(
    of: Run, task: str, procedure: Callable[[str], Procedure], kinds: list[str]
) -> dict[str, Any]:
    """Seconds in each precision, in turn, and how far its scores are from float32's."""
    made = {kind: procedure(kind) for kind in kinds}
    times = {k: on_device.calls_in(p.call, of.least) for k, p in made.items()}
    turns = {k: partial(seconds_of, p.call, times[k]) for k, p in made.items()}
    found: dict[str, Any] = {k: {"seconds": s} for k, s in of.turns(turns).items()}
    if task != "training":  # which is compared by its end: see docs/reliability.md
        exact = on_device.scores(made[HIGHEST])
        for kind in kinds[1:]:
            scores = on_device.scores(made[kind])
            found[kind] |= on_device.differences(scores, exact)
    return found


def _beside(
    of: Run, task: str, name: str, procedure: Callable, batches: list[int], kind: str
) -> dict[str, Any]:
    """Seconds an image on the device, ours and of each of PyTorch's ways, in turn."""
    peer, mine, found = of.peer, procedure(kind), {}
    expected = on_device.scores(mine)
    batch = expected.shape[-2]
    times = on_device.calls_in(mine.call, of.least)
    for label, theirs in PEERS[task].items():
        setting = peer.best(theirs, name, batches, kind == DEFAULT)
        error = peer.check(f"{name}, {theirs}", theirs, name, expected, setting)
        own = setting["batch"]
        repeats = max(1, round(times * batch / own))
        peer.prepare(theirs, name, own, **setting, repeats=repeats)
        turns = {
            "ours": lambda: seconds_of(mine.call, times) / batch,
            "theirs": lambda o=own, r=repeats, t=theirs: peer.seconds(t) / (o * r),
        }
        found[label] = {"seconds": of.turns(turns), "setting": setting, "error": error}
    return found


def _from_host(
    of: Run, task: str, name: str, count: int, batch: int, batches: list[int]
) -> dict[str, Any]:
    """Seconds of a call from NumPy to NumPy: `map_batches`, or an epoch by `train`."""
    call, peer, settings = ours.prepare(task, name, count, batch), of.peer, {}
    expected = call()

    def seconds() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    turns: dict[str, Callable[[], float]] = {"ours": seconds}
    for label, theirs in PEERS[task].items() if peer.worker else ():
        setting = peer.best(theirs, name, batches, False)
        if task == "training":
            steps = ours.prepare("steps", name, 0)()
            of_peer = peer.worker.prepare("steps", "steps", name, 0, **setting)  # pyright: ignore
            check_equal(f"{name}, steps", steps, of_peer, 1e-3)
        else:
            setting |= {"resident": False}
            peer.check(f"{name}, {theirs}", theirs, name, expected, setting)
        peer.prepare(theirs, name, count, **setting)
        settings[label], turns[label] = setting, partial(peer.seconds, theirs)
    return {"images": count, "seconds": of.turns(turns), "settings": settings}


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, lambda found: found["failed"])


if __name__ == "__main__":
    sys.exit(main())
