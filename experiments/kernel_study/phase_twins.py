"""What infinitely wide networks say of the logits of those of `phases`.

infinite               √E FSSD² over all f_0
infinite, own f_0      regression with the limit's kernel, begun as this network
infinite, f_0 · SCALE  networks of infinite width whose f_0 is drawn, and scaled: what
                       AUROC they have, in the mean
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

import fssd_jax
from analysis import infinite_runs, infinite_width
from analysis.infinite_runs import Twin
from experiments.harness import files
from experiments.kernel_study.forms import parts
from experiments.kernel_study.phase_facts import (
    Cell,
    Numbers,
    Plan,
    aurocs,
    network_of,
    ranks_agree,
    ratio,
)
from experiments.kernel_study.setting import TWINS, Data
from fssd_jax.features import make_init_fn

INFINITE, OWN = "infinite", "infinite, own f_0"
DRAWN = {scale: f"infinite, f_0 · {scale:g}" for scale in (1.0, 0.5, 0.25, 0.0)}
DRAWS = 50
Sizes = dict[str, np.ndarray]  # "fssd" and "displacement" → [seed, moment, point]


def has_twin(cell: Cell) -> bool:
    return (
        cell.network in TWINS
        and cell.loss == "squared"
        and cell.parametrisation == "ntk"
    )


def compared(
    cells: Mapping[Cell, Numbers],
    plan: Plan,
    rate: float,
    data: Sequence[Data],
    chosen: np.ndarray,
    folder: Path,
) -> dict[Cell, Numbers]:
    """Of each cell of one set of data and network, what its twins are worth.

    Args:
      cells: what was measured, with "points/…".
      rate: η at the network's base width.
      data: of each seed.
      chosen: numbers of the points that are compared.
      folder: where what was predicted is kept.
    """
    some = next(iter(cells))
    few = [d._replace(points=d.points[chosen]) for d in data]
    drawn: list[Twin] = []

    def twins() -> list[Twin]:
        if not drawn:  # minutes, and the same for all widths
            print(f"infinitely wide {some.network}, {some.benchmark}", flush=True)
            drawn.extend(twin_of(some, plan, rate, d) for d in few)
        return drawn

    def kept(name: str, predict: Callable[[], Sizes]) -> Sizes:
        path = folder / f"infinite-{some.network}{name}.npz"
        if not path.exists():
            files.save_arrays(path, predict())
        return files.load_arrays(path)

    expected = kept("", lambda: in_expectation(some, plan, rate, few))
    of_draws = kept("-drawn", lambda: of_drawn(twins(), plan, few))
    out = {}
    for cell, numbers in cells.items():
        own = kept(f"-{cell.width}", lambda c=cell: from_own(c, plan, twins(), few))
        points = {
            k: numbers[f"points/{k}"][..., chosen] for k in ("fssd", "displacement")
        }
        found = {**judged(INFINITE, expected, points), **judged(OWN, own, points)}
        found |= {
            name: of_quantity[:, :, None] for name, of_quantity in of_draws.items()
        }
        # The logits alone move in the limit, and are the last layer.
        layers = numbers["network/AUROC/fssd"].shape[-1]
        unknown = [(0, 0), (0, 0), (layers - 1, 0)]
        out[cell] = {
            k: np.pad(v, unknown, constant_values=np.nan) for k, v in found.items()
        }
    return out


def targets_of(cell: Cell, data: Data) -> np.ndarray:
    """Y, as the squared loss has it."""
    classes = network_of(cell, data.benchmark).num_classes
    return np.eye(classes)[data.y] - 1 / classes


def times_of(plan: Plan, rate: float) -> list[float]:
    return [rate * moment for moment in plan.moments]


def in_expectation(cell: Cell, plan: Plan, rate: float, data: Sequence[Data]) -> Sizes:
    """√E FSSD² and √E‖Δ‖²."""
    model = network_of(cell, data[0].benchmark)
    found: dict[str, list] = {"fssd": [], "displacement": []}
    for of_seed in data:
        squares = infinite_width.expected_squares(
            *(model, of_seed.x, targets_of(cell, of_seed), times_of(plan, rate)),
            *(of_seed.points, of_seed.noise),
        )
        for name in found:
            found[name].append(np.sqrt([getattr(at, name) for at in squares]))
    return {name: np.stack(of) for name, of in found.items()}


def twin_of(cell: Cell, plan: Plan, rate: float, data: Data) -> Twin:
    """Of the points, and of noise after them."""
    return infinite_runs.twin(
        network_of(cell, data.benchmark),
        *(data.x, targets_of(cell, data), times_of(plan, rate)),
        np.concatenate([data.points, data.noise]),
    )


def lengths(twin: Twin, initial, initial_train, points: int) -> Sizes:
    """FSSD and displacement of the points [moment, point], from f_0.

    Args:
      initial: f_0 of the points and of noise after them.
      initial_train: f_0 of the training images.
      points: how many.
    """
    f = infinite_runs.trained(twin, initial, initial_train)
    star = f[:, points:].mean(1, keepdims=True)
    vectors = {"fssd": f - star, "displacement": f - initial[None]}
    return {k: np.linalg.norm(v[:, :points], axis=-1) for k, v in vectors.items()}


def from_own(
    cell: Cell, plan: Plan, twins: Sequence[Twin], data: Sequence[Data]
) -> Sizes:
    """Those that begin as the networks of this cell."""
    model = network_of(cell, data[0].benchmark)
    init, logit_fn = make_init_fn(model), jax.jit(fssd_jax.make_logit_fn(model))
    found = []
    for seed, twin, of_seed in zip(plan.seeds, twins, data, strict=True):
        variables = init(jax.random.key(seed), of_seed.x[:1])
        of_points, of_noise, of_train = (
            np.asarray(logit_fn(variables, x), np.float64)
            for x in (of_seed.points, of_seed.noise, of_seed.x)
        )
        initial = np.concatenate([of_points, of_noise])
        found.append(lengths(twin, initial, of_train, len(of_points)))
    return {k: np.stack([of[k] for of in found]) for k in found[0]}


def of_drawn(twins: Sequence[Twin], plan: Plan, data: Sequence[Data]) -> Numbers:
    """The mean AUROC of networks that are drawn: [seed, moment].

    What f_0 does is told by scaling it, the kernel being what it is; f_0 · 1/2 and 1/4
    have muP's networks of 4 and 16 times the base width at their start.
    """
    found: dict[str, list] = {}
    for seed, twin, of_seed in zip(plan.seeds, twins, data, strict=True):
        rng, points = np.random.default_rng(seed), len(of_seed.points)
        starts = [infinite_runs.draw(twin, rng) for _ in range(DRAWS)]
        for scale, name in DRAWN.items():
            of = [lengths(twin, scale * f, scale * g, points) for f, g in starts]
            for k in of[0]:
                sizes = np.stack([size[k] for size in of]).transpose(0, 2, 1)
                found.setdefault(f"{name}/AUROC/{k}", []).append(aurocs(sizes).mean(0))
    return {name: np.stack(of) for name, of in found.items()}


def judged(form: str, predicted: Sizes, measured: Sizes) -> Numbers:
    """As `phase_facts.compared`, of lengths alone: [seed, moment, 1]."""
    there, here = (
        {k: np.asarray(of[k]) for k in ("fssd", "displacement")}
        for of in (predicted, measured)
    )
    of_moments = []
    for moment in range(there["fssd"].shape[1]):
        guess, truth = (
            {k: v[:, moment, :, None] for k, v in of.items()} for of in (there, here)
        )
        out: Numbers = {}
        for part, of_part in parts(truth["fssd"].shape[1]).items():
            a, b = guess["fssd"][:, of_part], truth["fssd"][:, of_part]
            out[f"{form}/FSSD error/{part}"] = ratio(a - b, b)
            out[f"{form}/rank/{part}"] = ranks_agree(a, b)
        for quantity, size in guess.items():
            out[f"{form}/AUROC/{quantity}"] = aurocs(size)
        of_moments.append(out)
    return {k: np.stack([of[k] for of in of_moments], axis=1) for k in of_moments[0]}


def some_points(data: Data, count: int) -> np.ndarray:
    """Numbers of the first `count` points of each set."""
    half = len(data.points) // 2
    first = np.arange(min(count, half))
    return np.concatenate([first, half + first])
