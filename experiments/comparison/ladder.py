"""The leakage ladder: one network, swept once, and what chooses ε and weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.comparison import protocols
from experiments.comparison.controls import CONTROLS
from experiments.comparison.setting import Setting
from experiments.harness.files import load_arrays, save_arrays
from experiments.harness.keys import Use, of_seed
from fssd_jax import metrics
from fssd_jax.data.benchmarks import draw
from fssd_jax.data.corruptions import corrupted
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import fssd, mahalanobis, odin
from fssd_jax.ensemble import combine, fit_swept, standardise

# Coarser than the paper's: all test images are swept, so that every rung is free.
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2)
COUNTS = (10, 100, 1000)  # labelled images of the tested set
DRAWS = 10  # of so many images, if there are more
CONTROL_IMAGES = 1000  # of each test set, about, for the controls
LADDER_CONTROLS = ("pixel_stats", "raw_pixels")
RUNGS = ("target", "another OoD set", "corrupted and noise", "none")


class Swept(NamedTuple):
    """Scores [epsilon, image, column] of the six sets that a ladder needs."""

    val_ind: np.ndarray
    target: np.ndarray
    other: np.ndarray
    corrupted: np.ndarray
    test_ind: np.ndarray
    test_ood: np.ndarray


def sets_of(s: Setting, others: ArrayDataset) -> dict[str, np.ndarray]:
    """The images that a ladder needs, by the fields of `Swept`."""
    assert s.val_ood is not None
    return {
        "val_ind": s.val_ind,
        "target": s.val_ood,
        # Neighbouring patches are of one picture, and at first of its sky.
        "other": draw(others.x, len(s.val_ood), of_seed(s.seed, Use.PHOTOGRAPHS)),
        "corrupted": corrupted(s.val_ind, of_seed(s.seed, Use.CORRUPTED)),
        "test_ind": s.test_ind,
        "test_ood": s.test_ood,
    }


# ---- one network, swept once --------------------------------------------------------


def sweeps(s: Setting, epsilons) -> dict[str, tuple[Callable, Any, Any]]:
    """(sweep, network function, state) of each method."""
    singularity = fssd.fit(s.feature_fn, s.variables, s.noise).singularity
    train = s.train
    assert train is not None
    gaussians = mahalanobis.estimate_gaussians(
        s.feature_fn, s.variables, train.x, train.y, s.num_classes
    )
    temperatures = jnp.asarray(odin.TEMPERATURES)
    grid = (temperatures, jnp.asarray(epsilons, jnp.float32))
    return {
        "fssd": (fssd_jax.fssd.sweep, s.feature_fn, singularity),
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
            save_arrays(path, arrays)
        found[name] = Swept(**load_arrays(path))
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
    """AUROC of what the method is where it may see no OoD image; FSSD is `clean`."""
    if name == "odin":  # the largest temperature, no step
        return metrics.auroc(d.test_ind[0, :, -1], d.test_ood[0, :, -1])
    if name == "fssd":
        network = s.feature_fn, s.variables
        weights = protocols.fit_clean(*network, s.noise, s.val_ind).ensemble
    else:
        layers = [str(k) for k in range(d.val_ind.shape[2])]
        weights = standardise(d.val_ind[0], layers)
    return _combined(weights, d, 0)


def _combined(weights, d: Swept, e: int) -> float:
    scores = (combine(weights, jnp.asarray(x[e])) for x in (d.test_ind, d.test_ood))
    return metrics.auroc(*map(np.asarray, scores))


def control(name: str, s: Setting, ind: np.ndarray, ood: np.ndarray) -> float:
    """AUROC of a control that is fitted on these images."""
    run = CONTROLS[name].run
    assert run is not None
    (row,) = run(s._replace(val_ind=ind, val_ood=ood)).values()
    return metrics.auroc(row.ind, row.ood)


def climb(s: Setting, sets, found: dict[str, Swept], epsilons) -> dict[str, Any]:
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
    for name in LADDER_CONTROLS:
        values = [control(name, thin, s.val_ind, sets[part]) for part in calibration]
        title = f"control: {name.replace('_', ' ')}"
        rungs[title] = dict(zip(RUNGS, values, strict=False))
        counts[title] = {
            n: [control(name, thin, s.val_ind[i], sets["target"][j]) for i, j in of_n]
            for n, of_n in draws.items()
        }
    return {"rungs": rungs, "counts": counts}
