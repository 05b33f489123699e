"""One training step and one scoring step of the paper's networks, at full size.

  python -m benchmarks.networks            about ten minutes on two cores
  python -m benchmarks.networks --tiny     narrow networks; its numbers mean nothing

Each step has a process of its own, which is stopped at --memory GiB; seconds are of the
second call, without compilation. "step" is FSSD of all five layers with an input step:
five gradients. Leaves OUT/benchmarks/networks.json and .md.
"""

import dataclasses
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from benchmarks import inputs, results
from benchmarks.watched import LATE, OVER, watched
from experiments.harness import cli, files, sheets
from fssd_jax import losses, models, recipes, train
from fssd_jax.allocator import keep_memory
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.features import make_init_fn
from fssd_jax.fssd import Singularity, fssd

EPSILON = 0.01
WORKER = """
import json, sys
from benchmarks.networks import work
print(json.dumps(work(*json.loads(sys.argv[1]))))
"""


class Case(NamedTuple):
    build: Callable
    shape: tuple[int, ...]  # of one input
    batch: int
    recipe: Callable
    narrow: dict[str, int]  # for --tiny
    loss: Callable = losses.cross_entropy
    augment: Callable | None = None


CASES = {
    "LeNet": Case(models.LeNet, (28, 28, 1), 64, recipes.lenet, {}),
    "ResNet-34, CIFAR": Case(
        models.cifar_resnet34,
        *((32, 32, 3), 128, recipes.cifar, {"width": 4}),
        augment=crop_and_flip,
    ),
    "ResNet-34, ImageNet": Case(
        models.resnet34, (224, 224, 3), 32, recipes.imagenet, {"width": 4}
    ),
    "ResNeXt-50, faces": Case(
        partial(models.face_resnext50, num_classes=10_122),  # CelebA's in the paper
        *((112, 112, 3), 32, recipes.face, {"width": 16, "num_classes": 3}),
        loss=losses.cosface,
        augment=crop_and_flip,
    ),
    "BiLSTM, genomes": Case(models.BiLSTM, (250, 4), 32, recipes.lstm, {"hidden": 4}),
}
STEPS = ("training", "scoring", "step")


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = tuple(CASES)
    """Which of them."""
    memory: float = 16
    """GiB, of the process."""
    seconds: float = 900
    """For one step, compilation included."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: narrow networks, batches of 2."""


def steps(case: Case, model) -> dict[str, Callable]:
    """The three steps as pure functions of (variables, center, x, y, seed).

    They are jitted inside, or to be jitted as a whole; `center` is a singularity.
    """
    optimiser = case.recipe(10, 100)
    feature_fn = fssd_jax.make_feature_fn(model)

    def training(variables, _, x, y, seed):
        state = train.TrainState(variables, optimiser.init(variables["params"]))
        return train.train_step(
            *(model.apply, optimiser.update, state, jnp.zeros(2), x, y),
            jax.random.key(seed),
            loss=case.loss,
            augment=case.augment,
        )

    def scoring(variables, center, x, *_):
        return fssd(feature_fn, variables, center, x)

    def step(variables, center, x, *_):
        return fssd(feature_fn, variables, center, x, jnp.float32(EPSILON))

    return {"training": training, "scoring": scoring, "step": step}


def arguments(case: Case, model, batch: int) -> tuple:
    """What the steps take, but the variables and the singularity, which follow."""
    rng = np.random.default_rng(0)
    if len(case.shape) == 2:  # one-hot sequences
        length, symbols = case.shape
        x = np.eye(symbols, dtype=np.float32)[rng.integers(0, symbols, (batch, length))]
    else:
        x = rng.uniform(size=(batch, *case.shape)).astype(np.float32)
    y = rng.integers(0, model.num_classes, batch).astype(np.int32)
    variables = make_init_fn(model)(jax.random.key(0), x[:1])
    feature_fn = fssd_jax.make_feature_fn(model)
    center = fssd_jax.estimate_singularity(feature_fn, variables, x[:1])
    return variables, center, x, y, 0


def shapes(model, shape: tuple[int, ...], batch: int) -> tuple[Any, ...]:
    """All arguments of the steps, without arrays: to lower and to compile."""
    kind = jax.ShapeDtypeStruct
    x, y = kind((batch, *shape), np.float32), kind((batch,), np.int32)
    seed = kind((), np.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    features = jax.eval_shape(fssd_jax.make_feature_fn(model), variables, x)
    center: Any = OrderedDict(
        (k, kind((math.prod(f.shape[1:]),), np.float32)) for k, f in features.items()
    )
    spread: Any = OrderedDict((k, kind((), np.float32)) for k in features)
    count: Any = seed
    return variables, Singularity(center, spread, count), x, y, seed


def work(name: str, which: str, tiny: bool) -> dict[str, float]:
    """Do it in this process."""
    keep_memory()
    case = CASES[name]
    model = case.build(**(case.narrow if tiny else {}))
    batch = 2 if tiny else case.batch
    args = arguments(case, model, batch)
    step = jax.jit(steps(case, model)[which])
    for _ in range(2):
        start = time.perf_counter()
        found = jax.block_until_ready(step(*args))
        seconds = time.perf_counter() - start
    if not all(np.isfinite(a).all() for a in jax.tree.leaves(found)):
        raise RuntimeError(f"{name}, {which}: not finite")
    count = sum(a.size for a in jax.tree.leaves(args[0]["params"]))
    return {"seconds": seconds, "batch": batch, "parameters": count}


def run(config: Config) -> dict[str, Any]:
    inputs.check_names("networks", config.networks, CASES)
    folder = files.writable(config.out / "benchmarks")
    runs: dict[str, dict[str, Any]] = {}
    for name in config.networks:
        runs[name] = {}
        for which in STEPS:
            arguments = [name, which, config.tiny]
            of = watched(WORKER, arguments, config.memory, config.seconds)
            runs[name][which] = of
            print(f"{name}, {which}: {of}", flush=True)
    found = {
        "limits": {"gib": config.memory, "seconds": config.seconds},
        "runs": runs,
        **results.machine(),
    }
    results.leave(folder, "networks", found, to_sheet(found))
    return found


def to_sheet(found: dict[str, Any]) -> sheets.Sheet:
    limits, rows = found["limits"], []
    reason = {OVER: f"> {limits['gib']:g} GiB", LATE: f"> {limits['seconds']:g} s"}
    for name, of in found["runs"].items():
        known = next((r for r in of.values() if "batch" in r), None)
        sizes = ["", ""] if known is None else [f"{known['parameters']:,}"]
        sizes += [] if known is None else [str(known["batch"])]
        cells = [
            reason[r["stopped"]]
            if "stopped" in r
            else f"{1000 * r['seconds'] / r['batch']:,.1f} ms, {r['peak_gib']:.1f} GiB"
            for r in of.values()
        ]
        rows.append([name, *sizes, *cells])
    return sheets.Sheet(
        "The paper's networks: milliseconds an image, and peak memory",
        ["network", "parameters", "batch", *STEPS],
        rows,
        ["Float32, without compilation, of the second call; memory of the process."],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
