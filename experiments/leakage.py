"""How much of a score comes from labels of the tested OoD set itself?

  python -m experiments.leakage --benchmark fmnist6

A ladder for FSSD, Mahalanobis and ODIN, of what chooses ε, temperature and weights:
images of the tested OoD set; another OoD set (patches of photographs); noise and
corrupted in-distribution images; no OoD at all. And AUROC against the number of
labelled images of the tested set. Beside them two controls that never see a network,
with the same labels. Leaves OUT/leakage/PAIR-SEED-DIGEST/ with metrics.json, the tables
and a picture; swept scores are kept in OUT/scores, for a run that was killed.
"""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from analysis import plots
from experiments import common, table2, tables
from experiments.controls import CONTROLS
from experiments.protocols import PROTOCOLS
from experiments.scores import Scored
from experiments.setting import Options, Setting, make_setting, prepare
from fssd_jax import metrics
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.data.sources import digest as digest_of
from fssd_jax.data.sources import load
from fssd_jax.detectors import fssd, mahalanobis, odin
from fssd_jax.ensemble import combine, fit_swept, standardise
from fssd_jax.fssd import sweep as fssd_sweep

# Coarser than the paper's: all test images are swept, so that every rung is free.
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2)
COUNTS = (10, 100, 1000)  # labelled images of the tested set
DRAWS = 10  # of so many images, if there are more
CONTROL_IMAGES = 1000  # of each test set, about, for the controls
RUNGS = ("target", "another OoD set", "corrupted and noise", "none")


@dataclasses.dataclass(frozen=True)
class Config(Options):
    benchmark: Literal["digits", "fmnist", "fmnist6"] = "fmnist6"
    """Which data; of several OoD sets the first is taken."""
    seed: int = 0
    """Of the network, the split and the noise."""


class Swept(NamedTuple):
    """Scores [epsilon, image, column] of the six sets that a ladder needs."""

    val_ind: np.ndarray
    target: np.ndarray
    other: np.ndarray
    corrupted: np.ndarray
    test_ind: np.ndarray
    test_ood: np.ndarray


