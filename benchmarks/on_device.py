"""What `benchmarks.accelerator` times of ours: programs on a device, with images."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import fssd_jax
from benchmarks import inputs, work
from benchmarks.inputs import EPSILON, NETWORKS
from fssd_jax import fssd
from fssd_jax.descent import TrainState, train_step
from fssd_jax.ensemble import EPSILONS

PARTS = {"plain": ("forward",), "one": ("gradients", "step")}
PARTS["sweep"] = PARTS["one"]
HIGHEST, DEFAULT, BFLOAT16 = "float32", "default", "bfloat16"
MOST_CALLS = 1000  # in a round


class Procedure(NamedTuple):
    """A call on one batch, which does not wait for the device."""

    call: Callable[[], Any]
    compiled_in: dict[str, float]  # seconds, by program
    flops: float | None  # of one call, by XLA; None if it does not tell
    bytes: float | None


class Network(NamedTuple):
    model: Any
    feature_fn: Callable
    variables: Any
    center: Any


def context(precision: str) -> AbstractContextManager:
    """In which products of float32 are so computed; those of bfloat16 are anyway."""
    highest = precision == HIGHEST
    return jax.default_matmul_precision("float32" if highest else "default")


def precisions(name: str) -> list[str]:
    """Those that there are of a network; of bfloat16 only what has a `dtype`."""
    has_dtype = hasattr(NETWORKS[name].build(), "dtype")
    return [HIGHEST, DEFAULT, *([BFLOAT16] if has_dtype else [])]


@cache
def network(name: str, precision: str) -> Network:
    of = {"dtype": jnp.bfloat16} if precision == BFLOAT16 else {}
    model, variables = NETWORKS[name].build(**of), inputs.weights(name)
    feature_fn = fssd_jax.make_feature_fn(model)
    with context(precision):
        noise = inputs.noise(name)
        center = fssd_jax.estimate_singularity(feature_fn, variables, noise)
    return Network(model, feature_fn, *_put((variables, center)))


def _put(tree: Any) -> Any:
    return jax.device_put(tree, jax.devices()[0])


def pictures(name: str, batch: int) -> tuple[Any, Any]:
    """Images as the network takes them, and classes, on the device."""
    x, y = inputs.pictures(name, batch)
    return _put((x.astype(np.float32) / np.float32(255), y))


def prepare(task: str, name: str, batch: int, precision: str) -> Procedure:
    """Compile, or find what was compiled."""
    if task == "training":
        return _training(name, batch, precision)
    programs = {k: _program(name, batch, precision, k) for k in PARTS[task]}
    of = network(name, precision)
    arrays, x = (of.variables, of.center), pictures(name, batch)[0]
    run = {k: program for k, (program, _) in programs.items()}
    taken = EPSILONS if task == "sweep" else (EPSILON,)
    epsilons = [_put(np.float32(e)) for e in taken]

    def plain():
        return run["forward"](*arrays, x)

    def stepped():
        signs = run["gradients"](arrays, x)
        return [run["step"](arrays, x, signs, epsilon) for epsilon in epsilons]

    times = {"step": len(epsilons)}
    flops, moved = (
        _sum([(cost(p, key), times.get(k, 1)) for k, p in run.items()])
        for key in ("flops", "bytes accessed")
    )
    seconds = {k: s for k, (_, s) in programs.items()}
    return Procedure(plain if task == "plain" else stepped, seconds, flops, moved)


@cache
def _program(name: str, batch: int, precision: str, part: str) -> tuple[Any, float]:
    """Compiled for arrays on the device, and the seconds that it took."""
    of = network(name, precision)
    arguments = of.variables, of.center, pictures(name, batch)[0]
    start = time.perf_counter()
    with context(precision):
        f, args = work.functions(of.model, *arguments)[part]
        program = jax.jit(f).lower(*args).compile()
    return program, time.perf_counter() - start


def _training(name: str, batch: int, precision: str) -> Procedure:
    """A step as `train` compiles it, on the same batch again and again."""
    of = network(name, precision)
    optimiser = NETWORKS[name].recipe(10, 100)
    variables = jax.tree.map(jnp.copy, of.variables)  # donated
    state = TrainState(variables, optimiser.init(variables["params"]))
    carried = [_put((state, np.zeros(2, np.float32)))]
    rest = *pictures(name, batch), _put(jax.random.key(0))
    step = partial(train_step, of.model.apply, optimiser.update)
    start = time.perf_counter()
    with context(precision):
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*carried[0], *rest)
        program = lowered.compile()
    seconds = {"training step": time.perf_counter() - start}

    def call():
        carried[0] = program(*carried[0], *rest)
        return carried[0][1]

    costs = (cost(program, key) for key in ("flops", "bytes accessed"))
    return Procedure(call, seconds, *costs)


def cost(program: Any, key: str) -> float | None:
    """What XLA counts in a compiled program; None from backends that do not tell."""
    try:
        found = program.cost_analysis()
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        return None
    if isinstance(found, list | tuple):
        found = found[0] if found else None
    value = (found or {}).get(key)
    return value if value is not None and value > 0 else None


def _sum(costs: Sequence[tuple[float | None, int]]) -> float | None:
    known = [value * times for value, times in costs if value is not None]
    return sum(known) if len(known) == len(costs) else None


def calls_in(call: Callable[[], Any], least: float) -> int:
    """Warm up; how many calls last so many seconds."""
    jax.block_until_ready(call())
    return min(MOST_CALLS, max(1, math.ceil(least / seconds_of(call, 1))))


def seconds_of(call: Callable[[], Any], times: int) -> float:
    """Of one call, of so many that are sent after another; the last is waited for."""
    start = time.perf_counter()
    for _ in range(times):
        found = call()
    jax.block_until_ready(found)
    return (time.perf_counter() - start) / times


def scores(procedure: Procedure) -> np.ndarray:
    """[(epsilon,) image, layer]"""
    found = procedure.call()
    if not isinstance(found, list):
        return np.asarray(found)
    rows = [np.asarray(a) for a in found]
    return rows[0] if len(rows) == 1 else np.stack(rows)


def differences(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """The largest |a − b| / b of scores [..., image, layer], and rank correlation.

    That is Spearman's among the images, the smallest of all layers and ε.
    """
    rows = [np.swapaxes(a, -1, -2).reshape(-1, a.shape[-2]) for a in (found, exact)]
    pairs = zip(*rows, strict=True)
    ranks = [float(spearmanr(a, b)[0]) for a, b in pairs]  # pyright: ignore[reportArgumentType]
    largest = np.max(np.abs(found - exact) / np.abs(exact))
    return {"difference": float(largest), "spearman": float(np.min(ranks))}


def ceilings(side: int, gib: float, rounds: int) -> dict[str, float]:
    """What the device reaches: operations a second of products, bytes a second."""
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(side, side)).astype(np.float32)
    found = {}
    for precision in (HIGHEST, DEFAULT, BFLOAT16):
        a = _put(matrix.astype(jnp.bfloat16 if precision == BFLOAT16 else np.float32))
        with context(precision):
            product = jax.jit(lambda a: a @ a).lower(a).compile()
        found[precision] = 2 * side**3 / _fastest(partial(product, a), rounds)
    a = _put(np.zeros(int(gib * 2**28), np.float32))
    copy = jax.jit(lambda a: a + 1).lower(a).compile()
    return found | {"bytes": 2 * a.nbytes / _fastest(partial(copy, a), rounds)}


def _fastest(call: Callable, rounds: int) -> float:
    times = calls_in(call, 0.05)
    return min(seconds_of(call, times) for _ in range(rounds))


def transfers(name: str, batch: int) -> dict[str, str]:
    """Whether a sweep of images on the device sends anything, either way.

    On a CPU, whose memory is the host's, nothing is ever sent to the host.
    """
    of, x = network(name, HIGHEST), pictures(name, batch)[0]
    epsilons = _put(np.asarray(EPSILONS, np.float32))
    call = partial(fssd.sweep, *of[1:], x, epsilons)
    jax.block_until_ready(call())
    guards = {
        "device to host": jax.transfer_guard_device_to_host,
        "host to device": jax.transfer_guard_host_to_device,
    }
    found = {}
    for direction, guard in guards.items():
        try:
            with guard("disallow"):
                jax.block_until_ready(call())
            found[direction] = "none"
        except Exception as error:
            found[direction] = f"refused: {str(error).splitlines()[0]}"
    return found
