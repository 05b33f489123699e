"""Detectors beside the same ones of pytorch-ood and oodeel: fit, and score.

  pip install torch pytorch-ood==0.4.0       in an environment of its own
  pip install --no-deps oodeel faiss-cpu     whose own demands (NumPy 1) exclude JAX's
  python -m benchmarks.libraries
  python -m benchmarks.libraries --libraries pytorch-ood --methods odin vim

Each contender has a process of its own, with the same weights, images and number of
threads, and the batch at which it is fastest; they take turns, and what is compared are
the ratios of each round. A library's method is compared only if it puts the images in
the order in which ours does: the rank correlation stands beside, and below 0.99 it is
something else. Compilation is not counted. The machine must have nothing else to do.

Leaves OUT/benchmarks/libraries.json and libraries.md.
"""

import dataclasses
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks import inputs, results
from benchmarks.tasks import BATCHES
from benchmarks.timed import Worker, best, in_turn
from experiments.harness import cli, files, provenance
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError

# By the name that pip knows: what Python imports.
LIBRARIES = {"pytorch-ood": "pytorch_ood", "oodeel": "oodeel"}
METHODS = {
    "one layer": "Mahalanobis, last hidden layer",
    "one layer, step": "the same after an input step",
    "odin": "ODIN",
    "vim": "ViM",
}
COUNTS = {"LeNet": 4_096, "ResNet-20": 1_024}
SAME = 0.99  # rank correlation of two that do the same
OTHER = "something else: not compared"


@dataclasses.dataclass(frozen=True)
class Config:
    libraries: tuple[str, ...] = tuple(LIBRARIES)
    """Which of them; one that is not installed is told as not run."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which of them."""
    networks: tuple[str, ...] = tuple(COUNTS)
    """Which of them."""
    rounds: int = 3
    """How often each contender does each task."""
    threads: int | None = None
    """Of each contender; by default a thread for each core that there is."""
    tiny: bool = False
    """A smoke test: 64 images, one round, batches of 32."""
    out: Path = Path("results")
    """Where the result goes."""


def run(config: Config) -> dict[str, Any]:
    inputs.check_names("libraries", config.libraries, LIBRARIES)
    inputs.check_names("methods", config.methods, METHODS)
    inputs.check_names("networks", config.networks, COUNTS)
    if config.rounds < 1:
        raise InputError(f"--rounds: 1 or more, got {config.rounds}")
    threads = inputs.checked_threads(config.threads)
    folder = files.writable(config.out / "benchmarks")
    theirs = [name for name in config.libraries if find_spec(LIBRARIES[name])]
    workers = {"ours": Worker("benchmarks.ours", threads)}
    workers |= {name: Worker("benchmarks.torch_libraries", threads) for name in theirs}
    found: dict[str, dict[str, Any]] = {}
    try:
        for network in config.networks:
            count = 64 if config.tiny else COUNTS[network]
            for method in config.methods:
                of = compared(workers, method, network, count, config)
                found.setdefault(network, {})[method] = of
                print(f"{network} {method}: {of['seconds']}", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    named = ("torch", *theirs) if theirs else ()
    result = {
        "tasks": found,
        "not_installed": sorted(set(config.libraries) - set(theirs)),
        "threads": threads,
        "rounds": 1 if config.tiny else config.rounds,
        "versions": provenance.versions()
        | {name: provenance.version(name) for name in named},
        "device": provenance.device(),
    }
    results.leave(folder, "libraries", result, to_sheet(result))
    return result


def compared(
    workers: dict[str, Worker], method: str, network: str, count: int, config: Config
) -> dict[str, Any]:
    """Seconds of fit and score by all that have the method, in turn."""
    batches = BATCHES[:1] if config.tiny else BATCHES
    settings, turns, ranks, expected = {}, {}, {}, None
    for name, worker in workers.items():
        task = (method,) if name == "ours" else (name, method)
        if name == "oodeel" and method == "one layer, step":
            continue  # its step raises the softmax, which is another method

        def seconds(batch, worker=worker, task=task) -> float:
            worker.prepare("tried", *task, network, max(BATCHES), batch=batch)
            return worker.seconds("tried")

        setting = best([{"batch": batch} for batch in batches], seconds)
        scores = np.ravel(worker.prepare(name, *task, network, count, **setting))
        if name == "ours":
            expected = scores
        else:
            ranks[name] = float(np.asarray(spearmanr(expected, -scores))[0])
            if not ranks[name] >= SAME:
                continue
        settings[name], turns[name] = setting, partial(worker.seconds, name)
    rounds = 1 if config.tiny else config.rounds
    return {
        "images": count,
        "rank_correlation": ranks,
        "settings": settings,
        "seconds": in_turn(turns, rounds),
    }


def to_sheet(found: dict[str, Any]) -> Sheet:
    rows = [
        _row(network, method, of, library)
        for network, methods in found["tasks"].items()
        for method, of in methods.items()
        for library in of["rank_correlation"]
    ]
    notes = [
        "Median seconds (batch) of fitting on the images and scoring them; a library's "
        "over ours: median [smallest, largest] of "
        f"{found['rounds']} rounds; {found['threads']} threads. Rank: the correlation "
        "of its scores' order with ours."
    ]
    if found["not_installed"]:
        notes.append(f"Not run, not installed: {', '.join(found['not_installed'])}.")
    headings = ["method", "images", "ours", "library", "theirs", "rank", "times faster"]
    return Sheet("Detectors beside other libraries", headings, rows, notes)


def _row(network: str, method: str, of: dict[str, Any], library: str) -> list[str]:
    def cell(contender: str) -> str:
        median = np.median(of["seconds"][contender])
        return f"{median:.3g} s ({of['settings'][contender]['batch']})"

    theirs, told = "", OTHER
    if library in of["seconds"]:
        pairs = zip(of["seconds"][library], of["seconds"]["ours"], strict=True)
        ratios = [a / b for a, b in pairs]
        theirs = cell(library)
        told = f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    return [
        *(f"{network}: {METHODS[method]}", f"{of['images']:,}", cell("ours")),
        *(library, theirs, f"{of['rank_correlation'][library]:.4f}", told),
    ]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
