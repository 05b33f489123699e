"""Changed test sets, scored by methods that are fitted once (Figures 4 and 5).

All changed sets are laid behind each other and make one setting: each method is fitted
on the validation images, which are its only ones, and then scores all sets in one go,
so that networks, weights, ε and temperatures are the same for all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from experiments.comparison.answers import answer
from experiments.comparison.controls import CONTROLS
from experiments.comparison.methods import METHODS
from experiments.comparison.setting import Setting
from fssd_jax import metrics
from fssd_jax.checks import InputError
from fssd_jax.data import frost_pictures, imagenet_c
from fssd_jax.data.imagenet_c import KINDS, LEVELS

# As in Table 2 of the paper.
PAPER = (
    *("msp", "odin", "mahalanobis", "deep_ensemble", "mc_dropout"),
    *("outlier_exposure", "fssd"),
)
# Of `CONTROLS`: an untrained network, and none at all.
RIVALS = ("untrained", "pixel_stats", "nearest_in_pixels", "brightness")
# Values, from which on corruptions are made in processes: 2,000 images of CIFAR-10.
MANY = 2000 * 32 * 32 * 3
# Parts of a row that is there whole, and rows of other images than the pair's.
INSIDE = ("mc dropout, mean", "mc dropout, variance")


@dataclass(frozen=True, eq=False)
class Stacked:
    """Sets behind each other: to NumPy, one array, of which no whole is in memory.

    Attributes:
      sets: of one shape [n, …] and type: arrays, which may lie in files, or `Decoded`.
    """

    sets: Sequence[Any]

    @property
    def dtype(self) -> np.dtype:
        return self.sets[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.sets[0].shape[1:]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def __getitem__(self, chosen) -> np.ndarray:
        """An image, or those of a slice, of numbers or of a mask, in one array."""
        which, at = np.divmod(np.arange(len(self))[chosen], len(self.sets[0]))
        if not np.ndim(which):
            return self.sets[int(which)][at]
        found = np.empty((len(which), *self.shape[1:]), self.dtype)
        for k in np.unique(which):
            found[which == k] = self.sets[k][at[which == k]]
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All of them, which are to fit in memory."""
        del copy
        return np.asarray(self[:], dtype)


class Shifted(NamedTuple):
    # row → scores, higher in-distribution: [n] and [sets, n], or [sets, n] twice.
    ind: dict[str, np.ndarray]
    ood: dict[str, np.ndarray]
    left_out: dict[str, str]  # what was asked for and gives no row → why
    failed: dict[str, str]


# ---- the sets -----------------------------------------------------------------------


