"""What a network gives of training images, batch by batch, with their classes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fssd_jax import checks, moments
from fssd_jax.data.inputs import count_rows
from fssd_jax.data.pipeline import scored_batches
from fssd_jax.moments import Moments
from fssd_jax.outputs import FeatureFn, Variables

LABELS = "training labels"
ROWS = 1024  # joined at once: NumPy's threads, which wait for more, stop XLA's seldom


def with_classes(
    score: Callable,
    feature_fn: FeatureFn,
    variables: Variables,
    state: Any,
    x,
    y,
    num_classes: int,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
    mesh: Mesh | None = None,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield (what `score` returns, classes [rows]) of the real rows of each batch.

    Args:
      score, feature_fn, variables, state: as of `pipeline.scored_batches`.
      x: training images, as of `pipeline.batches`.
      y: their classes [n], 0 to num_classes − 1; None if x are batches (x, y).
      num_classes: how many classes there are.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      mesh: as of `pipeline.batches`.

    Raises:
      InputError: unusable images or labels.
    """
    if y is not None:
        known = count_rows(x)  # None of a stream
        y = checks.labels(y, len(y) if known is None else known, num_classes, LABELS)
    count = 0
    parts = scored_batches(
        *(score, feature_fn, variables, state, x),
        batch_size=batch_size,
        unit_range=unit_range,
        mesh=mesh,
        name="training images",
    )
    for found, mask, beside in parts:
        start, count = count, count + int(mask.sum())
        if y is not None:
            classes = y[start:count]
        elif beside is not None:
            classes = np.asarray(beside)[mask]
        else:
            raise checks.InputError(f"{LABELS}: give y, or batches (x, y)")
        if len(classes) < count - start:
            raise checks.InputError(f"{LABELS}: fewer than the images")
        rows = jax.tree.map(lambda a, mask=mask: np.asarray(a)[mask], found)
        yield rows, checks.classes(classes, num_classes, LABELS)
    if y is not None and len(y) > count:
        raise checks.InputError(f"{LABELS}: {len(y)} for {count} images")


def moments_of_classes(
    score: Callable,
    feature_fn: FeatureFn,
    variables: Variables,
    x,
    y,
    num_classes: int,
    *,
    state: Any = None,
    **how,
) -> dict[str, Moments]:
    """Class means and scatter of every layer that `score` gives, in one pass.

    Args: as in `with_classes`.

    Raises:
      InputError: as that; a class without images, or features that are not finite.
    """
    found: dict[str, Moments] = {}
    parts = with_classes(score, feature_fn, variables, state, x, y, num_classes, **how)
    for features, classes in joined(parts):
        for name, f in features.items():
            if name not in found:
                found[name] = moments.nothing(num_classes, f.shape[1])
            moments.add(name, found[name], f, classes)
    for of_layer in found.values():
        refuse_empty(of_layer.count)
    return found


def joined(parts: Iterable) -> Iterator:
    """Trees of arrays [rows, ...], as of `with_classes`, some `ROWS` at once."""
    held, rows = [], 0
    for part in parts:
        held.append(part)
        rows += len(jax.tree.leaves(part)[0])
        if rows >= ROWS:
            yield jax.tree.map(lambda *a: np.concatenate(a), *held)
            held, rows = [], 0
    if held:
        yield jax.tree.map(lambda *a: np.concatenate(a), *held)


def refuse_empty(count: np.ndarray) -> None:
    """Raise `InputError` where a class has no image."""
    empty = np.flatnonzero(count == 0).tolist()
    if empty:
        raise checks.InputError(
            f"{LABELS}: no image of classes {empty[:10]}"
            f"{' and more' if len(empty) > 10 else ''}; renumber the classes or "
            "lower num_classes"
        )
