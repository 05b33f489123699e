"""Speed and memory of Eq. (4) without a kernel, against the explicit kernel.

  python -m benchmarks.kernel            about half an hour on two cores
  python -m benchmarks.kernel --tiny     seconds; its numbers mean nothing

−Σ_m Θ_0(x, x_m) ν_m for layer fc1 (128 features) of one LeNet, n training and n test
images. Kernel-free: analysis.jacobians (pull, then push). Explicit: the kernel
[n, n, 128, 128] by neural-tangents' structured derivatives, at once or in blocks, then
the sum. Each measurement has a process of its own and stops at --memory GiB; seconds
are without compilation. Leaves OUT/benchmarks/kernel.json, .md, .png and .pdf.
"""

import dataclasses
import sys
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import fssd_jax
from analysis import ntk, plots
from analysis.jacobians import pull, push
from analysis.style import OTHERS, legend_below, page, styled
from benchmarks import results
from benchmarks.watched import LATE, OVER, watched
from experiments.harness import cli, files, sheets
from fssd_jax.allocator import keep_memory
from fssd_jax.models import LeNet

LAYER, DIM, BATCH = "fc1", 128, 32
METHODS = ("kernel-free", "explicit", "explicit in blocks")
# Each measurement has a process of its own, whose peak memory is then that of it.
WORKER = """
import json, sys
from benchmarks.kernel import work
print(json.dumps(work(*json.loads(sys.argv[1]))))
"""


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 4096, 9984)
    """Training images, and as many test images; each method goes up until it fails."""
    memory: float = 16
    """GiB, of the process; a method that needs more has reached its end."""
    seconds: float = 300
    """A method that needs more, compilation included, has reached its end."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test of seconds."""


def kernel_free(feature_fn, variables, nu, x, tested) -> np.ndarray:
    """−J(x) J(X)ᵀν, in batches: memory is that of one and of the parameters."""
    batches = [slice(i, i + BATCH) for i in range(0, len(x), BATCH)]
    total: Any = None
    for part in batches:
        of = pull(feature_fn, variables, OrderedDict([(LAYER, nu[part])]), x[part])
        total = of if total is None else jax.tree.map(jnp.add, total, of)
    moved = [
        push(feature_fn, variables, total, tested[part])[LAYER] for part in batches
    ]
    return -np.concatenate(moved)


def explicit(feature_fn, variables, nu, x, tested, *, size: int) -> np.ndarray:
    """−Σ_m Θ(x, x_m) ν_m with the kernel of `size` × `size` images at a time."""
    kernel = partial(ntk.tangent_kernel, feature_fn, variables, LAYER, axes="full")
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    moved = []
    for rows in parts:
        of_rows = 0
        for columns in parts:
            block = kernel(tested[rows], x[columns], batch_size=size)
            of_rows -= np.einsum("nmij,mj->ni", block, nu[columns], optimize=True)
        moved.append(of_rows)
    return np.concatenate(moved)


def network():
    return fssd_jax.make_feature_fn(LeNet(), [LAYER])


def drawn(count: int) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """(variables, ν of the training images, these, and as many test images)."""
    rng = np.random.default_rng(0)
    x, tested = rng.uniform(size=(2, count, 28, 28, 1)).astype(np.float32)
    nu = rng.normal(size=(count, DIM)).astype(np.float32)
    return LeNet().init(jax.random.key(0), x[:1]), nu, x, tested


def work(method: str, count: int) -> dict[str, float]:
    """Do it in this process; seconds and peak memory."""
    keep_memory()
    variables, nu, x, tested = drawn(count)
    feature_fn = network()
    if method == "kernel-free":
        compute = partial(kernel_free, feature_fn, variables)
        first = min(count, 2 * BATCH)  # of which the second is added to the first
    else:
        size = count if method == "explicit" else min(count, 8)
        compute = partial(explicit, feature_fn, variables, size=size)
        first = size
    compute(nu[:first], x[:first], tested[:first])  # compiles
    start = time.perf_counter()
    compute(nu, x, tested)
    return {"seconds": time.perf_counter() - start}


def measure(method: str, count: int, config: Config) -> dict[str, Any]:
    """Seconds and peak GiB, or why it was stopped."""
    return watched(WORKER, [method, count], config.memory, config.seconds)


def run(config: Config) -> dict[str, Any]:
    if config.tiny:
        config = dataclasses.replace(config, sizes=(2, 4))
    folder = files.writable(config.out / "benchmarks")
    runs: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in METHODS}
    for count in config.sizes:
        for method, of in runs.items():
            if any("stopped" in r for r in of.values()):
                continue
            of[count] = measure(method, count, config)
            print(f"{method}, {count} + {count} images: {of[count]}", flush=True)
    found = {
        "layer": LAYER,
        "limits": {"gib": config.memory, "seconds": config.seconds},
        "runs": runs,
        **results.machine(),
    }
    results.leave(folder, "kernel", found, to_sheet(found))
    plots.save(picture(found), folder / "kernel")
    return found


def to_sheet(found: dict[str, Any]) -> sheets.Sheet:
    free, *others = found["runs"].values()
    limit = found["limits"]
    reason = {OVER: f"> {limit['gib']:g} GiB", LATE: f"> {limit['seconds']:g} s"}
    rows = []
    for count in free:
        cells = []
        for of in (free, *others):
            r = of.get(count, {})
            told = reason.get(r.get("stopped"), "not run")
            if "seconds" in r:
                told = f"{r['seconds']:.2f} s, {r['peak_gib']:.1f} GiB"
            cells.append(told)
        ratios = [
            f"{of[count]['seconds'] / free[count]['seconds']:,.0f}"
            if "seconds" in of.get(count, {}) and "seconds" in free[count]
            else ""
            for of in others
        ]
        rows.append([f"{count:,} + {count:,}", *cells, *ratios])
    return sheets.Sheet(
        "Eq. (4) of LeNet's fc1, 128 features: seconds and peak memory",
        ["train + test", *METHODS, *(f"{m}: times slower" for m in METHODS[1:])],
        rows,
        ["Without compilation; the memory is that of the whole process. One run each."],
    )


@styled
def picture(found: dict[str, Any]) -> Figure:
    """Seconds and peak memory over the number of images, to the limit."""
    figure, axes = page(1, 2, 2.3)
    for ax, fact in zip(axes[0], ("seconds", "peak_gib"), strict=True):
        for (method, of), style in zip(found["runs"].items(), OTHERS, strict=False):
            points = [(n, r[fact]) for n, r in of.items() if "seconds" in r]
            ax.plot(*zip(*points, strict=True), **style.of_line(), label=method)
        ax.set(xscale="log", yscale="log", xlabel="training images, and test images")
    seconds, memory = axes[0]
    seconds.set_ylabel("time, s")
    memory.set_ylabel("peak memory, GiB")
    memory.axhline(
        found["limits"]["gib"], color="black", linestyle=":", lw=0.8, label="limit"
    )
    legend_below(figure, memory, 4)
    return figure


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
