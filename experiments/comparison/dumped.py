"""Features that were computed elsewhere, by any framework: files of layer → array."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.comparison.brought import Brought, shared_setting, split
from fssd_jax.bounded import ONLY, read_arrays
from fssd_jax.checks import InputError, images
from fssd_jax.data.folders import draw
from fssd_jax.data.image_files import located
from fssd_jax.data.sources import ArrayDataset, digest

LABELS = ("y", "labels")
LOGITS = "logits"
MEND = "write it with np.savez(path, conv1=..., fc1=..., logits=...)"


class Dump(NamedTuple):
    shapes: dict[str, tuple[int, ...]]  # layer → shape of the features of one image
    sets: dict[str, ArrayDataset]  # whose x are [n, numbers]: all layers, one by one


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
        output, and perhaps labels `y`.
      layers: to take; by default all of the in-distribution file.
      limit, seed: at most as many rows of each set but the noise, as of `load_images`.

    Raises:
      InputError: files that do not hold the same layers for all sets.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    sets = {}
    for of, path in paths.items():
        path = located(path)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        arrays = read_arrays(path, MEND)
        y = next((arrays.pop(name) for name in LABELS if name in arrays), None)
        if ONLY in arrays:
            raise InputError(f"{path}: holds one array without a name; {MEND}")
        wanted = list(layers or shapes or arrays)
        missing = [name for name in wanted if name not in arrays]
        if missing or not wanted:
            raise InputError(f"{path}: no layers {missing}, but {list(arrays)}")
        counts = {name: len(arrays[name]) for name in wanted if arrays[name].ndim}
        if len(counts) < len(wanted) or len(set(counts.values())) != 1:
            raise InputError(f"{path}: rows of the layers: {counts}; expected as many")
        for name in wanted:
            shape = arrays[name].shape[1:]
            if shapes.setdefault(name, shape) != shape:
                raise InputError(
                    f"{path}: layer {name} has features {list(shape)}, and "
                    f"{list(shapes[name])} in the file before"
                )
            images(arrays[name], f"{path}, {name}", unit_range=False, rank=1)
        count = counts[wanted[0]]
        chosen, counted = draw(count, None if of == "noise" else limit, seed)
        flat = [np.float32(arrays[k]).reshape(count, -1)[chosen] for k in wanted]
        y = np.zeros(count, np.int32) if y is None else y
        if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
            raise InputError(
                f"{path}: labels are {y.dtype}{list(y.shape)}, expected one integer "
                f"for each of {count} rows"
            )
        x, y = np.concatenate(flat, axis=1), y[chosen].astype(np.int32)
        source = f"{path}: features, {counted}".replace("images", "rows")
        sets[of] = ArrayDataset(x, y, path.stem, "all", source, digest(x, y))
    return Dump(shapes, sets)


def setting(dump: Dump, *, validation: int, seed: int, batch_size: int) -> Brought:
    """What can be asked of features alone: no untrained network, no pixels, no step."""
    sets = dump.sets
    parts, y = split(
        sets["ind"],
        sets["ood"],
        validation=validation,
        noise=sets["noise"].x,
        seed=seed,
    )
    width = dump.shapes.get(LOGITS, ())
    has_logits = len(width) == 1 and width[0] > 1
    train = sets.get("train")
    s = shared_setting(
        parts,
        seed=seed,
        batch_size=batch_size,
        feature_fn=_unpacked(dump.shapes),
        logit_fn=_logits(dump.shapes) if has_logits else None,
        variables={},
        initial=None,
        num_classes=int(train.y.max()) + 1 if train else 0,
        train=train,
        pixels=None,
    )
    facts = {"layers": list(dump.shapes)}
    return Brought("features", s, parts, y, sets, facts)


def _unpacked(shapes: Mapping[str, tuple[int, ...]]):
    """A feature_fn of rows in which all layers stand one after the other."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())])

    def feature_fn(variables, x) -> OrderedDict[str, jax.Array]:
        parts = zip(shapes.items(), ends[:-1], ends[1:], strict=True)
        return OrderedDict(
            (name, jnp.asarray(x[:, a:b]).reshape(len(x), *shape))
            for (name, shape), a, b in parts
        )

    feature_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return feature_fn


def _logits(shapes: Mapping[str, tuple[int, ...]]):
    features = _unpacked(shapes)

    def logit_fn(variables, x) -> jax.Array:
        return features(variables, x)[LOGITS]

    logit_fn.of_features = True  # pyright: ignore[reportFunctionMemberAccess]
    return logit_fn
