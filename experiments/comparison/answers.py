"""All methods' rows of one setting: one look an image, and what was kept on disk.

Questions that are asked of one network are answered together, so that its forward pass
is made once an image; methods with an input step or networks of their own follow, one
by one. Each method's rows are kept, for a run that was killed.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fssd_jax
from experiments.comparison import rows
from experiments.comparison.controls import CONTROLS
from experiments.comparison.methods import METHODS, last_hidden
from experiments.comparison.rows import Ask, Method, Rows, seconds_per_1000
from experiments.comparison.setting import Setting
from experiments.comparison.variants import VARIANTS
from experiments.harness.files import Stopwatch, load_arrays, save_arrays
from experiments.harness.provenance import config_digest
from fssd_jax.data.pipeline import map_batches
from fssd_jax.features import pool
from fssd_jax.questions import Question, look

GROUPS: dict[str, dict[str, Method]] = {
    "methods": METHODS,
    "variants": VARIANTS,
    "controls": CONTROLS,
}
SHOWN = 1000  # images of each set in the scatter plot
SEEN = "pictures"  # the part that holds what pictures are drawn from


class Answers(NamedTuple):
    groups: dict[str, Rows]  # "methods", "variants", "controls" → rows by name
    # What pictures are drawn from: "distances/SET" [n, layers] at ε = 0, "features/SET"
    # [shown, dim] of the last hidden layer with its F* as "singularity"; "layers".
    pictures: dict[str, np.ndarray]
    predicted: np.ndarray  # [n] classes of the in-distribution test images


def answer(
    s: Setting,
    names: Iterable[str],
    folder: Path,
    *,
    again: bool = False,
    clock: Stopwatch | None = None,
    told: Callable[[str], Any] = lambda name: None,
) -> Answers:
    """The rows of these methods and variants, and of all controls that are possible.

    Args:
      s: the setting.
      names: of `METHODS` and `VARIANTS`; one that needs what the setting has not is
        left out.
      folder: where each method's rows are kept; it belongs to this setting only.
      again: whether to compute also what is kept.
      clock: told the seconds of each method, and of the common look as "look".
      told: called with the name of each method before it is computed.
    """
    clock = clock or Stopwatch()
    wanted = set(names)
    methods = {
        (group, name): method
        for group, known in GROUPS.items()
        for name, method in known.items()
        if (name in wanted or group == "controls") and s.has(method.needs)
    }
    paths = {key: _part(folder, s, *key) for key in methods}
    seen = folder / f"{SEEN}.npz"
    missing = {k: m for k, m in methods.items() if again or not paths[k].exists()}
    asking = {key: method for key, method in missing.items() if method.asks(s)}
    if asking or again or not seen.exists():
        with clock("look"):
            _look(s, asking, paths, seen, told)
    for key, method in missing.items():
        if key not in asking:
            assert method.run is not None  # what does not ask runs
            told(key[1])
            with clock(key[1]):
                rows.save(paths[key], method.run(s))
    groups: dict[str, Rows] = {group: {} for group in GROUPS}
    for (group, _), path in paths.items():
        groups[group] |= rows.load(path)
    pictures = load_arrays(seen)
    return Answers(groups, pictures, pictures.pop("predicted"))


def _part(folder: Path, s: Setting, group: str, name: str) -> Path:
    # The one method that depends on a set which the setting's identity leaves out.
    also = s.outliers.sha256 if s.outliers and name == "outlier_exposure" else ""
    return folder / f"{config_digest([group, name, also])}.npz"


# ---- the look -----------------------------------------------------------------------


def _look(s: Setting, asking, paths, seen: Path, told) -> None:
    """Fit what asks, look once at each image for each network, keep all rows."""
    asks: dict[tuple, list[Ask]] = {}
    for key, method in asking.items():
        told(key[1])
        asks[key] = method.ask(s)
    networks = {method.network for method in asking.values()} | {"variables"}
    pictured = picture_questions(s)
    found: dict[tuple, Rows] = {key: {} for key in asks}
    for network in sorted(networks):
        of_network = {
            (*key, i): ask
            for key, of_method in asks.items()
            for i, ask in enumerate(of_method)
            if asking[key].network == network
        }
        questions = {repr(key): ask.question for key, ask in of_network.items()}
        if network == "variables":
            questions |= pictured
        variables = getattr(s, network)
        ind, ood = (
            look(
                questions,
                variables,
                images,
                batch_size=s.batch_size,
                progress=f"looking at {name} images",
            )
            for name, images in (("in-distribution", s.test_ind), ("OoD", s.test_ood))
        )
        for key, ask in of_network.items():
            made = ask.to_rows(ind[repr(key)], ood[repr(key)])
            timed = ask.timed and s.timed
            seconds = seconds_alone(s, ask.question, variables) if timed else None
            found[key[:2]] |= {k: r._replace(seconds=seconds) for k, r in made.items()}
        if network == "variables":
            save_arrays(seen, picture_arrays(s, pictured, ind, ood))
    for key, of_method in found.items():
        rows.save(paths[key], of_method)


def seconds_alone(s: Setting, question: Question, variables) -> float | None:
    """Of a method on its own, per 1,000 images: a small timing."""
    score = partial(
        map_batches,
        *(question.score, question.apply_fn, variables, question.state),
        batch_size=s.batch_size,
    )
    return seconds_per_1000(s, score)


# ---- what pictures are drawn from ---------------------------------------------------


def picture_questions(s: Setting) -> dict[str, Question]:
    singularity = fssd_jax.estimate_singularity(
        *(s.feature_fn, s.variables, s.noise),
        batch_size=s.batch_size,
        unit_range=False,  # released noise may leave [0, 1]
    )
    layer = last_hidden(list(singularity.center))
    center = {layer: singularity.center[layer]}
    return {
        "distances": Question(fssd_jax.fssd.fssd, s.feature_fn, singularity),
        "features": Question(_feature, s.feature_fn, center, first=SHOWN),
        "predicted": Question(_predicted, s.logit_fn, None),
    }


def picture_arrays(s: Setting, questions, ind, ood) -> dict[str, np.ndarray]:
    """The answers by set, those of noise beside them, and where F* is."""
    own = {name: q for name, q in questions.items() if name != "predicted"}
    noise = look(
        *(own, s.variables, np.asarray(s.noise)),
        batch_size=s.batch_size,
        unit_range=False,
    )
    arrays = {"predicted": ind["predicted"]}
    for name in own:
        sets = {"in-distribution": ind, "OoD": ood, "noise": noise}
        arrays |= {f"{name}/{of}": found[name] for of, found in sets.items()}
    singularity = questions["distances"].state
    ((layer, center),) = questions["features"].state.items()
    return arrays | {
        "layers": np.array(list(singularity.center)),
        "layer": np.array(layer),
        "singularity": np.asarray(center),
    }


def _feature(feature_fn, variables, center, x):
    (layer,) = center
    return pool(feature_fn(variables, x), "flatten")[layer]


def _predicted(logit_fn, variables, _, x):
    return logit_fn(variables, x).argmax(-1)
