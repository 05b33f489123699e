"""Files of features that were computed elsewhere: layer → array, one for each set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from fssd_jax.bounded import ONLY, read_arrays
from fssd_jax.checks import InputError, images
from fssd_jax.data.folders import draw
from fssd_jax.data.image_files import located
from fssd_jax.data.sources import ArrayDataset, digest

LABELS = ("y", "labels")
LOGITS = "logits"
MEND = "write it with np.savez(path, conv1=..., fc1=..., logits=...)"
ROWS = frozenset(("noise", "clean", "deep", "tiles", "+ mahalanobis"))
WHY = "FSSD of all layers has rows of that name"
OTHERWISE = "give what comes before the softmax, or call the array otherwise"
Shapes = Mapping[str, tuple[int, ...]]  # layer → shape of the features of one image


class Dump(NamedTuple):
    shapes: Shapes
    layers: list[str]  # of FSSD: all of them, or those that were asked for
    sets: dict[str, ArrayDataset]  # whose x are [n, numbers]: all layers, one by one
    num_classes: int  # of the logits, or of the training images; 0: not known


def load(
    paths: Mapping[str, Path],
    *,
    layers: Sequence[str] | None,
    limit: int | None,
    seed: int,
) -> Dump:
    """The features of the sets "ind", "ood", "noise" and perhaps "train".

    Args:
      paths: set → a .npz of an array [n, ...] for each layer, in order from input to
        output, and of "ind" perhaps, of "train" in any case, labels `y`.
      layers: of FSSD; by default all of the in-distribution file.
      limit, seed: at most as many rows of each set but the noise, as of `load_images`.

    Raises:
      InputError: files that do not hold the same layers, logits that are none, or
        labels that do not fit.
    """
    shapes: Shapes = {}
    sets: dict[str, ArrayDataset] = {}
    num_classes = 0
    for of, path in paths.items():
        path = located(path)
        arrays, y = _read(path)
        shapes = shapes or _shapes(path, arrays, layers)
        count = _check_rows(path, arrays, shapes)
        chosen, counted = draw(count, None if of == "noise" else limit, seed)
        flat = [_floats(path, k, arrays.pop(k)).reshape(count, -1) for k in shapes]
        if LOGITS in shapes:
            num_classes = shapes[LOGITS][0]
            _check_logits(path, flat[list(shapes).index(LOGITS)])
        x = np.concatenate([rows[chosen] for rows in flat], axis=1)
        if of == "train":
            y = _check_labels(path, y, count)
            y, num_classes = _numbered(path, y, chosen, num_classes)
        elif of == "ind" and y is not None:
            y = _check_labels(path, y, count)[chosen]
        else:  # nothing asks for them
            y = np.zeros(len(x), np.int32)
        source = f"{path}: features, {counted}".replace("images", "rows")
        names = np.array([f"{name} {shape}" for name, shape in shapes.items()])
        sha256 = digest(x, y, names)
        sets[of] = ArrayDataset(x, y, path.stem, "all", source, sha256)
    return Dump(shapes, list(layers or shapes), sets, num_classes)


def _read(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The layers and the labels, if there are any."""
    if not path.is_file():
        kind = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {kind}; expected a .npz of features")
    arrays = read_arrays(path, MEND)
    if ONLY in arrays:
        raise InputError(f"{path}: holds one array without a name; {MEND}")
    labels = [arrays.pop(name) for name in LABELS if name in arrays]
    if len(labels) > 1:
        raise InputError(f"{path}: holds labels twice, as {LABELS}; leave one out")
    return arrays, next(iter(labels), None)


