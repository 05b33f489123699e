"""What the paper's seven benchmarks ask of accelerators: counted, not measured.

  python -m benchmarks.scale               ten minutes on two cores
  python -m benchmarks.scale --tiny        narrow networks; its numbers mean nothing

The training step, plain scoring and scoring with an input step of each network, at its
real shape, are compiled here, and XLA's `cost_analysis` and `memory_analysis` say what
they do. Both are affine in the batch, so batches of 4 and 8 tell of any; of the LSTM,
whose loop XLA counts once, in the length as well, and sequences of 4 and 8, unrolled,
tell of 250. No array is made. Leaves OUT/benchmarks/scale.json and .md.

The times are the bounds of a named device, whichever is longest: operations at a share
of its peak, the exchange of gradients over its links, and decoding on the host.
"""

import dataclasses
import io
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.networks import CASES, STEPS, Case, shapes, steps
from experiments.harness import cli, files, provenance, sheets
from fssd_jax import losses, models, recipes
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.models import BiLSTM

BATCHES = 4, 8
LENGTHS = 4, 8  # of the sequences, in place of 250
DEVICES = 1, 8, 64
LAYERS = 5
EPSILONS = 21
VALIDATION = 2000  # 1,000 of each set


class Device(NamedTuple):
    """Of its maker's data sheet."""

    name: str
    operations: float  # a second, bfloat16 with float32 sums, without sparsity
    memory: float  # bytes
    links: float  # bytes a second, each way, to its 7 neighbours in a machine
    network: float  # to other machines
    in_a_machine: int


H100 = Device("H100 SXM", 989.4e12, 80e9, 450e9, 50e9, 8)


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
        _IMAGENET, 1_281_200, 50_000 + 80 * 50_000, 90, 256, True
    ),
    "E CelebA, ResNeXt-50": Task(_faces(10_122), 153_800, 48_800, 20, 256, True),
    "F MS-1M, ResNeXt-50": Task(_faces(64_736), 2_923_600, 100_000, 20, 256, True),
    "G genomes, BiLSTM": Task(CASES["BiLSTM, genomes"], 1_000_000, 7_000_000, 10, 256),
}


@dataclasses.dataclass(frozen=True)
class Config:
    share: float = 0.3
    """Of the device's peak operations that a step attains; a supposition."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: narrow networks."""


class Cost(NamedTuple):
    """Of one compiled step: value + batch · each."""

    operations: float
    each_operation: float
    bytes: float
    each_byte: float


class Unrolled(BiLSTM):
    """The same network without a loop."""

    def _direction(self, name: str) -> nn.RNN:
        return nn.RNN(super()._direction(name).cell, unroll=max(LENGTHS))


def count(case: Case, model, which: str, batch: int, shape) -> np.ndarray:
    """[operations, bytes held] of one step, arguments and result included."""
    step = jax.jit(steps(case, model)[which])
    program = step.lower(*shapes(model, shape, batch)).compile()
    costs: Any = program.cost_analysis()
    held: Any = program.memory_analysis()
    total = held.argument_size_in_bytes + held.temp_size_in_bytes
    return np.array([costs["flops"], total + held.output_size_in_bytes])


def cost(case: Case, which: str, tiny: bool) -> tuple[Cost, Any]:
    """And the shapes of the parameters."""
    model = case.build(**(case.narrow if tiny else {}))
    found = _affine(lambda b: count(case, model, which, b, case.shape))
    if isinstance(model, BiLSTM):  # the memory is that of the loop
        fields: Any = {
            f.name: getattr(model, f.name)
            for f in dataclasses.fields(model)
            if f.name not in ("parent", "name")
        }
        flat = Unrolled(**(fields | {"positions": (1, 2, 3)}))
        short, long = (
            _affine(lambda b, n=n: count(case, flat, which, b, (n, case.shape[1])))
            for n in LENGTHS
        )
        steps_ = (case.shape[0] - LENGTHS[0]) / (LENGTHS[1] - LENGTHS[0])
        for of, a, b in zip(found, short, long, strict=True):
            of[0] = a[0] + (b[0] - a[0]) * steps_
    (operations, total), (each, each_byte) = found
    x = jax.ShapeDtypeStruct((1, *case.shape), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return Cost(operations, each, total, each_byte), variables["params"]


def _affine(of: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """a and b of a + b · batch."""
    first, second = map(of, BATCHES)
    slope = (second - first) / (BATCHES[1] - BATCHES[0])
    return first - BATCHES[0] * slope, slope


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


def times(task: Task, of: Cost, weights: float, device: Device, share: float, n: int):
    """Seconds of a step on n devices: {bound: seconds}; `weights` in bytes."""
    each = task.batch / n
    operations = of.operations + each * of.each_operation
    # A ring sends each device's gradient around, once to sum and once to spread.
    width = device.links if n <= device.in_a_machine else device.network
    sent = 2 * weights * (n - 1) / n / width
    return {"operations": operations / device.operations / share, "links": sent}


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
            costs[which], params = cost(task.case, which, config.tiny)
            parameters = sum(math.prod(a.shape) for a in jax.tree.leaves(params))
            print(f"{name}, {which}: {costs[which]}", flush=True)
        found["tasks"][name] = _facts(task, costs, parameters, config.share)
    files.write_json(folder / "scale.json", found)
    made = to_sheets(found)
    text = "\n".join(map(sheets.to_markdown, made))
    (folder / "scale.md").write_text(text)
    sheets.show(made)
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
            "bytes_a_device": of.bytes + task.batch / n * of.each_byte,
        }
    plain, step = (costs[k].each_operation for k in ("scoring", "step"))
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
            "hours": (fit + task.test * step) / H100.operations / share / 3600,
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
        each = of["costs"]["training"]["each_operation"]
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
                f"{s['hours']:,.2g} h",
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
            f"At {share:.0%} of the peak of bfloat16, a supposition; memory of float32 "
            "as XLA plans it for a CPU. Cores: that decode and cut JPEGs of 640×427 at "
            f"{found['decoded_per_second_and_core']:,.0f} a second each, measured here."
        ],
    )
    scoring = sheets.Sheet(
        "FSSD: scoring, fitting and the whole test",
        [
            *("benchmark", "plain, GFLOP", "with a step", "fit, PFLOP", "test, PFLOP"),
            f"both on one {name}",
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
