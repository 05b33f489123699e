"""What a run keeps so that its page can show images beside their scores."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis import pca
from experiments.comparison.answers import Answers, picture_questions
from experiments.comparison.failures import fails_alone
from experiments.comparison.pictures import in_roc
from experiments.comparison.setting import Setting
from experiments.harness.explored import SETS
from experiments.harness.files import save_arrays
from fssd_jax.data.inputs import as_input
from fssd_jax.questions import look

SHOWN = 300  # images of each set
SIDE = 64  # pixels, at most
LETTERS = 80  # of what is told of an image, at most: the end of a path


def evenly(count: int, most: int = SHOWN) -> np.ndarray:
    """At most so many of `count`, first and last among them, in equal steps."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def written(
    s: Setting, found: Answers, failed: dict[str, str]
) -> dict[str, Callable[[Path], None]]:
    """explorer.npz → how to write it; nothing where there is no row, or it failed."""
    if not any(in_roc(name) for rows in found.groups.values() for name in rows):
        return {}
    with fails_alone(failed, "explorer"):
        return {"explorer.npz": partial(save_arrays, arrays=kept(s, found))}
    return {}


def kept(s: Setting, found: Answers) -> dict[str, np.ndarray]:
    """The arrays of explorer.npz; see `harness.explored`.

    Images are drawn evenly, so that sets in the order of their classes show all of
    these, and the hidden layer that the pictures show is asked of them once more.
    """
    sets = dict(zip(SETS, (s.test_ind, s.test_ood), strict=True))
    index = {name: evenly(len(x)) for name, x in sets.items()}
    asked = {"features": picture_questions(s)["features"]}
    ((layer, center),) = asked["features"].state.items()
    features, images = {}, {}
    for name, x in sets.items():
        few = x[index[name]]
        of = look(asked, s.variables, few, batch_size=s.batch_size)
        features[name] = of["features"]
        if s.pixels and np.ndim(few) == 4 and few.shape[-1] in (1, 3):
            images[f"images/{name}"] = thumbnails(few)
    basis = pca.fit(np.concatenate(list(features.values())))
    return {
        "rows": np.array(
            [k for of in found.groups.values() for k in of if in_roc(k)], dtype=str
        ),
        **{f"index/{name}": at for name, at in index.items()},
        **images,
        **named(s, index),
        **{
            f"points/{name}": pca.project(basis, of).astype(np.float32)
            for name, of in features.items()
        },
        "singularity": pca.project(basis, np.asarray(center)[None])[0],
        "share": basis.share,
        "layer": np.array(layer),
    }


def named(s: Setting, index: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The file or the class of each image as "names/SET", where the source knows it."""
    found = {name: of.described(index[name]) for name, of in s.tested.items()}
    return {
        f"names/{name}": np.array([_in_short(text) for text in of.tolist()], dtype=str)
        for name, of in found.items()
        if of is not None
    }


def _in_short(text: str) -> str:
    return text if len(text) <= LETTERS else f"…{text[1 - LETTERS :]}"


def thumbnails(images: Any) -> np.ndarray:
    """[n, h, w, c] in [0, 1] or as bytes → bytes, of `SIDE` pixels a side at most."""
    small = (255 * np.clip(as_input(images), 0, 1)).round().astype(np.uint8)
    height, width = small.shape[1:3]
    if max(height, width) <= SIDE:
        return small
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = [
        np.asarray(
            Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x).resize(size)
        )
        for x in small
    ]
    return np.stack(resized).reshape(len(small), *size[::-1], -1)