def available(kinds: Iterable[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The kinds asked for; None: all that can be made, and of the others why not.

    Raises:
      InputError: unknown kinds, none, or one that is asked for and cannot be made.
    """
    if kinds is None:
        try:
            frost_pictures.folder()
        except InputError as error:
            return tuple(k for k in KINDS if k != "frost"), {"frost": str(error)}
        return KINDS, {}
    asked = tuple(dict.fromkeys(kinds))
    wrong = [kind for kind in asked if kind not in KINDS]
    if wrong or not asked:
        raise InputError(
            f"--kinds: unknown {', '.join(wrong) or '(none given)'}; choose from "
            + ", ".join(KINDS)
        )
    if "frost" in asked:
        frost_pictures.folder()
    return asked, {}


def corrupted(
    x: Any,
    kinds: Iterable[str],
    levels: Iterable[int] = LEVELS,
    *,
    seed: int,
    cache: Path | None,
) -> dict[tuple[str, int], np.ndarray]:
    """(kind, level) → the same images, corrupted; with a cache in files, not memory."""
    cells = [(kind, level) for kind in kinds for level in levels]
    how = {"seed": seed, "cache": cache, "workers": _workers(x), "progress": False}
    return {
        cell: imagenet_c.corrupt(x, *cell, **how)
        for cell in tqdm(cells, desc="corrupting", unit="set", disable=None)
    }


def noised(
    x: Any,
    amounts: Mapping[str, Iterable[float]],
    *,
    seed: int,
    cache: Path | None,
) -> dict[tuple[str, float], Any]:
    """(noise, amount) → the same images with that noise; at 0 they are as they were.

    Args:
      amounts: of `imagenet_c.NOISES`: standard deviations of Gaussian noise, shares
        of the values of impulses.
    """
    cells = [(kind, amount) for kind, of in amounts.items() for amount in of]
    how = {"seed": seed, "cache": cache, "workers": _workers(x), "progress": False}
    return {
        (kind, amount): imagenet_c.noisy(x, kind, amount, **how) if amount else x
        for kind, amount in tqdm(cells, desc="noise", unit="set", disable=None)
    }


def _workers(x: Any) -> int | None:
    """To start processes for each of many small sets would take longer than they do."""
    return None if x.size >= MANY else 0


def corrupted_validation(
    x: np.ndarray, kinds: Iterable[str], levels: Iterable[int] = LEVELS, *, seed: int
) -> np.ndarray:
    """Each image in one kind and level, all of these about equally often."""
    cells = [(kind, level) for kind in kinds for level in levels]
    parts = np.array_split(np.asarray(x), len(cells))
    made = [
        imagenet_c.corrupt(part, *cell, seed=seed, workers=0, progress=False)
        for part, cell in zip(parts, cells, strict=True)
        if len(part)
    ]
    return np.concatenate(made)


# ---- the scores ---------------------------------------------------------------------


def score(
    s: Setting,
    names: Iterable[str],
    folder: Path,
    ind: Any,
    ood: list[Any],
    told: Callable[[str], Any] = lambda name: None,
) -> Shifted:
    """Scores of all sets by methods that are fitted once.

    Args:
      s: whose validation images, noise and networks are taken, and no test image.
      names: of `METHODS`; the controls `RIVALS` are run beside them.
      folder: where the scores are kept, of these sets only.
      ind: the in-distribution images [n, …]; or a list of as many sets as `ood` has.
      ood: sets of OoD images, of one size.
      told: called with the name of each method.
    """
    many = isinstance(ind, list)
    stacked = s._replace(test_ind=Stacked(ind) if many else ind, test_ood=Stacked(ood))
    groups = {
        "methods": METHODS,
        "controls": {name: CONTROLS[name] for name in RIVALS},
    }
    found = answer(stacked, names, folder, told=told, groups=groups)
    rows = {
        name: row
        for of in found.groups.values()
        for name, row in of.items()
        # Photographs as OoD are others than the sets.
        if name not in INSIDE and not name.endswith(", photographs")
    }
    return Shifted(
        {
            k: row.ind.reshape(len(ood), -1) if many else row.ind
            for k, row in rows.items()
        },
        {k: row.ood.reshape(len(ood), -1) for k, row in rows.items()},
        found.left_out,
        found.failed,
    )


def aurocs(found: Shifted) -> dict[str, np.ndarray]:
    """row → AUROC of each set."""
    return {
        name: np.array(
            [metrics.auroc(i, o) for i, o in _pairs(found.ind[name], found.ood[name])]
        )
        for name in found.ood
    }


def intervals(found: Shifted) -> dict[str, np.ndarray]:
    """row → ends [sets, 2] of the 95 % interval of new images."""
    return {
        name: np.array(
            [
                metrics.evaluate(i, o).auroc_ci95
                for i, o in _pairs(found.ind[name], found.ood[name])
            ]
        )
        for name in found.ood
    }


def _pairs(ind: np.ndarray, ood: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    inside = ind if ind.ndim == 2 else [ind] * len(ood)
    return list(zip(inside, ood, strict=True))


class Box(NamedTuple):
    """Of the AUROCs at one level, over the kinds."""

    low: float
    lower: float  # quartile
    median: float
    upper: float
    high: float
    mean: float


def boxes(of_kinds: np.ndarray) -> list[Box]:
    """A box a level, of AUROCs [kinds, levels]; quartiles are interpolated linearly."""
    five = np.quantile(of_kinds, [0, 0.25, 0.5, 0.75, 1], axis=0)
    return [
        Box(*map(float, (*column, mean)))
        for column, mean in zip(five.T, of_kinds.mean(axis=0), strict=True)
    ]


def checked_methods(names: Iterable[str]) -> tuple[str, ...]:
    """In the order of the table; `paper` stands for the paper's seven, `all` for all.

    Raises:
      InputError: unknown names, or none.
    """
    asked = {n for name in names for n in (PAPER if name == "paper" else (name,))}
    wrong = sorted(asked - {*METHODS, "all"})
    if wrong or not asked:
        raise InputError(
            f"--methods: unknown {', '.join(wrong) or '(none given)'}; choose from "
            + ", ".join(("paper", "all", *METHODS))
        )
    return tuple(name for name in METHODS if name in asked or "all" in asked)
