"""Every number of every experiment as a flat row of one vocabulary.

`record` and `records` make the rows, metrics.json holds them as "records", and `read`
gives those of one results folder or of many as a table.
"""

import glob
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.harness.files import load_json
from fssd_jax import extras
from fssd_jax.checks import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

INTERVAL = "ci95"  # what `low` and `high` are the ends of, everywhere
SETS = ("in-distribution", "OoD", "both", "noise", "training", "test")
STATISTICS = ("mean", "lower quartile", "median", "upper quartile")
# quantity → unit. "1": a fraction, or a number without unit; "feature": a length in a
# layer's space; "time": learning rate × steps; "pixel": a length between images.
QUANTITIES = {
    "AUROC": "1",
    "AUROC, ε = 0": "1",  # where an ε was chosen beside
    "AUPRC": "1",
    "AUPRC out": "1",  # OoD positive
    "FPR50": "1",
    "FPR80": "1",
    "FPR90": "1",
    "FPR95": "1",
    "FPR99": "1",
    # By OpenOOD: of in-distribution images, where 95 % of OoD ones are found; areas by
    # trapezoids, in-distribution or OoD positive.
    "FPR@95": "1",
    "AUPR in": "1",
    "AUPR out": "1",
    "difference of AUROC": "1",  # of `method` less `against`
    "p": "1",  # of that difference
    "accuracy": "1",
    "loss": "nat",
    "parameters": "1",
    "dimensions": "1",  # of a layer
    "ε": "1",  # of the input step; pixels are in [0, 1]
    "α": "1",  # weight of a layer
    "threshold": "score",
    # ---- features and their movement
    "distance": "feature",  # ‖F − F*‖
    "relative distance": "1",  # root mean squared ‖F − F*‖ / ‖F*‖
    "cosine with F*": "1",
    "spread of noise": "feature",  # mean distance of noise from F*
    "displacement": "feature",  # ‖F_t − F_0‖
    "speed": "feature/time",  # ‖dF/dt‖, Eq. (3)
    "moved by a step": "feature",
    "movement of F*": "feature",  # ‖F*_T − F*_0‖
    # ---- Eq. (4); the forms are methods
    "relative error": "1",  # of a form, to the displacement
    "relative error of FSSD": "1",  # of a form's FSSD, to the network's
    "AUROC of displacement": "1",
    "AUROC of relative displacement": "1",  # against that of F*
    "share of offset": "1",  # of Σ FSSD²
    "share of cross": "1",
    "share of moved": "1",
    "share of offset, F* moving": "1",
    "share of cross, F* moving": "1",
    "share of moved, F* moving": "1",
    "pearson with FSSD": "1",
    "spearman with FSSD": "1",
    "pearson with displacement": "1",
    "spearman with displacement": "1",
    # ---- kernels
    "kernel drift": "1",
    "kernel distance": "1",  # of shapes, Fort et al. (2020)
    "effective rank": "1",
    "kernel alignment": "1",  # with the labels
    "floor of kernel alignment": "1",  # its mean over permuted labels
    "debiased kernel alignment": "1",
    "normalised kernel": "1",
    "R² of RBF": "1",
    "R² of a·RBF + b": "1",
    "RBF length": "pixel",
    "spearman with distance": "1",
    "length of movement": "feature",
    "share of top": "1",  # of the push, of the training images that pushed most
    "images for half": "1",  # training images that make half of the push
}


class Record(NamedTuple):
    """One number: of what, of which part, and its interval (`INTERVAL`) if known."""

    benchmark: str | None = None
    network: str | None = None
    width: int | None = None
    seed: int | None = None
    method: str | None = None  # a row of the comparison, a form of Eq. (4), a control
    against: str | None = None  # of a difference
    condition: str | None = None  # what the experiment varies beside: protocol, loss, …
    train_images: int | None = None
    labels: int | None = None  # labelled images of the tested OoD set
    step: int | None = None  # of training
    draw: int | None = None  # which of several images, or choices of them
    layer: str | None = None
    set: str | None = None
    quantity: str = ""
    statistic: str | None = None  # over the set's images
    unit: str = "1"
    value: float = 0.0
    low: float | None = None
    high: float | None = None


