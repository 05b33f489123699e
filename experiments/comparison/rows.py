"""What a method is, the rows that it gives of a pair of sets, and rows on disk."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import numpy as np

from experiments.comparison.setting import Setting
from experiments.harness.files import load_arrays, save_arrays
from fssd_jax.checks import InputError
from fssd_jax.questions import Question

TIMED = 256  # images, of the small timing of each method


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


class Ask(NamedTuple):
    """What a fitted method asks of every test image, and the rows it makes of it.

    What is asked of one network is answered by one look at each image.
    """

    question: Question
    # (answers [n, ...] of the in-distribution images, of the OoD images) -> rows
    to_rows: Callable[[np.ndarray, np.ndarray], Rows]
    timed: bool = True  # not where another method's look is the same


class Method(NamedTuple):
    """How rows come about: by questions that share a look, or by passes of their own.

    One that has both asks where nothing but a forward pass is needed, under `clean`.
    """

    ask: Callable[[Setting], list[Ask]] | None = None
    run: Callable[[Setting], Rows] | None = None
    needs: tuple[str, ...] = ()  # fields of the setting that must be there
    network: str = "variables"  # which field of the setting `ask` is asked of

    def asks(self, s: Setting) -> bool:
        return self.ask is not None and (self.run is None or s.clean)


def one_row(name: str, **facts) -> Callable[[np.ndarray, np.ndarray], Rows]:
    """The answers as they are; `facts` are other fields of `Scored`."""
    return lambda ind, ood: {name: Scored(ind, ood, **facts)}


def seconds_per_1000(
    s: Setting, score: Callable[[np.ndarray], Any], batch_size: int | None = None
) -> float | None:
    """What a method costs on its own, without compilation: a small timing.

    Of whole batches, because a padded one takes as long.
    """
    if not s.timed:
        return None
    size = min(batch_size or s.batch_size, len(s.test_ind))
    most = min(TIMED, len(s.test_ind))
    few = s.test_ind[: max(size, most // size * size)]
    score(few)
    start = time.perf_counter()
    score(few)
    return 1000 * (time.perf_counter() - start) / len(few)


def save(path: Path, rows: Rows) -> None:
    """One file a method, all or nothing, so that an interrupted run goes on here.

    Raises:
      InputError: a score that is not finite.
    """
    arrays, meta = {}, {}
    for name, row in rows.items():
        meta[name] = {}
        for part, fields in _parts(row):
            for field, value in fields.items():
                if isinstance(value, np.ndarray):
                    if not np.isfinite(value).all():
                        raise InputError(
                            f"{name}: {np.sum(~np.isfinite(value))} of {value.size} "
                            "scores are NaN or infinite"
                        )
                    arrays[f"{name}|{part}|{field}"] = value
                else:
                    meta[name].setdefault(part, {})[field] = value
    save_arrays(path, {"meta": np.array(json.dumps(meta)), **arrays})


def load(path: Path) -> Rows:
    """Raises `InputError` for a damaged file."""
    arrays = load_arrays(path)
    try:
        fields = json.loads(str(arrays.pop("meta")))
        for key, value in arrays.items():
            name, part, field = key.rsplit("|", 2)
            fields[name].setdefault(part, {})[field] = value
        return {name: _row(**parts) for name, parts in fields.items()}
    except Exception as error:  # of a file that is whole and of something else
        raise InputError(
            f"{path} does not hold a method's rows: delete it, and the method is "
            "scored again"
        ) from error


def _row(row: dict[str, Any], layers: dict[str, Any] | None = None) -> Scored:
    """Raises `TypeError` where a field is of another kind than it is to be."""
    found = LayerScores(**layers) if layers else None
    scored = Scored(**row, layers=found)
    for part in (scored, found) if found else (scored,):
        for field, hint in get_type_hints(type(part)).items():
            kind = list if get_origin(hint) is list else hint
            value = getattr(part, field)
            number = type(value) is int and isinstance(1.0, kind)
            if not (isinstance(value, kind) or number):
                raise TypeError(f"{field} is a {type(value).__name__}")
    for scores in (scored.ind, scored.ood):
        if scores.ndim != 1 or not np.issubdtype(scores.dtype, np.floating):
            raise TypeError(f"scores of {scores.dtype}{scores.shape}")
    return scored


def _parts(row: Scored):
    fields = row._asdict()
    layers = fields.pop("layers")
    yield "row", fields
    if layers is not None:
        yield "layers", layers._asdict()
