"""The scores of a method on one pair of data sets, and how they are kept on disk."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.setting import Setting
from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import map_batches

WARM_UP = 512  # images scored before the clock starts, so that it measures no compiling


class LayerScores(NamedTuple):
    """What FSSD-Ensem combined: distances [images, layers] of the test sets."""

    names: list[str]
    dims: list[int]
    alpha: np.ndarray  # [layers]
    spread: np.ndarray  # [layers] of the noise
    epsilon: float
    epsilons: np.ndarray  # [tried] and how good each was; empty if none was
    criterion: np.ndarray
    ind: np.ndarray  # after the input step
    ood: np.ndarray
    plain_ind: np.ndarray  # Eq. (1) as it stands, ε = 0
    plain_ood: np.ndarray


class Scored(NamedTuple):
    """Scores of the test images, what they were fitted on, and what they cost."""

    ind: np.ndarray  # [n] of the in-distribution images
    ood: np.ndarray  # [m]
    fitted_on: str = "nothing"  # which images, beyond the classifier's; for the reader
    target_ood: bool = False  # whether images of the tested OoD set were among them
    note: str = ""  # what was chosen
    training: str = "none"  # beyond the classifier
    passes: str = "1"  # through the network for each image
    data: str = "nothing"  # needed at test time beside the weights
    seconds: float | None = None  # per 1,000 images
    layers: LayerScores | None = None


Rows = dict[str, Scored]
Method = Callable[[Setting], Scored | Rows]


def rows_of(name: str, method: Method, s: Setting) -> Rows:
    """All rows of a method; a single one goes by the method's own name."""
    found = method(s)
    return {name.replace("_", " "): found} if isinstance(found, Scored) else found


def scored(
    s: Setting, score: Callable, state, *, feature_fn=None, variables=None, **facts
) -> Scored:
    """A detector applied to the test images; `facts` are other fields of the result."""
    apply = partial(
        map_batches,
        score,
        feature_fn or s.logit_fn,
        s.variables if variables is None else variables,
        state,
    )
    ind, ood, seconds = timed(apply, s.test_ind, s.test_ood)
    return Scored(ind, ood, seconds=seconds, **facts)


def chosen_by_labels(s: Setting) -> dict[str, Any]:
    """Of a method that uses validation images to choose only: not in `clean`."""
    return {} if s.clean else s.labels


def timed(
    score: Callable[[np.ndarray], np.ndarray], ind: np.ndarray, ood: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores of both sets, and seconds per 1,000 images without compilation."""
    score(ind[:WARM_UP])
    start = time.perf_counter()
    both = score(ind), score(ood)
    seconds = time.perf_counter() - start
    return *both, 1000 * seconds / (len(ind) + len(ood))


def save(path: Path, rows: Rows) -> None:
    """One file a method, all or nothing, so that an interrupted run goes on here."""
    arrays, meta = {}, {}
    for name, row in rows.items():
        meta[name] = {}
        for part, fields in _parts(row):
            for field, value in fields.items():
                if isinstance(value, np.ndarray):
                    arrays[f"{name}|{part}|{field}"] = value
                else:
                    meta[name].setdefault(part, {})[field] = value
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, meta=json.dumps(meta), **arrays)
    temporary.rename(path)


def load(path: Path) -> Rows:
    """Raises `InputError` for a damaged file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
        meta = json.loads(str(arrays.pop("meta")))
        rows = {}
        for name, parts in meta.items():
            fields = {part: dict(values) for part, values in parts.items()}
            for key, value in arrays.items():
                owner, part, field = key.rsplit("|", 2)
                if owner == name:
                    fields.setdefault(part, {})[field] = value
            layers = fields.pop("layers", None)
            found = LayerScores(**layers) if layers else None
            rows[name] = Scored(**fields["row"], layers=found)
    except Exception as error:  # NumPy, zipfile and json each raise their own
        raise InputError(
            f"cannot read {path} ({type(error).__name__}): delete it, and the method "
            "is scored again"
        ) from error
    return rows


def _parts(row: Scored):
    fields = row._asdict()
    layers = fields.pop("layers")
    yield "row", fields
    if layers is not None:
        yield "layers", layers._asdict()
