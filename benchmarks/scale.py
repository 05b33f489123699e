"""What the paper's seven benchmarks ask of accelerators: counted, not measured.

  python -m benchmarks.scale               ten minutes on two cores
  python -m benchmarks.scale --tiny        narrow networks; its numbers mean nothing

The training step, plain scoring and scoring with an input step of each network, at its
real shape, are compiled here, and XLA says what they do (counted.py). Leaves
OUT/benchmarks/scale.json and .md.

A step takes as long as what bounds it on a named device: its operations, what it moves
to and from memory, starting its kernels, or the exchange of gradients over the links.
"""

import dataclasses
import io
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import results
from benchmarks.counted import Cost, cost
from benchmarks.networks import CASES, STEPS, Case
from experiments.harness import cli, files, provenance, sheets
from fssd_jax import losses, models, recipes
from fssd_jax.data.augment import crop_and_flip

DEVICES = 1, 8, 64
LAYERS = 5
EPSILONS = 21
VALIDATION = 2000  # 1,000 of each set


class Device(NamedTuple):
    """Of its maker's data sheet."""

    name: str
    operations: float  # a second, bfloat16 with float32 sums, without sparsity
    traffic: float  # bytes a second, to and from its memory
    links: float  # bytes a second, each way, to its neighbours in a machine
    network: float  # to other machines, by all of a machine's adapters
    in_a_machine: int


H100 = Device("H100 SXM", 989.4e12, 3.35e12, 450e9, 8 * 50e9, 8)
KERNEL = 4e-6  # seconds to start one; a supposition


class Task(NamedTuple):
    case: Case
    train: int  # images, of Table 1
    test: int  # in-distribution and OoD
    epochs: int
    batch: int
    jpeg: bool = False  # whether images are decoded as they are trained on


def _faces(count: int) -> Case:
    build = partial(models.face_resnext50, num_classes=count)
    narrow = {"width": 16, "num_classes": 3}
    shape = 112, 112, 3
    return Case(build, shape, 0, recipes.face, narrow, losses.cosface, crop_and_flip)


_IMAGENET = CASES["ResNet-34, ImageNet"]
TASKS = {
    "A FMNIST, LeNet": Task(CASES["LeNet"], 60_000, 20_000, 14, 64),
    "B CIFAR10, ResNet-34": Task(CASES["ResNet-34, CIFAR"], 50_000, 36_000, 350, 128),
    "C dogs, ResNet-34": Task(
        _IMAGENET._replace(build=partial(models.resnet34, num_classes=50)),
        *(50_000, 20_000, 90, 256, True),
    ),
    "D ImageNet, ResNet-34": Task(
        # Each of the 80 pairs has a fit and in-distribution scores of its own.
        *(_IMAGENET, 1_281_200, 80 * (50_000 + 50_000), 90, 256, True)
    ),
    "E CelebA, ResNeXt-50": Task(_faces(10_122), 153_800, 48_800, 20, 256, True),
    "F MS-1M, ResNeXt-50": Task(_faces(64_736), 2_923_600, 100_000, 20, 256, True),
    "G genomes, BiLSTM": Task(CASES["BiLSTM, genomes"], 1_000_000, 7_000_000, 10, 256),
}


@dataclasses.dataclass(frozen=True)
class Config:
    share: float = 0.3
    """Of the device's peak operations and traffic that are attained; a supposition."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: narrow networks."""


def decoding(seconds: float = 1.0) -> float:
    """JPEGs a second and core: a photograph of 640×427, decoded, cut and resized."""
    file = io.BytesIO()
    Image.fromarray(load_sample_images().images[0]).save(file, "JPEG", quality=90)
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        with Image.open(io.BytesIO(file.getvalue())) as image:
            box = 100, 50, 500, 400
            np.asarray(image.convert("RGB").resize((224, 224), box=box))
        done += 1
    return done / (time.process_time() - start)


def times(
    task: Task, of: Cost, weights: float, device: Device, share: float, n: int
) -> dict[str, float]:
    """Seconds of a step on n devices by what may bound it; `weights` in bytes."""
    batch = task.batch / n
    # A ring sends each device's gradient around, once to sum and once to spread.
    width = device.links if n <= device.in_a_machine else device.network
    return {
        "operations": of.of("operations", batch) / device.operations / share,
        # Counted of float32, of which bfloat16 is half.
        "memory": of.of("traffic", batch) / 2 / device.traffic / share,
        "kernels": of.kernels * KERNEL,
        "links": 2 * weights * (n - 1) / n / width,
    }


