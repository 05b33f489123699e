"""A run that is followed from step τ on, and not from its beginning."""

import jax
import numpy as np
import pytest

from analysis.contributions import Contributions
from analysis.displacement import displacement
from analysis.dynamics import Recorder, make_loss_fn
from analysis.kernel_dynamics import KernelRecorder
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from fssd_jax import InputError, make_feature_fn, recipes
from tests.analysis.following import PROBE, X, relative_error, run, start
from tests.conftest import Smooth

RATE, TAU = 0.3, 3
FEATURE_FN, LOSS_FN = make_feature_fn(Smooth()), make_loss_fn(Smooth())
GRADIENT_FN = make_gradient_fn(Smooth(), FEATURE_FN)
V = np.ones((len(PROBE), 3), np.float32)


def followers(initial=None, **start):
    return (
        PathForm(FEATURE_FN, PROBE, nodes=3, **start),
        FrozenForm(FEATURE_FN, GRADIENT_FN, initial, RATE, **start),
        Contributions(FEATURE_FN, LOSS_FN, "logits", PROBE, V, X, RATE, **start),
    )


@pytest.fixture(scope="module")
def steps():
    """Those of a run: (step, before, after, x, y) of each."""
    seen = []
    run(Smooth(), recipes.sgd(RATE), lambda *step: seen.append(step), epochs=3)
    return seen


def test_it_is_a_run_of_its_own_from_there(steps):
    late, fresh = followers(start=TAU), followers(steps[TAU][1])
    for number, *step in steps:
        for form in late:
            form(number, *step)
        if number >= TAU:
            for form in fresh:
                form(number - TAU, *step)
    for form, other in zip(late, fresh, strict=True):
        of = (PROBE,) if isinstance(form, FrozenForm) else ()
        jax.tree.map(np.testing.assert_array_equal, form.value(*of), other.value(*of))
    assert late[1].forms == fresh[1].forms
    # Nothing of what was before is in it.
    path, (initial, middle, last) = late[0], (steps[k][1] for k in (0, TAU, -1))
    last = steps[-1][2]
    moved = displacement(FEATURE_FN, middle, last, PROBE)
    assert relative_error(path.value(), moved) < 1e-4
    assert max(path.error().values()) < 1e-4
    before = displacement(FEATURE_FN, initial, middle, PROBE)
    whole = displacement(FEATURE_FN, initial, last, PROBE)
    both = {layer: before[layer] + f for layer, f in path.value().items()}
    assert relative_error(both, whole) < 1e-4
    assert relative_error(path.value(), whole) > 0.1


def test_the_weights_that_it_begins_with_are_checked_there(steps):
    _, good, _ = followers(steps[TAU][1], start=TAU)
    _, wrong, _ = followers(start(Smooth()), start=TAU)
    for step in steps[: TAU + 1]:
        good(*step)
        if step[0] < TAU:
            wrong(*step)
    assert good.forms["logits"] == "bottleneck"
    with pytest.raises(InputError, match="not the weights that the run began with"):
        wrong(*steps[TAU])


def test_a_run_that_is_not_seen_from_there_is_an_error(steps):
    for form in followers(start=TAU):
        of = (PROBE,) if isinstance(form, FrozenForm) else ()
        with pytest.raises(InputError, match=r"\(from step 3 on\).*on_step"):
            form.value(*of)
        form(*steps[1])
        with pytest.raises(InputError, match=r"step 4, .* steps from 3 .* start=4"):
            form(*steps[4])
        form(*steps[3])
        with pytest.raises(InputError, match=r"step 5 where step 4"):
            form(*steps[5])
        # Another run by the same form.
        with pytest.raises(
            InputError, match=r"step 0 where step 4 .* a form of its own"
        ):
            form(*steps[0])
    with pytest.raises(InputError, match=r"start: the number of a step, .* got -1"):
        PathForm(FEATURE_FN, PROBE, start=-1)


def test_a_recorder_begins_there_too(steps):
    """With displacements, and kernels, against step τ's."""
    moments, key = [TAU, TAU + 2], jax.random.key(0)
    probes = {"noise": PROBE}

    def recorders(moments, **start):
        return (
            Recorder(FEATURE_FN, LOSS_FN, probes, moments, **start),
            KernelRecorder(FEATURE_FN, X[:4], moments, key, layers=["logits"], **start),
        )

    late, fresh = recorders(moments, start=TAU), recorders([0, 2])
    for number, *step in steps:
        for recorder in late:
            recorder(number, *step)
        if number >= TAU:
            for recorder in fresh:
                recorder(number - TAU, *step)
    for one, other in zip(late, fresh, strict=True):
        assert [record.step for record in one.records] == moments
        for record, same in zip(one.records, other.records, strict=True):
            pair = record._replace(step=0), same._replace(step=0)
            jax.tree.map(np.testing.assert_array_equal, *pair)
    assert (late[0].records[0].movements["noise"]["displacement"] == 0).all()
    assert late[1].records[0].statistics["logits"].drift == 0
    for recorder in recorders(moments, start=TAU):
        recorder(*steps[0])
        with pytest.raises(InputError, match=r"before step 3, .* start=4"):
            recorder(*steps[4])
