"""How long the first sweep over ε takes to trace and to compile, by network.

  python -m benchmarks.growth            a minute or two on two cores
  python -m benchmarks.growth --tiny     narrow networks; its numbers mean nothing

All layers and 21 values of ε, as one program, which needs no images and is not run.
Leaves OUT/benchmarks/growth.json and .md.
"""

import dataclasses
import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import fssd_jax
from benchmarks import inputs, results
from experiments.harness import cli, files, sheets
from fssd_jax import fssd, models
from fssd_jax.ensemble import EPSILONS


class Block(nn.Module):
    """Attention, then two dense layers, each with a residual (pre-normalised)."""

    heads: int

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads)(y, y)
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))
        return x + nn.Dense(width)(y)


class ViT(nn.Module):
    """A vision transformer of the shape of ViT-B/16: 86 million parameters.

    Dosovitskiy et al. (2021), "An Image Is Worth 16x16 Words"; tokens are averaged.
    """

    depth: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 16

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return tuple(f"block{k}" for k in range(self.depth))

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (self.patch,) * 2, (self.patch,) * 2)(x)
        x = x.reshape(x.shape[0], -1, self.width)
        shape = (1, *x.shape[1:])
        x = x + self.param("position", nn.initializers.normal(0.02), shape)
        for name in self.feature_layers:
            x = Block(self.heads, name=name)(x)
        return nn.Dense(1000)(nn.LayerNorm()(x).mean(1))


# Network, shape of one image, and what makes it narrow for --tiny.
CASES: dict[str, tuple[Callable, tuple[int, ...], dict[str, int]]] = {
    "LeNet": (models.LeNet, (28, 28, 1), {}),
    "ResNet-34, CIFAR": (models.cifar_resnet34, (32, 32, 3), {"width": 4}),
    "ViT-B": (ViT, (224, 224, 3), {"width": 8, "heads": 2, "depth": 2}),
}


@dataclasses.dataclass(frozen=True)
class Config:
    networks: tuple[str, ...] = tuple(CASES)
    """Which of them."""
    batch_size: int = 8
    """Images of a call."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: narrow networks."""


def of_shape(*shape: int, dtype=jnp.float32) -> Any:
    """In place of an array, for what is only traced."""
    return jax.ShapeDtypeStruct(shape, dtype)


def arguments(model, x) -> tuple:
    """(variables, singularity, x, epsilons), as shapes."""
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    features = jax.eval_shape(fssd_jax.make_feature_fn(model), variables, x)
    singularity = fssd.Singularity(
        OrderedDict((k, of_shape(math.prod(f.shape[1:]))) for k, f in features.items()),
        OrderedDict((k, of_shape()) for k in features),
        of_shape(dtype=jnp.int32),
    )
    return variables, singularity, x, of_shape(len(EPSILONS))


def measure(model, x) -> dict[str, float]:
    """Seconds of waiting to trace and to compile, and lines of the program."""
    args = arguments(model, x)
    start = time.perf_counter()
    # Another object than traced the shapes above, so that nothing is known of it.
    network = partial(fssd_jax.make_feature_fn(model))
    program = jax.jit(partial(fssd.sweep, network)).lower(*args)
    traced = time.perf_counter()
    lines = len(program.as_text().splitlines())
    start_compile = time.perf_counter()
    program.compile()
    return {
        "layers": len(args[1].center),
        "trace": traced - start,
        "lines": lines,
        "compile": time.perf_counter() - start_compile,
    }


def run(config: Config) -> dict[str, Any]:
    inputs.check_names("networks", config.networks, CASES)
    folder = files.writable(config.out / "benchmarks")
    jax.config.update("jax_enable_compilation_cache", False)
    found: dict[str, Any] = {"epsilons": len(EPSILONS), "networks": {}}
    for name in config.networks:
        build, shape, narrow = CASES[name]
        model = build(**(narrow if config.tiny else {}))
        of = measure(model, of_shape(config.batch_size, *shape))
        found["networks"][name] = of
        print(f"{name}: {of}", flush=True)
    found |= results.machine()
    results.leave(folder, "growth", found, to_sheet(found))
    return found


def to_sheet(found: dict[str, Any]) -> sheets.Sheet:
    rows = [
        [
            name,
            str(of["layers"]),
            f"{of['trace']:.1f} s",
            f"{of['compile']:.1f} s",
            f"{of['lines']:,}",
        ]
        for name, of in found["networks"].items()
    ]
    return sheets.Sheet(
        f"The first sweep over {found['epsilons']} values of ε",
        ["network", "layers", "traced in", "compiled in", "lines of HLO"],
        rows,
        ["Of the whole sweep as one program; nothing is run."],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