def run(config: Config) -> dict[str, Any]:
    folder = files.writable(config.out / "benchmarks")
    rate = decoding(0.1 if config.tiny else 2.0)
    found: dict[str, Any] = {
        "device": H100._asdict(),
        "share": config.share,
        "decoded_per_second_and_core": rate,
        "versions": provenance.versions(),
        "tasks": {},
    }
    for name, task in TASKS.items():
        costs, parameters = {}, 0
        for which in STEPS:
            costs[which], parameters = cost(task.case, which, config.tiny)
            print(f"{name}, {which}: {costs[which]}", flush=True)
        found["tasks"][name] = _facts(task, costs, parameters, config.share)
    results.leave(folder, "scale", found, *to_sheets(found))
    return found


def _facts(task: Task, costs: dict[str, Cost], parameters: int, share: float):
    of, steps_ = costs["training"], task.epochs * (task.train // task.batch)
    training = {}
    for n in DEVICES:
        bounds = times(task, of, 4 * parameters, H100, share, n)
        slowest = max(bounds, key=bounds.__getitem__)
        training[n] = {
            "seconds_a_step": bounds,
            "bound": slowest,
            "hours": steps_ * bounds[slowest] / 3600,
            "images_per_second": task.batch / bounds[slowest],
            "bytes_a_device": of.of("held", task.batch / n),
        }
    plain, step = (costs[k].each["operations"] for k in ("scoring", "step"))
    # All layers' gradients once, and a forward pass of each layer at every ε; those
    # of the lower layers stop early, so this is an upper bound.
    fit = VALIDATION * (step + (EPSILONS - 1) * LAYERS * plain)
    return {
        "parameters": parameters,
        "batch": task.batch,
        "epochs": task.epochs,
        "steps": steps_,
        "jpeg": task.jpeg,
        "costs": {k: v._asdict() for k, v in costs.items()},
        "training": training,
        "scoring": {
            "plain": plain,
            "step": step,
            "fit": fit,
            "test": task.test * step,
        },
    }


def to_sheets(found: dict[str, Any]) -> list[sheets.Sheet]:
    rows, scored = [], []
    for name, of in found["tasks"].items():
        training = of["training"]
        cells = [
            f"{t['hours']:,.2g} h, {t['bytes_a_device'] / 2**30:,.1f} GiB, {t['bound']}"
            for t in training.values()
        ]
        fed = training[DEVICES[1]]["images_per_second"]
        cores = math.ceil(fed / found["decoded_per_second_and_core"])
        each = of["costs"]["training"]["each"]["operations"]
        rows.append(
            [
                name,
                f"{of['parameters'] / 1e6:,.1f} M",
                f"{each / 1e9:,.3g}",
                f"{of['steps']:,}",
                *cells,
                f"{fed:,.0f}" + (f" ({cores} cores)" if of["jpeg"] else ""),
            ]
        )
        s = of["scoring"]
        scored.append(
            [
                name,
                *(f"{s[k] / 1e9:,.3g}" for k in ("plain", "step")),
                *(f"{s[k] / 1e15:,.3g}" for k in ("fit", "test")),
            ]
        )
    name, share = found["device"]["name"], found["share"]
    training = sheets.Sheet(
        "Training: hours and memory by the number of accelerators, and what bounds",
        [
            *("benchmark", "weights", "GFLOP an input", "steps"),
            *(f"{n} × {name}" for n in DEVICES),
            f"inputs a second, fed to {DEVICES[1]}",
        ],
        rows,
        [
            f"At {share:.0%} of peak operations and traffic in bfloat16, and "
            f"{1e6 * KERNEL:g} µs a kernel, which are suppositions; exchange and "
            "computing at once. Memory: float32, as XLA plans it for a CPU. "
            "Cores: that decode and cut JPEGs of 640×427 at "
            f"{found['decoded_per_second_and_core']:,.0f} a second each, measured here."
        ],
    )
    scoring = sheets.Sheet(
        "FSSD: scoring, fitting and the whole test",
        [
            *("benchmark", "plain, GFLOP", "with a step", "fit, PFLOP", "test, PFLOP"),
        ],
        scored,
        [
            f"Fit: {VALIDATION:,} validation inputs, {EPSILONS} ε, all layers, at most "
            "so much; test: all of Table 1, with an input step in every layer."
        ],
    )
    return [training, scoring]


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
