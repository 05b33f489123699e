"""What XLA counts of a compiled step: operations, traffic, what it holds, kernels.

No array is made. All are affine in the batch, so batches of 4 and 8 tell of any; of the
LSTM, whose loop XLA counts once, in the length as well, and sequences of 4 and 8,
unrolled, tell of any.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from benchmarks.networks import Case, shapes, steps
from fssd_jax.models import BiLSTM

BATCHES = 4, 8
LENGTHS = 4, 8


class Cost(NamedTuple):
    """Of one compiled step; of a batch: fixed + batch · each."""

    fixed: dict[str, float]  # of `COUNTED`
    each: dict[str, float]
    kernels: int

    def of(self, what: str, batch: float) -> float:
        return self.fixed[what] + batch * self.each[what]


COUNTED: tuple[str, ...] = "operations", "traffic", "held"  # the latter two in bytes


class Unrolled(BiLSTM):
    """The same network without a loop."""

    def _direction(self, name: str) -> nn.RNN:
        return nn.RNN(super()._direction(name).cell, unroll=max(LENGTHS))


def cost(case: Case, which: str, tiny: bool) -> tuple[Cost, int]:
    """And the number of parameters."""
    model = case.build(**(case.narrow if tiny else {}))
    (fixed, each), kernels = _affine(case, model, which, case.shape)
    if isinstance(model, BiLSTM):  # what is held, and the kernels, are the loop's
        fields: Any = {
            f.name: getattr(model, f.name)
            for f in dataclasses.fields(model)
            if f.name not in ("parent", "name")
        }
        flat = Unrolled(**(fields | {"positions": (1, 2, 3)}))
        (short, _), (long, _) = (
            _affine(case, flat, which, (n, case.shape[1])) for n in LENGTHS
        )
        times = (case.shape[0] - LENGTHS[0]) / (LENGTHS[1] - LENGTHS[0])
        for of, a, b in zip((fixed, each), short, long, strict=True):
            of[:2] = (a + (b - a) * times)[:2]
    x = jax.ShapeDtypeStruct((1, *case.shape), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    named = (dict(zip(COUNTED, map(float, a), strict=True)) for a in (fixed, each))
    return Cost(next(named), next(named), kernels), sum(
        a.size for a in jax.tree.leaves(params)
    )


def _affine(case: Case, model, which: str, shape):
    """(a, b) of a + b · batch, each of `COUNTED`, and the kernels."""
    (first, _), (second, kernels) = (
        count(case, model, which, batch, shape) for batch in BATCHES
    )
    slope = (second - first) / (BATCHES[1] - BATCHES[0])
    return (first - BATCHES[0] * slope, slope), kernels


def count(case: Case, model, which: str, batch: int, shape) -> tuple[np.ndarray, int]:
    """`COUNTED` of one step, and its kernels."""
    step = jax.jit(steps(case, model)[which])
    program = step.lower(*shapes(model, shape, batch)).compile()
    costs: Any = program.cost_analysis()
    held: Any = program.memory_analysis()
    total = held.argument_size_in_bytes + held.temp_size_in_bytes
    total += held.output_size_in_bytes
    found = np.array([costs["flops"], costs["bytes accessed"], total])
    return found, kernels_of(program.as_text() or "")


COMPUTATION = re.compile(
    r"^(ENTRY )?%?([\w.\-]+) \(.*?\) -> .*?{\n(.*?)^}", re.M | re.S
)
KERNELS = re.compile(r" (?:fusion|dot|convolution|custom-call|reduce|scatter|sort)\(")


def kernels_of(program: str) -> int:
    """Kernels that run one after another; of a loop, those of its body each time."""
    bodies = {name: (entry, body) for entry, name, body in COMPUTATION.findall(program)}

    def of(name: str) -> int:
        total = 0
        for line in bodies[name][1].splitlines():
            if " while(" in line:
                times = re.search(r"known_trip_count[^0-9]*(\d+)", line)
                inside = re.search(r"body=%?([\w.\-]+)", line)
                assert times
                assert inside
                total += int(times[1]) * of(inside[1])
            elif " call(" in line:
                inside = re.search(r"to_apply=%?([\w.\-]+)", line)
                assert inside
                total += of(inside[1])
            else:
                total += bool(KERNELS.search(line))
        return total

    (entry,) = (name for name, (entry, _) in bodies.items() if entry)
    return of(entry)
