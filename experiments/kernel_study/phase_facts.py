"""What the predictors of `phases` are worth: numbers of one run, at every moment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

import fssd_jax
from analysis import pixels
from analysis.ntk_networks import stable_rate
from experiments.kernel_study import phases
from experiments.kernel_study.forms import parts
from experiments.kernel_study.phases import NETWORK, UNDONE, UNTRAINED
from experiments.kernel_study.setting import NTK_NETWORKS, Data
from fssd_jax import metrics
from fssd_jax.data.benchmarks import Benchmark

PIXELS = "pixels"
DETECTORS = ("fssd", "displacement", "relative")
# FORM/QUANTITY/SET → [seed, moment, layer]
Numbers = dict[str, np.ndarray]


class Cell(NamedTuple):
    """One place in the grid."""

    benchmark: str
    network: str
    loss: str
    parametrisation: str
    width: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self))


class Plan(NamedTuple):
    """What is the same in all cells."""

    seeds: tuple[int, ...]
    moments: tuple[int, ...]  # steps
    starts: tuple[int, ...]  # of the linearised networks
    batch_size: int


def network_of(cell: Cell, benchmark: Benchmark) -> Any:
    return NTK_NETWORKS[cell.network](
        cell.width,
        benchmark.num_classes,
        benchmark.mean,
        benchmark.std,
        parametrisation=cell.parametrisation,
    )


def measure(
    cell: Cell, plan: Plan, rate: float, data: Sequence[Data], at_once: int
) -> Numbers:
    """Train the networks of one cell, and compare.

    Args:
      rate: η at the network's base width.
      data: of each seed.
      at_once: seeds in one compiled program.
    """
    model = network_of(cell, data[0].benchmark)
    rate, found, functions = stable_rate(model, rate), [], None
    for i in range(0, len(data), at_once):
        some = data[i : i + at_once]
        seeds = plan.seeds[i : i + at_once]
        run, state = phases.begin(model, cell.loss, rate, plan.starts, seeds, some)
        functions = functions or _functions(run, model)  # compiled once
        found.append(_some(functions, plan, run, state, some, seeds))
    return {name: np.concatenate([f[name] for f in found]) for name in found[0]}


class Functions(NamedTuple):
    advance: Callable
    look: Callable
    accuracy: Callable


def _functions(run: phases.Run, model) -> Functions:
    accuracy = _make_accuracy(fssd_jax.make_logit_fn(model))
    return Functions(phases.make_advance(run), phases.make_look(run), accuracy)


def _some(functions: Functions, plan, run, state, data, seeds) -> Numbers:
    points = jnp.stack([d.points for d in data])
    noise = jnp.stack([d.noise for d in data])
    labels = np.stack([d.labels for d in data])
    order = phases.orders(seeds, run.x.shape[1], plan.batch_size, plan.moments[-1])
    near = np.stack([pixels.nearest(d.x, d.points) for d in data])
    moments = (0, *plan.moments)
    of_moments = []
    for moment, now in phases.follow(functions.advance, run, state, order, moments):
        if moment:  # before the first step nothing has moved
            sizes = functions.look(now, run.initial, points, noise)
            late = [phases.named(start) for start in plan.starts if start > moment]
            numbers = compared(
                {k: v for k, v in sizes.items() if k.split("/")[1] not in late}, near
            )
            for quantity in ("fssd", "displacement"):  # of the logits, of each point
                size = sizes[f"{quantity}/{NETWORK}"][:, :, -1]
                numbers[f"points/{quantity}"] = size
            half = points.shape[1] // 2
            for name, x, y in (
                ("train", run.x, run.y),
                ("test", points[:, :half], labels),
            ):
                right = functions.accuracy(now.variables, x, y)
                numbers[f"{NETWORK}/accuracy/{name}"] = np.asarray(right)[:, None]
            of_moments.append(numbers)
    return _over_time(of_moments)


def _over_time(of_moments: Sequence[Numbers]) -> Numbers:
    """[seed, moment, …]; NaN before the start of what starts later."""
    out = {}
    for name, last in of_moments[-1].items():
        unknown = np.full_like(last, np.nan)
        out[name] = np.stack([of.get(name, unknown) for of in of_moments], axis=1)
    return out


def _make_accuracy(logit_fn):
    @jax.jit
    @jax.vmap
    def accuracy(variables, x, y):
        return (logit_fn(variables, x).argmax(-1) == y).mean()

    return accuracy


def compared(sizes: Mapping[str, np.ndarray], near: np.ndarray) -> Numbers:
    """Of one moment: "FORM/QUANTITY/SET" → [seed, layer].

    "error" is ‖Δ̂ − Δ‖/‖Δ‖ of the displacement, "FSSD error" that of the vector of all
    FSSD, "rank" Spearman's correlation of predicted and true FSSD within a set, "AUROC"
    that of a quantity as a detector, and of the network's FSSD² "offset" is the share
    of what was there before training, "moved" that of the displacement against F*'s.
    What is not finite, because the run diverged, is NaN.

    Args:
      sizes: "QUANTITY/FORM" → [seed, point, layer], see `phases.make_look`.
      near: [seed, point], the pixel rival.
    """
    forms = [name.split("/")[1] for name in sizes if name.startswith("fssd/")]
    truth, moved = sizes[f"fssd/{NETWORK}"], sizes[f"displacement/{NETWORK}"]
    out: Numbers = {}
    for form in forms:
        fssd = sizes[f"fssd/{form}"]
        for part, chosen in parts(truth.shape[1]).items():
            if form != NETWORK:
                gap = sizes[f"gap/{form}"][:, chosen]
                out[f"{form}/error/{part}"] = ratio(gap, moved[:, chosen])
                off = (fssd - truth)[:, chosen]
                out[f"{form}/FSSD error/{part}"] = ratio(off, truth[:, chosen])
                out[f"{form}/rank/{part}"] = ranks_agree(
                    fssd[:, chosen], truth[:, chosen]
                )
        for quantity in DETECTORS:
            if form != UNTRAINED or quantity == "fssd":
                out[f"{form}/AUROC/{quantity}"] = aurocs(sizes[f"{quantity}/{form}"])
    whole = {"offset": f"fssd/{UNTRAINED}", "moved": f"relative/{NETWORK}"}
    for part, chosen in parts(truth.shape[1]).items():
        for name, of in whole.items():
            share = ratio(sizes[of][:, chosen], truth[:, chosen]) ** 2
            out[f"{NETWORK}/{name}/{part}"] = share
        gap = sizes[f"gap/{UNDONE}"][:, chosen]
        out[f"{UNDONE}/error/{part}"] = ratio(gap, moved[:, chosen])
        wide = np.broadcast_to(near[:, :, None], truth.shape)[:, chosen]
        out[f"{PIXELS}/rank/{part}"] = ranks_agree(wide, truth[:, chosen])
    out[f"{PIXELS}/AUROC/nearest"] = aurocs(
        np.broadcast_to(near[:, :, None], truth.shape)
    )
    return out


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """√(Σ part² / Σ whole²) over the points."""
    part, whole = (np.square(a, dtype=np.float64).sum(1) for a in (part, whole))
    with np.errstate(all="ignore"):
        found = np.sqrt(part / whole)
    return np.where(np.isfinite(found), found, np.nan)


def ranks_agree(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the points [seed, point, layer] → [seed, layer]."""
    finite = np.isfinite(a).all(1) & np.isfinite(b).all(1)
    a, b = (rankdata(np.nan_to_num(v), axis=1) for v in (a, b))
    a, b = (v - v.mean(1, keepdims=True) for v in (a, b))
    norms = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    known = finite & (norms > 0)
    return np.where(known, (a * b).sum(1) / np.where(known, norms, 1), np.nan)


def aurocs(sizes: np.ndarray) -> np.ndarray:
    """[seed, point, layer], in-distribution first → [seed, layer]."""
    half = sizes.shape[1] // 2
    return np.array(
        [
            [
                metrics.auroc(column[:half], column[half:])
                if np.isfinite(column).all()
                else np.nan
                for column in of_seed.T
            ]
            for of_seed in sizes
        ]
    )
