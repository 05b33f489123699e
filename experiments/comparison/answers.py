"""All methods' rows of one setting: one look an image, and what was kept on disk.

Questions that are asked of one network are answered together, so that its forward pass
is made once an image; methods with an input step or networks of their own follow, one
by one. What a look gave, and each of the others' rows, are kept for a run that was
killed. Up to rounding a score does not depend on what is asked beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import fssd_jax
from analysis import pca
from experiments.comparison import rows
from experiments.comparison.controls import CONTROLS
from experiments.comparison.failures import fails_alone
from experiments.comparison.methods import METHODS
from experiments.comparison.rivals import last_hidden
from experiments.comparison.rows import Ask, Method, Rows, seconds_per_1000
from experiments.comparison.setting import Setting
from experiments.comparison.singular import singularity_of
from experiments.comparison.variants import VARIANTS
from experiments.harness.files import (
    Stopwatch,
    is_there,
    load_arrays,
    save_arrays,
)
from experiments.harness.provenance import config_digest
from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import map_batches
from fssd_jax.outputs import pool
from fssd_jax.questions import Question, look

GROUPS: dict[str, dict[str, Method]] = {
    "methods": METHODS,
    "variants": VARIANTS,
    "controls": CONTROLS,
}
SHOWN = 1000  # images of each set in the scatter plot, fewer of a layer that is large:
MOST = 2**26  # numbers of each set, 256 MiB
SEEN = "pictures"  # the part that holds what pictures are drawn from
# Fields of a setting, in a reader's words.
NEEDED = {"logit_fn": "logits", "head": "a linear last layer"}
Key = tuple[str, str]  # group and name of a method
PICTURES: Key = ("", SEEN)  # they ask as a method does


class Answers(NamedTuple):
    groups: dict[str, Rows]  # "methods", "variants", "controls" → rows by name
    left_out: dict[str, str]  # what was asked for and gives no row → why
    failed: dict[str, str]  # likewise; "pictures" are among them
    # What pictures are drawn from: "distances/SET" [n, layers] at ε = 0, names in
    # "layers"; "points/SET" [shown, 2] of the hidden layer "layer" in its principal
    # components, with its F* as "singularity" and their "share" of the variance. Empty
    # if they failed, and then nothing is known of the classes.
    pictures: dict[str, np.ndarray]
    # [n] classes of the in-distribution test images, if there are logits.
    predicted: np.ndarray | None


def answer(
    s: Setting,
    names: Iterable[str],
    folder: Path,
    *,
    again: bool = False,
    clock: Stopwatch | None = None,
    told: Callable[[str], Any] = lambda name: None,
    groups: Mapping[str, Mapping[str, Method]] = MappingProxyType(GROUPS),
) -> Answers:
    """The rows of these methods and variants, and of all controls that are possible.

    A method that raises is noted and loses its own rows only; nothing is kept of it.

    Args:
      s: the setting.
      names: of `METHODS` and `VARIANTS`; one that needs what the setting has not is
        left out.
      folder: where rows are kept; it belongs to this setting only.
      again: whether to compute also what is kept.
      clock: told the seconds of each method, and of the common look as "look".
      told: called with the name of each method before it is computed.
      groups: all methods that there are.
    """
    clock = clock or Stopwatch()
    wanted = set(names)
    methods = {
        (group, name): method
        for group, known in groups.items()
        for name, method in known.items()
        if (name in wanted or group == "controls") and s.has(method.needs)
    }
    paths = {key: _part(folder, s, *key) for key in methods}
    seen = folder / f"{SEEN}.npz"
    missing = {k: m for k, m in methods.items() if again or not is_there(paths[k])}
    asking = {key: method for key, method in missing.items() if method.asks(s)}
    networks = {method.network for method in asking.values()}
    pictured = again or not is_there(seen)
    failed: dict[str, str] = {}
    with clock("look"):
        for network in sorted(networks | ({"variables"} if pictured else set())):
            of_network = {k: m for k, m in asking.items() if m.network == network}
            pictures = seen if pictured and network == "variables" else None
            failed |= _look(s, network, of_network, paths, pictures, told)
    for key, method in missing.items():
        if key not in asking:
            assert method.run is not None  # what does not ask runs
            told(key[1])
            with fails_alone(failed, key[1]), clock(key[1]):
                rows.save(paths[key], method.run(s))
    found: dict[str, Rows] = {group: {} for group in groups}
    there = {name for _, name in methods}
    known = [name for of in groups.values() for name in of]
    left_out = {n: _why(n, s, groups) for n in known if n in wanted - there}
    for (group, name), path in paths.items():
        if name in failed:
            path.unlink(missing_ok=True)  # of before, which `again` was to replace
            continue
        kept = rows.load(path)
        found[group] |= kept
        if not kept:
            left_out[name] = "it gives no row where nothing is chosen by OoD images"
    if SEEN in failed:
        seen.unlink(missing_ok=True)
        return Answers(found, left_out, failed, {}, None)
    pictures = load_arrays(seen)
    if "layers" not in pictures:
        raise InputError(f"{seen} is none of ours: delete it, and run again")
    predicted = pictures.pop("predicted", None)
    return Answers(found, left_out, failed, pictures, predicted)


def _part(folder: Path, s: Setting, group: str, name: str) -> Path:
    # The one method that depends on a set which the setting's identity leaves out.
    also = s.outliers.sha256 if s.outliers and name == "outlier_exposure" else ""
    return folder / f"{config_digest([group, name, also])}.npz"


def _why(name: str, s: Setting, groups: Mapping[str, Mapping[str, Method]]) -> str:
    needs = next(known[name] for known in groups.values() if name in known).needs
    missing = [n for n in needs if not s.has((n,))]
    why = dict(s.why)
    if "head" in missing:
        why["head"] = s.last_layer.why
    told = (NEEDED.get(n, n) + (f" ({why[n]})" if n in why else "") for n in missing)
    return f"it needs {', '.join(told)}"


# ---- the look -----------------------------------------------------------------------


def _look(
    s: Setting,
    network: str,
    asking: dict[Key, Method],
    paths: dict[Key, Path],
    seen: Path | None,
    told: Callable[[str], Any],
) -> dict[str, str]:
    """Fit what asks of one network, look once at each image, keep all rows.

    Args:
      network: the setting's field of its variables.
      seen: where what pictures are drawn from is kept; None: it is there.

    Returns:
      What failed, and why.
    """
    failed: dict[str, str] = {}
    asks: dict[Key, list[Ask]] = {}
    for key, method in asking.items():
        assert method.ask is not None  # `asks` has looked
        told(key[1])
        with fails_alone(failed, key[1]):
            asks[key] = method.ask(s)
    questions = {
        key: {f"{key[1]} {i}": ask.question for i, ask in enumerate(of_method)}
        for key, of_method in asks.items()
    }
    if seen:
        with fails_alone(failed, SEEN):
            questions[PICTURES] = picture_questions(s)
    found = _answers(s, network, questions, failed)
    if seen and PICTURES in found:
        with fails_alone(failed, SEEN):
            arrays = picture_arrays(s, questions[PICTURES], *found[PICTURES])
            save_arrays(seen, arrays)
    for key in (key for key in asks if key in found):
        with fails_alone(failed, key[1]):
            rows.save(paths[key], _rows(s, network, key, asks[key], *found[key]))
    return failed


def _answers(
    s: Setting,
    network: str,
    questions: dict[Key, dict[str, Question]],
    failed: dict[str, str],
) -> dict[Key, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """What each method's questions are answered, of in-distribution and OoD images.

    All are asked by one look, or where that fails, each method's alone.
    """

    def both(asked: dict[str, Question]):
        sets = (("in-distribution", s.test_ind), ("OoD", s.test_ood))
        ind, ood = (
            look(
                *(asked, getattr(s, network), images),
                batch_size=s.batch_size,
                progress=f"looking at {name} images",
            )
            if asked  # some methods have nothing to ask here
            else {}
            for name, images in sets
        )
        return ind, ood

    together: dict[str, str] = {}
    with fails_alone(together, "the look for all methods together"):
        answers = both({name: q for of in questions.values() for name, q in of.items()})
        return dict.fromkeys(questions, answers)
    found = {}
    for key, of_method in questions.items():
        with fails_alone(failed, key[1]):
            found[key] = both(of_method)
    return found


def _rows(s: Setting, network: str, key: Key, asks: list[Ask], ind, ood) -> Rows:
    found: Rows = {}
    for i, ask in enumerate(asks):
        made = ask.to_rows(ind[f"{key[1]} {i}"], ood[f"{key[1]} {i}"])
        of = ask.question, getattr(s, network)
        seconds = seconds_alone(s, *of) if ask.timed and s.timed else None
        found |= {k: row._replace(seconds=seconds) for k, row in made.items()}
    return found


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
    singularity = singularity_of(s)
    layer = last_hidden(list(singularity.center))
    center = {layer: singularity.center[layer]}
    first = max(2, min(SHOWN, MOST // center[layer].size))
    return {
        "distances": Question(fssd_jax.fssd.fssd, s.feature_fn, singularity),
        "features": Question(_feature, s.feature_fn, center, first=first),
        **({"predicted": Question(_predicted, s.logit_fn, None)} if s.logit_fn else {}),
    }


def picture_arrays(s: Setting, questions, ind, ood) -> dict[str, np.ndarray]:
    """The answers by set, those of noise beside them, and where F* is."""
    own = {name: q for name, q in questions.items() if name != "predicted"}
    noise = look(
        *(own, s.variables, np.asarray(s.noise)),
        batch_size=s.batch_size,
        unit_range=False,
    )
    sets = {"in-distribution": ind, "OoD": ood, "noise": noise}
    basis = pca.fit(np.concatenate([ind["features"], ood["features"]]))
    singularity = questions["distances"].state
    ((layer, center),) = questions["features"].state.items()
    return {
        **{f"distances/{name}": found["distances"] for name, found in sets.items()},
        **{
            f"points/{name}": pca.project(basis, found["features"])
            for name, found in sets.items()
        },
        "singularity": pca.project(basis, np.asarray(center)[None])[0],
        "share": basis.share,
        "layers": np.array(list(singularity.center)),
        "layer": np.array(layer),
        **{k: answers for k, answers in ind.items() if k == "predicted"},
    }


def _feature(feature_fn, variables, center, x):
    (layer,) = center
    return pool(feature_fn(variables, x), "flatten")[layer]


def _predicted(logit_fn, variables, _, x):
    return logit_fn(variables, x).argmax(-1)
