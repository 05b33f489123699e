"""One look an image: several scores of the same images by one compiled call.

XLA merges what the scores compute in common, so that a network runs once however many
scores read it; so does a further network that several of them hold in their states.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fssd_jax.checks import at_least_one
from fssd_jax.data.pipeline import check_finite, scored_batches
from fssd_jax.outputs import Variables
from fssd_jax.shown import brief


class Question(NamedTuple):
    """A score, and what it takes: `score(apply_fn, variables, state, x)`."""

    score: Callable  # returns [batch, ...]
    apply_fn: Callable  # a FeatureFn or LogitFn
    state: Any
    first: int | None = None  # keep the answers for so many images only

    __repr__ = brief


class _Plan(NamedTuple):
    """What a program is found again by: the questions without their arrays."""

    names: tuple[str, ...]
    scores: tuple[Callable, ...]
    apply_fns: tuple[Callable, ...]
    structure: Any  # of the states
    leaves: tuple[int, ...]  # which array each leaf of the states is


def look(
    questions: Mapping[str, Question],
    variables: Variables,
    x,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool | str = False,
    mesh: Mesh | None = None,
) -> dict[str, np.ndarray]:
    """Answers [n, ...] to all questions, by name; each batch is one compiled call.

        look({"msp": Question(msp.score, logit_fn, msp.fit()),
              "fssd": Question(fssd.score, feature_fn, state)}, variables, images)

    Args:
      questions: name → score. Reuse the functions in them: what is compiled is found
        again by their identity.
      variables: the network's variables, for all questions.
      x: data, as of `pipeline.batches`.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar, or its title.
      mesh: as of `pipeline.batches`.
    """
    for question in questions.values():
        if question.first is not None:
            at_least_one("first", question.first)
    functions = [question.apply_fn for question in questions.values()]
    unit_range &= not any(getattr(f, "of_features", False) for f in functions)
    plan, arrays = _planned(questions, variables)
    found: dict[str, list[np.ndarray]] = {name: [] for name in questions}
    for answers, mask, _ in scored_batches(
        # The plan stands for the network, and the variables are among the arrays.
        *(_answer, plan, None, arrays, x),
        batch_size=batch_size,
        unit_range=unit_range,
        progress=progress,
        mesh=mesh,
    ):
        for name, parts in found.items():
            first = questions[name].first
            # What is not kept stays on the device and is let go with its batch.
            if first is None or sum(map(len, parts)) < first:
                parts.append(np.asarray(answers[name])[mask])
    answers = {
        name: np.concatenate(parts)[: questions[name].first]
        for name, parts in found.items()
    }
    for name, values in answers.items():
        check_finite(f"{name}: scores", values)
    return answers


def _planned(questions: Mapping[str, Question], variables) -> tuple[_Plan, list[Any]]:
    """The plan, and the arrays of all states, each of them once.

    Were an array passed twice, XLA would not know that the two are the same, and
    nothing that is computed from them would be merged.
    """
    states = [q.state for q in questions.values()]
    leaves, structure = jax.tree.flatten((variables, states))
    index: dict[int, int] = {}
    arrays = []
    for leaf in leaves:
        if id(leaf) not in index:
            index[id(leaf)] = len(arrays)
            arrays.append(leaf)
    plan = _Plan(
        tuple(questions),
        tuple(q.score for q in questions.values()),
        tuple(q.apply_fn for q in questions.values()),
        structure,
        tuple(index[id(leaf)] for leaf in leaves),
    )
    return plan, arrays


def _answer(plan: _Plan, _, arrays, x) -> dict[str, jax.Array]:
    leaves = [arrays[i] for i in plan.leaves]
    variables, states = jax.tree.unflatten(plan.structure, leaves)
    each = zip(plan.names, plan.scores, plan.apply_fns, states, strict=True)
    return {name: score(fn, variables, state, x) for name, score, fn, state in each}