def corrupted(images: np.ndarray, key) -> np.ndarray:
    """As many images, a quarter each: uniform noise instead of the image, Gaussian
    noise (σ = 0.3) upon it, its pixels shuffled, its 16 tiles shuffled.
    """
    images = as_float(images)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    n, h, w, c = images.shape
    parts = np.array_split(rng.permutation(n), 4)
    made = images.copy()
    made[parts[0]] = rng.uniform(size=(len(parts[0]), h, w, c))
    noisy = images[parts[1]] + rng.normal(0, 0.3, (len(parts[1]), h, w, c))
    made[parts[1]] = noisy.clip(0, 1)
    for i in parts[2]:
        made[i] = rng.permutation(images[i].reshape(-1, c)).reshape(h, w, c)
    for i in parts[3]:
        tiles = images[i].reshape(4, h // 4, 4, w // 4, c).swapaxes(1, 2)
        tiles = rng.permutation(tiles.reshape(16, h // 4, w // 4, c))
        tiles = tiles.reshape(4, 4, h // 4, w // 4, c).swapaxes(1, 2)
        made[i] = tiles.reshape(h, w, c)
    return made.astype(np.float32)


# ---- one network, swept once --------------------------------------------------------


def sweeps(s: Setting, epsilons) -> dict[str, tuple[Callable, Any, Any]]:
    """(sweep, network function, state) of each method."""
    singularity = fssd.fit(s.feature_fn, s.variables, s.noise).singularity
    train = s.schedule.train
    gaussians = mahalanobis.estimate_gaussians(
        s.feature_fn, s.variables, train.x, train.y, s.benchmark.num_classes
    )
    temperatures = jnp.asarray(odin.TEMPERATURES)
    grid = (temperatures, jnp.asarray(epsilons, jnp.float32))
    return {
        "fssd": (fssd_sweep, s.feature_fn, singularity),
        "mahalanobis": (mahalanobis.sweep, s.feature_fn, gaussians),
        "odin": (odin.sweep, s.logit_fn, grid),
    }


def swept(s: Setting, sets: dict[str, np.ndarray], epsilons, folder: Path):
    """All methods' scores of all sets, swept or taken from `folder`."""
    found = {}
    size = min(64, *(len(x) for x in sets.values()))  # one compilation for all sets
    for name, (sweep, apply_fn, state) in sweeps(s, epsilons).items():
        path = folder / f"{name}.npz"
        if not path.exists():
            options: dict[str, Any] = {"batch_axis": 1, "batch_size": size}
            if name != "odin":
                options["epsilons"] = jnp.asarray(epsilons, jnp.float32)
            apply = partial(map_batches, sweep, apply_fn, s.variables, state, **options)
            arrays = {
                part: apply(x, progress=f"{name}, {part}") for part, x in sets.items()
            }
            temporary = path.with_suffix(".unfinished.npz")
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
            temporary.rename(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            found[name] = Swept(**{part: content[part] for part in sets})
    return found


# ---- the ladder ---------------------------------------------------------------------


def by_labels(
    name: str, d: Swept, ind: np.ndarray, ood: np.ndarray, epsilons, seed: int
) -> float:
    """AUROC on the test sets; `ind`, `ood` [epsilon, image, column] choose all."""
    if name == "odin":
        e, t, _ = odin.choose(ind, ood)
        return metrics.auroc(d.test_ind[e, :, t], d.test_ood[e, :, t])
    layers = [str(k) for k in range(ood.shape[2])]
    choice, weights = fit_swept(ind, ood, epsilons, layers, seed)
    best = list(epsilons).index(choice.epsilon)
    return _combined(weights, d, best)


def without_labels(name: str, d: Swept, s: Setting) -> float:
    """AUROC of what the method is where it may see no OoD image."""
    if name == "odin":  # the largest temperature, no step
        return metrics.auroc(d.test_ind[0, :, -1], d.test_ood[0, :, -1])
    if name == "fssd":
        weights = fssd.fit(s.feature_fn, s.variables, s.noise, s.val_ind).ensemble
    else:
        layers = [str(k) for k in range(d.val_ind.shape[2])]
        weights = standardise(d.val_ind[0], layers)
    return _combined(weights, d, 0)


def _combined(weights, d: Swept, e: int) -> float:
    scores = (combine(weights, jnp.asarray(x[e])) for x in (d.test_ind, d.test_ood))
    return metrics.auroc(*map(np.asarray, scores))


def control(name: str, s: Setting, ind: np.ndarray, ood: np.ndarray) -> float:
    """AUROC of a control that is fitted on these images."""
    scored = CONTROLS[name](s._replace(val_ind=ind, val_ood=ood))
    assert isinstance(scored, Scored)
    return metrics.auroc(scored.ind, scored.ood)


def ladder(s: Setting, sets, found: dict[str, Swept], epsilons) -> dict[str, Any]:
    """AUROC of every method: on each rung, and for each number of labels (a list of
    draws, each of as many in-distribution as OoD images).
    """
    rng = np.random.default_rng(s.seed)
    sizes = len(s.val_ind), len(sets["target"])
    draws = {
        count: [
            tuple(np.sort(rng.choice(n, count, replace=False)) for n in sizes)
            for _ in range(1 if count == min(sizes) else DRAWS)
        ]
        for count in COUNTS
        if count <= min(sizes)
    }
    rungs, counts = {}, {}
    calibration = ("target", "other", "corrupted")
    for name, d in found.items():
        of = partial(by_labels, name, d, epsilons=epsilons, seed=s.seed)
        values = [of(d.val_ind, getattr(d, part)) for part in calibration]
        values.append(without_labels(name, d, s))
        rungs[name] = dict(zip(RUNGS, values, strict=True))
        counts[name] = {0: [rungs[name]["none"]]} | {
            n: [of(d.val_ind[:, i], d.target[:, j]) for i, j in of_n]
            for n, of_n in draws.items()
        }
    # A support vector machine is slow to apply: every so many test images are enough.
    thin = s._replace(
        test_ind=s.test_ind[:: len(s.test_ind) // CONTROL_IMAGES or 1],
        test_ood=s.test_ood[:: len(s.test_ood) // CONTROL_IMAGES or 1],
    )
    for name in ("control: pixel stats", "control: raw pixels"):
        values = [control(name, thin, s.val_ind, sets[part]) for part in calibration]
        rungs[name] = dict(zip(RUNGS, values, strict=False))
        counts[name] = {
            n: [control(name, thin, s.val_ind[i], sets["target"][j]) for i, j in of_n]
            for n, of_n in draws.items()
        }
    return {"rungs": rungs, "counts": counts}


def run(config: Config) -> dict[str, Any]:
    folder = common.writable(config.out / "leakage")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = next(iter(benchmark.ood))
    prepared = prepare(benchmark, config.seed, config)
    s = make_setting(benchmark, prepared, pair, PROTOCOLS["paper"], config)
    epsilons = EPSILONS[::4] if config.tiny else EPSILONS
    key = jax.random.fold_in(jax.random.key(config.seed), 106)
    others = load("photo_patches", "test")
    sets = {
        "val_ind": s.val_ind,
        "target": s.val_ood,
        "other": others.x[: len(s.val_ood)],
        "corrupted": corrupted(s.val_ind, key),
        "test_ind": s.test_ind,
        "test_ood": s.test_ood,
    }
    identity = {
        "network": common.tree_digest(s.variables),
        "data": {name: digest_of(x) for name, x in sets.items()},
        "noise": digest_of(np.asarray(s.noise)),
        "train": common.training_digest(s.schedule.train),
        "code": common.code_digest((*common.SCORING, "experiments/leakage.py")),
        "epsilons": epsilons,
        "versions": common.versions(),
        "device": (common.device(), common.available_cores()),
    }
    digest = common.config_digest(identity)
    kept = common.writable(config.out / "scores" / f"leakage-{pair}-{digest}")
    found = ladder(s, sets, swept(s, sets, epsilons, kept), epsilons)
    facts = {
        "benchmark": pair,
        "seed": config.seed,
        "epsilons": epsilons,
        "epochs": prepared.schedule.of_seed(config.seed),
        "counts_of_sets": {name: len(x) for name, x in sets.items()},
        "sources": table2.sources(
            benchmark.train, benchmark.test, benchmark.ood[pair], others
        ),
        **found,
        "versions": common.versions(),
        "device": common.device(),
    }
    path = folder / f"{pair}-{config.seed}-{digest}"
    sheets = to_sheets(facts)
    with common.results_folder(path) as target:
        common.write_json(target / "metrics.json", facts)
        for ending, as_text in tables.FORMATS.items():
            text = "\n".join(as_text(sheet) for sheet in sheets)
            (target / f"table.{ending}").write_text(text)
        figure = plots.leakage(found["rungs"], found["counts"], pair)
        plots.save(figure, target / "leakage")
    for sheet in sheets:
        tables.print_sheet(Console(width=None if sys.stdout.isatty() else 140), sheet)
    print(f"results: {path}")
    return facts


def to_sheets(facts: dict[str, Any]) -> list[tables.Sheet]:
    title = f"{facts['benchmark']}, seed {facts['seed']}"
    rungs = [
        [name, *(f"{100 * of[r]:.1f}" if r in of else "" for r in RUNGS)]
        for name, of in facts["rungs"].items()
    ]
    numbers = sorted({n for of in facts["counts"].values() for n in of})
    counts = [
        [name, *(_spread(of[n]) if n in of else "" for n in numbers)]
        for name, of in facts["counts"].items()
    ]
    sizes = facts["counts_of_sets"]
    return [
        tables.Sheet(
            f"{title}: AUROC by what chose ε, temperature and weights",
            ["method", *RUNGS],
            rungs,
            [
                f"In %. {sizes['target']:,} images of the tested set, "
                f"{sizes['other']:,} patches of photographs, {sizes['corrupted']:,} "
                "corrupted images, each beside "
                f"{sizes['val_ind']:,} in-distribution ones; ε of "
                f"{', '.join(f'{e:g}' for e in facts['epsilons'])}. Controls on every "
                f"few of the test images, about {CONTROL_IMAGES:,} of each set."
            ],
        ),
        tables.Sheet(
            f"{title}: AUROC by the number of labelled images of the tested set",
            ["method", *map(str, numbers)],
            counts,
            [
                "In %; beside as many in-distribution images, but at 0, where FSSD and "
                f"Mahalanobis are standardised on all {sizes['val_ind']:,}; mean and "
                f"range over {DRAWS} draws, where there is a choice."
            ],
        ),
    ]


def _spread(values: list[float]) -> str:
    low, mean, high = (100 * f(values) for f in (min, np.mean, max))
    return f"{mean:.1f}" + (f" [{low:.1f}, {high:.1f}]" if len(values) > 1 else "")


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