NUMBERS = ("value", "low", "high")
COUNTS = ("width", "seed", "train_images", "labels", "step", "draw")
BESIDE = ("experiment", "folder", "digest")  # of the reader


def record(
    quantity: str,
    value: float,
    interval: Iterable[float | None] = (None, None),
    **keys,
) -> Record:
    """One row.

    Args:
      quantity: of `QUANTITIES`, which has its unit.
      value: in that unit.
      interval: its ends, if they are known.
      keys: other fields of `Record`.

    Raises:
      ValueError: a quantity, set or statistic that the vocabulary has not.
    """
    low, high = (None if end is None else float(end) for end in interval)
    for what, word, known in (
        ("quantity", quantity, QUANTITIES),
        ("set", keys.get("set"), SETS),
        ("statistic", keys.get("statistic"), STATISTICS),
    ):
        if word is not None and word not in known:
            raise ValueError(f"{what} {word!r} is none of {', '.join(known)}")
    unit = QUANTITIES[quantity]
    number = float(value)
    return Record(
        **keys, quantity=quantity, unit=unit, value=number, low=low, high=high
    )


def records(values: Mapping[str, float | None], **keys) -> list[Record]:
    """A row for each quantity that is known; `keys` are of all of them."""
    return [record(q, v, **keys) for q, v in values.items() if v is not None]


def rows(found: Iterable[Record]) -> list[dict]:
    """What metrics.json holds.

    Raises:
      ValueError: two rows that only their number tells apart.
    """
    told = [r._asdict() for r in found]
    seen = set()
    for row in told:
        keys = tuple(v for k, v in row.items() if k not in NUMBERS)
        if keys in seen:
            raise ValueError(f"two records of one thing: {row}")
        seen.add(keys)
    return told


def read(where: str | Path) -> "DataFrame":
    """The records of results: a column a field of `Record`, and where they are from.

        frame = records.read("results")
        frame = records.read("results/table2/*-paper-*")
        frame[frame.quantity == "AUROC"].groupby("method").value.mean()

    Args:
      where: a folder of results, one that holds any number of them, a metrics.json by
        whatever name, or a pattern of such paths.

    Raises:
      InputError: nothing is there, a file is damaged, or holds no records.
      MissingExtraError: without pandas.
    """
    pandas = extras.need("pandas", "records as a table")
    found = [row for path in metrics_files(where) for row in _rows(path)]
    frame = pandas.DataFrame(found, columns=[*BESIDE, *Record._fields])
    kinds = dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(COUNTS, "Int64")
    return frame.astype(kinds)


def metrics_files(where: str | Path) -> list[Path]:
    """Paths of metrics.json, sorted; arguments and errors as of `read`."""
    files = []
    # A folder may have "[" in its name.
    there = [where] if Path(where).exists() else glob.glob(str(where), recursive=True)
    for path in sorted(map(Path, there)):
        if path.is_dir():
            within = sorted(path.rglob("metrics.json"))
            # A folder that is being written begins with a dot.
            hidden = [p for p in within if is_hidden(p.relative_to(path))]
            files += [p for p in within if p not in hidden]
        else:
            files.append(path)
    if not files:
        raise InputError(
            f"{where}: no metrics.json is there; give a folder of results, such as "
            "what --out names"
        )
    return files


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _rows(path: Path) -> list[dict]:
    mend = "delete it, and run the experiment again"
    facts = load_json(path, mend)
    found = facts.get("records") if isinstance(facts, dict) else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(
            f"{path}: holds no records, an older version wrote it or it is none of "
            "ours; run the experiment again, or name the folders to read"
        )
    config = path.with_name("config.json")
    of = load_json(config, mend) if config.exists() else {}
    digest = re.search(r"-([0-9a-f]{8})$", path.parent.name)
    beside = (of.get("experiment"), path.parent.name, digest and digest[1])
    return [dict(zip(BESIDE, beside, strict=True)) | row for row in found]
