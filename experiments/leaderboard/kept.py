"""Scores of OpenOOD's sets as they are kept for a run that was interrupted."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.harness.files import load_arrays, save_arrays
from fssd_jax.checks import InputError
from fssd_jax.data.folders import ImageStream
from fssd_jax.data.sources import ArrayDataset

FITTED = "fitted"  # the array that holds the fields of `Scored` but the scores, as JSON


class Scored(NamedTuple):
    """One set by all methods that were fitted, and what the fits told."""

    scores: dict[str, np.ndarray]  # by method, and "predicted": [n]
    chosen: dict[str, float]  # ε and k
    not_run: dict[str, str]  # method → why


def save(path: Path, scored: Scored) -> None:
    told = {"chosen": scored.chosen, "not_run": scored.not_run}
    save_arrays(path, {**scored.scores, FITTED: np.array(json.dumps(told))})


def load(path: Path) -> Scored:
    """Raises `InputError` for a file that is damaged, or none of ours."""
    arrays = load_arrays(path)
    if FITTED not in arrays:
        raise InputError(f"{path} is none of ours: delete it, and run again")
    return Scored(**json.loads(str(arrays.pop(FITTED))), scores=arrays)


def as_sources(sets: Mapping[str, ImageStream]) -> dict[str, ArrayDataset]:
    """Where each is from, with a digest of its files' names, sizes and labels."""
    return {name: _as_source(name, stream) for name, stream in sets.items()}


def _as_source(name: str, stream: ImageStream) -> ArrayDataset:
    told = hashlib.sha256(stream.y.tobytes())
    for path in stream.files:
        told.update(f"{path.name}\0{path.stat().st_size}\n".encode())
    empty = np.empty((0,))
    return ArrayDataset(empty, stream.y, name, "", stream.source, told.hexdigest())
