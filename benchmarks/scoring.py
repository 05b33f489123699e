"""Speed of scoring, sweeping and training against a straightforward version.

  python -m benchmarks.scoring            about twenty minutes on two cores
  python -m benchmarks.scoring --tiny     seconds; its numbers mean nothing

Both versions do the same arithmetic on the same LeNet and random images, each in a
process of its own, in turn (ours, theirs, ours, theirs, …), compilation not counted.
The straightforward version recomputes the gradient for every ε and layer, leaves
malloc as it is, pools by `flax.linen.max_pool`, and convolves a training batch whole.
Leaves OUT/benchmarks/scoring.json.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.harness import cli, files, provenance, sheets
from fssd_jax import fssd, map_batches
from fssd_jax.allocator import keep_memory
from fssd_jax.detectors.fssd import EPSILONS
from fssd_jax.models import LeNet, lenet
from fssd_jax.train import train

VERSIONS = ("ours", "straightforward")
TASKS = ("plain", "sweep", "epoch")
# Each measurement has a process of its own: malloc's settings are those of a process.
WORKER = """
import json, sys
from benchmarks.scoring import work
print(json.dumps(work(*json.loads(sys.argv[1]))))
"""
WHAT = {
    "plain": "plain scoring, images",
    "sweep": f"{len(EPSILONS)}-value ε sweep, images",
    "epoch": "one training epoch, images",
}


@dataclasses.dataclass(frozen=True)
class Config:
    plain: int = 18_000
    """Images to score plainly."""
    sweep: int = 2_000
    """Images to sweep."""
    epoch: int = 60_000
    """Training images."""
    rounds: int = 3
    """How often each version does each task."""
    batch_size: int = 50
    """Images scored at once, by both versions."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test of seconds."""


def recomputed(feature_fn, variables, singularity, x, epsilon):
    """Algorithm 1 as it is written: for each layer a gradient, a step, a distance."""
    columns = []
    for layer in singularity.center:
        score = partial(fssd.layer_distance, feature_fn, variables, singularity, layer)
        columns.append(score(fssd.perturb(score, x, epsilon)))
    return jnp.stack(columns, -1)


def work(task: str, version: str, count: int, batch_size: int) -> dict[str, float]:
    """Do one task in this process; seconds and peak memory."""
    if version == "ours":
        keep_memory()
    else:
        lenet.max_pool_2x2 = lambda x: nn.max_pool(x, (2, 2), (2, 2))
        lenet.convolve_in_parts = jax.lax.conv_general_dilated
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
    model = LeNet()
    if task == "epoch":
        y = rng.integers(0, 10, count).astype(np.int32)
        fit = partial(train, model, num_classes=10, seed=0, epochs=1, progress=False)
        # The step is compiled by a first, short run.
        return _timed(lambda n: fit(x[:n], y[:n]), 128, count)
    variables: Any = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    feature_fn = fssd_jax.make_feature_fn(model)
    noise = fssd_jax.uniform_noise(jax.random.key(1), 100, (28, 28, 1))
    singularity = fssd_jax.estimate_singularity(feature_fn, variables, noise)
    apply = partial(
        map_batches,
        apply_fn=feature_fn,
        variables=variables,
        state=singularity,
        batch_size=batch_size,
    )

    def score(n):
        if task == "plain":
            apply(fssd.fssd, x=x[:n])
        elif version == "ours":
            apply(fssd.sweep, x=x[:n], epsilons=jnp.asarray(EPSILONS), batch_axis=1)
        else:
            for epsilon in EPSILONS:
                apply(recomputed, x=x[:n], epsilon=jnp.float32(epsilon))

    return _timed(score, batch_size, count)


def _timed(function, warm_up: int, count: int) -> dict[str, float]:
    function(warm_up)
    start = time.perf_counter()
    function(count)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mib": peak}


def run(config: Config) -> dict[str, Any]:
    if config.tiny:
        config = dataclasses.replace(config, plain=100, sweep=50, epoch=128, rounds=1)
    folder = files.writable(config.out / "benchmarks")
    found: dict[str, Any] = {"batch_size": config.batch_size, "tasks": {}}
    for task in TASKS:
        runs: dict[str, list[dict[str, float]]] = {v: [] for v in VERSIONS}
        for _ in range(config.rounds):
            for version in VERSIONS:
                runs[version].append(
                    _spawn(task, version, getattr(config, task), config.batch_size)
                )
                print(f"{task} {version}: {runs[version][-1]}", flush=True)
        ratios = [
            theirs["seconds"] / ours["seconds"]
            for ours, theirs in zip(*runs.values(), strict=True)
        ]
        found["tasks"][task] = {
            "images": getattr(config, task),
            "runs": runs,
            "ratios": ratios,
        }
    # Peak memory of plain scoring as the data set grows, less the images themselves.
    found["memory"] = {
        str(n): _spawn("plain", "ours", n, config.batch_size)["peak_mib"]
        - n * 784 / 2**20
        for n in (config.plain // 4, config.plain, 4 * config.plain)
    }
    found |= {"versions": provenance.versions(), "device": provenance.device()}
    files.write_json(folder / "scoring.json", found)
    sheets.show([to_sheet(found)])
    (folder / "scoring.md").write_text(sheets.to_markdown(to_sheet(found)))
    return found


def _spawn(task: str, version: str, count: int, batch_size: int) -> dict[str, float]:
    arguments = json.dumps([task, version, count, batch_size])
    done = subprocess.run(
        [sys.executable, "-c", WORKER, arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def to_sheet(found: dict[str, Any]) -> sheets.Sheet:
    rows = []
    for task, facts in found["tasks"].items():
        times = [np.median([r["seconds"] for r in facts["runs"][v]]) for v in VERSIONS]
        ratios = facts["ratios"]
        rows.append(
            [
                f"{WHAT[task]}: {facts['images']:,}",
                *(f"{t:.1f} s" for t in times),
                f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]",
            ]
        )
    memory = ", ".join(f"{m:.0f} MiB at {int(n):,}" for n, m in found["memory"].items())
    return sheets.Sheet(
        "Speed against a straightforward version",
        ["task", *VERSIONS, "times faster"],
        rows,
        [
            "Median seconds; ratio of paired runs: median [smallest, largest].",
            f"Peak memory of plain scoring, without the images: {memory}.",
        ],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
