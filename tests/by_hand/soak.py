"""Scoring and training with changing shapes: is memory bounded?

    python -m tests.by_hand.soak --minutes 20

Networks, functions, image sizes, batch sizes and set sizes change at every turn.
Prints a table for docs/reliability.md; exit status 1 if memory, memory maps or
compiled programs grow by a twentieth over the second half, or if the programs kept
became as many as they may be only then.
"""

import dataclasses
import gc
import resource
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import tyro
from jax.extend.core import ClosedJaxpr

import fssd_jax
from fssd_jax import compiled, make_feature_fn, make_logit_fn, map_batches
from fssd_jax.detectors import fssd, mahalanobis, msp, odin
from fssd_jax.train import train


@dataclasses.dataclass(frozen=True)
class Config:
    minutes: float = 20
    seed: int = 0
    rows: int = 8
    """Of the table."""
    shapes: int | None = None
    """Turns after which the same sizes come again, with new functions; None: never."""
    kept: int = compiled.PROGRAMS
    """Entries of each cache of `fssd_jax`: with fewer they are full earlier."""


class Net(nn.Module):
    width: int
    feature_layers = ("first", "logits")

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(self.width, name="first")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="logits")(x)


def turn(rng: np.random.Generator, rate: float) -> None:
    """One user, with a network, images and habits of their own."""
    side, n = int(rng.integers(3, 12)), int(rng.integers(40, 200))
    x = rng.uniform(size=(n, side, side, 1)).astype(np.float32)
    y = np.resize(np.arange(3), n).astype(np.int32)
    model = Net(int(rng.integers(4, 40)))
    size = int(rng.integers(8, 64))
    variables = train(
        *(model, x, y),
        num_classes=3,
        seed=int(rng.integers(100)),
        epochs=1,
        batch_size=size,
        recipe=lambda epochs, steps: optax.sgd(rate),  # another function at each turn
        progress=False,
    ).variables
    feature_fn, logit_fn = make_feature_fn(model), make_logit_fn(model)
    own = lambda variables, x: logit_fn(variables, x)  # noqa: E731
    noise = fssd_jax.uniform_noise(jax.random.key(0), 20, x.shape[1:])
    ind, ood = x[: n // 2], 1 - x[n // 2 :]
    state = fssd.fit(feature_fn, variables, noise, ind, ood, epsilons=(0.0, 0.1))
    gaussians = mahalanobis.estimate_gaussians(feature_fn, variables, x, y, 3)
    far = mahalanobis.fit(feature_fn, variables, gaussians, ind)
    for _ in range(5):
        some = x[: int(rng.integers(1, n))]
        for detector, apply_fn, fitted in (
            (fssd, feature_fn, state),
            (mahalanobis, feature_fn, far),
            (msp, own, msp.fit()),
            (odin, own, odin.fit()),
        ):
            map_batches(
                *(detector.score, apply_fn, variables, fitted, some), batch_size=size
            )


def measured() -> tuple[float, int, int, int, int]:
    """Resident MiB, memory maps, compiled functions, those of ours, what was traced."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    maps = len(Path("/proc/self/maps").read_text().splitlines())
    loaded = len(jax.devices()[0].client.live_executables())
    traced = sum(isinstance(o, ClosedJaxpr) for o in gc.get_objects())
    memory = pages * resource.getpagesize() / 2**20
    return memory, maps, loaded, len(compiled._PROGRAMS), traced


def main(config: Config) -> int:
    for cache in (o for o in gc.get_objects() if isinstance(o, compiled.Recent)):
        cache.most = config.kept
    rates, rows = np.random.default_rng(config.seed), []
    begin, turns = time.monotonic(), 0
    while (spent := time.monotonic() - begin) < 60 * config.minutes:
        sizes = turns % config.shapes if config.shapes else turns
        rng = np.random.default_rng([config.seed, sizes])
        turn(rng, float(rates.uniform(0.01, 0.1)))
        turns += 1
        if spent >= len(rows) * 60 * config.minutes / config.rows:
            rows.append((spent / 60, turns, *measured()))
            print(rows[-1], file=sys.stderr, flush=True)
    rows.append(((time.monotonic() - begin) / 60, turns, *measured()))
    print("| minutes | turns | memory, MiB | maps | compiled | kept by us | traced |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for minutes, count, *values in rows:
        print(f"| {minutes:.1f} | {count} |", *(f"{v:,.0f} |" for v in values))
    middle, last = rows[len(rows) // 2], rows[-1]
    gained = np.subtract(last, middle)
    print(f"\nOver the second half: {', '.join(f'{g:+,.0f}' for g in gained[2:])};")
    print(f"of memory {gained[2] / gained[1]:.2f} MiB a turn")
    growth = gained[2:5] / middle[2:5]
    return int(middle[5] < config.kept or np.any(growth > 0.05))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
