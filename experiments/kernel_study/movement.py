"""Eq. (3) while a LeNet is trained: what Figure 2 shows."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import fssd_jax
from analysis.dynamics import NOISE, Record, Recorder, log_steps, make_loss_fn
from experiments.harness import keys
from experiments.harness.keys import Use
from fssd_jax import metrics, train
from fssd_jax.data.benchmarks import Benchmark, draw
from fssd_jax.models import LeNet

QUANTITIES = ("distance", "displacement", "speed")
LAYER = "logits"  # the last one, whose features are kept
STAR = "singularity"


def record(
    benchmark: Benchmark,
    seed: int,
    *,
    epochs: int,
    probes: int,
    gradient: int,
    moments: int,
) -> dict[str, np.ndarray]:
    """Train, and look at the probes on the way.

    Args:
      seed: of the weights and the order of the images.
      epochs: of the released recipe.
      probes: images of each probe set.
      gradient: training images of which −∇L is taken; 0: those of the step itself.
      moments: log-spaced steps at which to look.

    Returns:
      See `arrays`.
    """
    model = LeNet(benchmark.num_classes, benchmark.mean, benchmark.std)
    x, y = benchmark.train.x, benchmark.train.y
    batch_size = min(64, len(x))
    total = epochs * (len(x) // batch_size)
    data = None
    if gradient:
        order = jax.random.permutation(keys.fixed(Use.PROBE_GRADIENT), len(x))
        part = benchmark.train.select(np.sort(np.asarray(order)[:gradient]))
        data = part.x, part.y
    recorder = Recorder(
        fssd_jax.make_feature_fn(model),
        make_loss_fn(model),
        probe_sets(benchmark, probes),
        log_steps(total, moments),
        data=data,
        keep=[LAYER],
    )
    trained = train.train(
        model,
        x,
        y,
        num_classes=benchmark.num_classes,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        on_step=recorder,
    )
    last = data or (x[:batch_size], y[:batch_size])
    recorder(total, trained.variables, None, *last)
    return arrays(recorder.records)


def probe_sets(benchmark: Benchmark, count: int) -> dict[str, np.ndarray]:
    """set → images [count, ...], the same for every seed."""
    ind, ood = benchmark.test.x, next(iter(benchmark.ood.values())).x
    noise = fssd_jax.uniform_noise(
        keys.fixed(Use.PROBE_NOISE), count, benchmark.train.x.shape[1:]
    )
    return {
        "in-distribution": draw(ind, count, keys.fixed(Use.PROBE_IND)),
        "OoD": draw(ood, count, keys.fixed(Use.PROBE_OOD)),
        NOISE: np.asarray(noise),
    }


def arrays(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """All numbers behind tables and pictures.

    Returns:
      "steps" [moment];
      "QUANTITY/SET" [moment, image, layer], of the quantities of a `Record`: those of a
        step that the optimiser took are one moment shorter, for the end has none;
      "logits/SET" [moment, image, dim];
      "singularity" [moment, dim], F* of the logits.
    """
    first, *_ = records
    found = {STAR: np.stack([np.asarray(r.singularity.center[LAYER]) for r in records])}
    for name, movements in first.movements.items():
        for quantity in movements:
            looked = records if quantity in QUANTITIES else records[:-1]
            found[f"{quantity}/{name}"] = np.stack(
                [r.movements[name][quantity] for r in looked]
            )
        found[f"{LAYER}/{name}"] = np.stack([r.features[name][LAYER] for r in records])
    found = {name: a.astype(np.float32) for name, a in found.items()}
    return {"steps": np.array([r.step for r in records]), **found}


def sets_of(found: Mapping[str, np.ndarray], quantity: str) -> dict[str, np.ndarray]:
    """set → array, of one quantity in `arrays`."""
    names = [name.split("/") for name in found if "/" in name]
    return {s: found[f"{quantity}/{s}"] for of, s in names if of == quantity}


def summary(found: Mapping[str, np.ndarray], k: int) -> dict[str, Any]:
    """Of layer k: quantity → set → quartiles [moment, 3], and "auroc" [moment].

    "moved" is by the step that the optimiser took, which the end does not have.

    Args:
      found: see `arrays`.
    """
    out: dict[str, Any] = {}
    for quantity in (*QUANTITIES, "moved"):
        sets = {name: a[:, :, k] for name, a in sets_of(found, quantity).items()}
        out[quantity] = {
            name: np.percentile(a, [25, 50, 75], axis=1).T for name, a in sets.items()
        }
        pairs = zip(sets["in-distribution"], sets["OoD"], strict=True)
        out[quantity]["auroc"] = [metrics.auroc(ind, ood) for ind, ood in pairs]
    return out
