"""What bfloat16 does to the scores, and to the AUROC, of the same weights.

  python -m benchmarks.precision            a quarter of an hour of one core
  python -m benchmarks.precision --tiny     its numbers mean nothing

A narrow ResNet-20 learns six classes of CIFAR-10 in float32. Then it scores their test
images and those of the other four in float32 and in bfloat16: activations have eight
bits, parameters, F* and distances stay in float32. Every detector is fitted with the
network of its own type, on the same images. Accuracy is no speed: the machine may have
other things to do.

Leaves OUT/benchmarks/precision.json and precision.md.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import fssd_jax
from benchmarks import results
from experiments.harness import cli, files
from experiments.harness.sheets import Sheet
from fssd_jax import metrics, recipes
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.detectors import energy, fssd, mahalanobis, msp
from fssd_jax.models import cifar_resnet20
from fssd_jax.outputs import logits_of
from fssd_jax.train import train

TYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 10
    """Of training."""
    train_size: int = 10_000
    """Images to train on."""
    validation: int = 500
    """Images of either test set that detectors are fitted on."""
    width: int = 8
    """Channels of the stem."""
    seed: int = 0
    """Of the weights, the noise and the choice of images."""
    data_dir: Path | None = None
    """Where cifar10/ lies; by default it is looked for."""
    out: Path = Path("results")
    """Where the result goes."""
    tiny: bool = False
    """A smoke test: few images, one epoch."""


def run(config: Config) -> dict[str, Any]:
    folder = files.writable(config.out / "benchmarks")
    if config.tiny:
        few = {"epochs": 1, "train_size": 256, "validation": 20, "width": 2}
        config = dataclasses.replace(config, **few)
    benchmark = load_benchmark("cifar6", config.data_dir)
    rng = np.random.default_rng(config.seed)

    def drawn(data, count=None):
        return data.select(np.sort(rng.permutation(len(data.x))[:count]))

    learnt = drawn(benchmark.train, config.train_size)
    sets = {"ind": benchmark.test, "ood": benchmark.ood["cifar6"]}
    if config.tiny:
        sets = {name: drawn(of, 60) for name, of in sets.items()}
    held = {n: rng.permutation(len(of.x)) < config.validation for n, of in sets.items()}
    fitted_on = {name: of.x[held[name]] for name, of in sets.items()}
    tested = {name: of.x[~held[name]] for name, of in sets.items()}

    build = partial(
        cifar_resnet20,
        num_classes=benchmark.num_classes,
        mean=benchmark.mean,
        std=benchmark.std,
        width=config.width,
    )
    variables = train(
        *(build(), learnt.x, learnt.y),
        num_classes=benchmark.num_classes,
        seed=config.seed,
        epochs=config.epochs,
        batch_size=128,
        recipe=recipes.cifar,
        augment=crop_and_flip,
    ).variables
    scores, right = {}, {}
    for name, dtype in TYPES.items():
        model = build(dtype=dtype)
        scores[name] = scored(model, variables, config.seed, learnt, fitted_on, tested)
        fn = fssd_jax.make_logit_fn(model)
        of = fssd_jax.map_batches(_logits, fn, variables, None, tested["ind"])
        right[name] = float((of.argmax(1) == sets["ind"].y[~held["ind"]]).mean())
    found = {
        "accuracy": right,
        "counts": {name: len(x) for name, x in tested.items()},
        "options": {
            k: v
            for k, v in dataclasses.asdict(config).items()
            if k not in ("data_dir", "out")  # of this machine
        },
        "detectors": compared(*scores.values()),
        **results.machine(),
    }
    results.leave(folder, "precision", found, to_sheet(found))
    return found


def _logits(logit_fn, variables, _, x):
    return logits_of(logit_fn, variables, x)


def scored(
    model, variables, seed: int, learnt, fitted_on: dict, tested: dict
) -> dict[str, dict[str, np.ndarray]]:
    """detector → {"ind", "ood"} → score of each tested image."""
    feature_fn = fssd_jax.make_feature_fn(model)
    logit_fn = fssd_jax.make_logit_fn(model)
    network = feature_fn, variables
    ind, ood = fitted_on["ind"], fitted_on["ood"]
    noise = fssd_jax.uniform_noise(jax.random.key(seed), 1000, ind.shape[1:])
    gaussians = mahalanobis.estimate_gaussians(
        *(*network, learnt.x, learnt.y, model.num_classes)
    )
    detectors = {
        "maximum softmax probability": (msp.score, logit_fn, msp.fit()),
        "energy": (energy.score, logit_fn, energy.fit()),
        "FSSD, of noise alone": (fssd.score, feature_fn, fssd.fit(*network, noise)),
        "FSSD, of in-distribution images, too": (
            *(fssd.score, feature_fn, fssd.fit(*network, noise, ind)),
        ),
        "FSSD, with OoD validation images": (
            *(fssd.score, feature_fn, fssd.fit(*network, noise, ind, ood)),
        ),
        "Mahalanobis, of in-distribution images": (
            *(mahalanobis.score, feature_fn),
            mahalanobis.fit(*network, gaussians, ind),
        ),
    }
    return {
        name: {
            which: fssd_jax.map_batches(score, fn, variables, state, x)
            for which, x in tested.items()
        }
        for name, (score, fn, state) in detectors.items()
    }


def compared(one: dict, other: dict) -> dict[str, dict[str, Any]]:
    """Of each detector both AUROCs, and their difference on the same images."""
    found = {}
    for name, scores in one.items():
        others = other[name]
        sets = scores["ind"], scores["ood"]
        pair = metrics.paired(others["ind"], others["ood"], *sets)
        ranks: Any = spearmanr(
            np.concatenate(sets), np.concatenate([others["ind"], others["ood"]])
        )
        found[name] = {
            "float32": metrics.auroc(*sets),
            "bfloat16": metrics.auroc(others["ind"], others["ood"]),
            "difference": pair.difference,
            "ci95": list(pair.ci95),
            "p": pair.p,
            "rank correlation": float(ranks.statistic),
        }
    return found


def to_sheet(found: dict[str, Any]) -> Sheet:
    rows = [
        [
            name,
            f"{100 * of['float32']:.2f}",
            f"{100 * of['bfloat16']:.2f}",
            f"{100 * of['difference']:+.3f}",
            "{:+.3f} to {:+.3f}".format(*(100 * end for end in of["ci95"])),
            f"{of['rank correlation']:.5f}",
        ]
        for name, of in found["detectors"].items()
    ]
    options, counts = found["options"], found["counts"]
    return Sheet(
        "AUROC (%) of the same weights in two types: six classes of CIFAR-10, four OoD",
        ["detector", "float32", "bfloat16", "difference", "95 %", "rank correlation"],
        rows,
        [
            f"ResNet-20 of width {options['width']}, {options['epochs']} epochs of "
            f"{options['train_size']:,} images; accuracy "
            + ", ".join(f"{100 * a:.1f} % in {n}" for n, a in found["accuracy"].items())
            + f". {counts['ind']:,} in-distribution and {counts['ood']:,} OoD images; "
            "differences are paired (DeLong), the rank correlation is that of all "
            "scores."
        ],
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