def _shapes(path: Path, arrays, layers: Sequence[str] | None) -> Shapes:
    """Of what is taken: FSSD's layers, and the logits in any case."""
    wanted = list(layers or arrays)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"--layers: a name stands twice in {wanted}")
    if not wanted:
        raise InputError(f"{path}: holds no layers; {MEND}")
    if taken := ROWS & {*wanted}:
        raise InputError(f"{path}: call the layers {sorted(taken)} otherwise: {WHY}")
    if LOGITS in arrays and LOGITS not in wanted:
        wanted.append(LOGITS)
    _check_names(path, arrays, wanted)
    shapes = {name: arrays[name].shape[1:] for name in wanted}
    if LOGITS in shapes and (len(shapes[LOGITS]) != 1 or shapes[LOGITS][0] < 2):
        raise InputError(
            f"{path}: {LOGITS} are {list(arrays[LOGITS].shape)}; expected [n, classes] "
            "of two or more classes (one logit z [n] of a sigmoid is two: "
            "np.stack([0 * z, z], -1)), or call the array otherwise"
        )
    return shapes


def _check_names(path: Path, arrays, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: no layers {missing}, but {list(arrays)}; all files need the "
            "layers of the first one, or those of --layers"
        )


def _check_rows(path: Path, arrays, shapes: Shapes) -> int:
    """The number of rows, if all layers have as many, and the shapes of the first."""
    _check_names(path, arrays, list(shapes))
    found = {name: list(arrays[name].shape) for name in shapes}
    if not all(found.values()) or len({shape[0] for shape in found.values()}) != 1:
        raise InputError(f"{path}: expected as many rows of each layer, got {found}")
    for name, (count, *shape) in found.items():
        if tuple(shape) != shapes[name]:
            raise InputError(
                f"{path}: layer {name} is {[count, *shape]}, and an image has "
                f"{list(shapes[name])} in the first file; dump all sets in one way"
            )
    return next(iter(found.values()))[0]


def _floats(path: Path, name: str, a: np.ndarray) -> np.ndarray:
    """As float32, all of them finite."""
    if a.dtype.kind not in "fiub":
        raise InputError(
            f"{path}: layer {name} is of dtype {a.dtype}; save it as floats, such as "
            "np.float32"
        )
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        a = a.astype(np.float32)
    return images(a, f"{path}, {name} in float32", unit_range=False, rank=1)


def _check_logits(path: Path, z: np.ndarray) -> None:
    """Raise `InputError` for what a softmax was already taken of."""
    if (z >= 0).all() and np.allclose(z.sum(1, dtype=np.float64), 1, atol=1e-2):
        raise InputError(f"{path}: {LOGITS} are probabilities; {OTHERWISE}")
    if np.allclose(logsumexp(z.astype(np.float64), axis=1), 0, atol=1e-2):
        raise InputError(
            f"{path}: {LOGITS} are logarithms of probabilities, whose energy is 0 for "
            f"all images; {OTHERWISE}"
        )


def _check_labels(path: Path, y: np.ndarray | None, count: int) -> np.ndarray:
    if y is None:
        raise InputError(
            f"{path}: holds no labels y, of which Mahalanobis has its classes; write "
            "them beside the layers: np.savez(path, y=labels, ...)"
        )
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"{path}: labels are {y.dtype}{list(y.shape)}, expected one integer for "
            f"each of {count} rows"
        )
    return y


def _numbered(path: Path, y, chosen, num_classes: int) -> tuple[np.ndarray, int]:
    """Labels from 0 on of the training images that were drawn, and how many classes.

    Args:
      num_classes: of the logits; 0 where there are none.
    """
    every, y = np.unique(y), y[chosen]
    if num_classes and (every.min() < 0 or every.max() >= num_classes):
        raise InputError(
            f"{path}: labels from {every.min()} to {every.max()}, and logits of "
            f"{num_classes} classes, expected 0 to {num_classes - 1}"
        )
    present, y = np.unique(y, return_inverse=True)
    expected = num_classes or len(every)
    if len(present) != expected:
        raise InputError(
            f"{path}: rows of {len(present)} classes were taken, and there are "
            f"{expected}, all of which Mahalanobis needs; give rows of each, or raise "
            "--limit"
        )
    return y.astype(np.int32), expected
