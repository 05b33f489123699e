"""One look: the same scores as each method alone, by one forward pass."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, Question, head, look, map_batches
from fssd_jax.data import pipeline
from fssd_jax.data.inputs import as_input
from fssd_jax.detectors import (
    ash,
    displacement,
    energy,
    fssd,
    gram,
    knn,
    max_logit,
    msp,
    nnguide,
)
from fssd_jax.models import LeNet


@pytest.fixture(scope="module")
def everything(lenet):
    """(questions, variables, images): what a LeNet can be asked."""
    *_, images = lenet
    model = LeNet(mean=(0.3,), std=(0.4,))
    feature_fn = fssd_jax.make_feature_fn(model)
    variables = model.init(jax.random.key(0), as_input(images[:1]))
    noise = fssd_jax.uniform_noise(jax.random.key(2), 40, (28, 28, 1))
    singularity = fssd_jax.estimate_singularity(feature_fn, variables, noise, 16)
    logit_fn = fssd_jax.make_logit_fn(model)
    initial = model.init(jax.random.key(7), as_input(images[:1]))
    state = fssd.fit(feature_fn, variables, as_input(images[:10]), images)
    moved = displacement.fit(feature_fn, variables, initial, images)
    start = initial, jnp.asarray(False)
    questions = {
        "distances": Question(fssd_jax.fssd.fssd, feature_fn, singularity),
        "fssd": Question(fssd.score, feature_fn, state),
        "msp": Question(msp.score, logit_fn, msp.fit()),
        "max logit": Question(max_logit.score, logit_fn, max_logit.fit()),
        "energy": Question(energy.score, logit_fn, energy.fit()),
        "knn": Question(
            knn.score, feature_fn, knn.fit(feature_fn, variables, images, "fc1", k=3)
        ),
        "displacement": Question(displacement.score, feature_fn, moved),
        "moved": Question(displacement.displacements, feature_fn, start),
    }
    both = head.with_logits(feature_fn, logit_fn)
    last = head.find(feature_fn, logit_fn, variables, images)
    guide = nnguide.fit(both, variables, images, "fc1", k=3)
    questions |= {
        "ash": Question(ash.score, feature_fn, ash.fit(last)),
        "nnguide": Question(nnguide.score, both, guide),
        "gram": Question(
            gram.score, both, gram.fit(both, variables, *[images[:9]] * 2, orders=2)
        ),
    }
    return questions, variables, images


def test_the_answers_are_each_methods_own(everything):
    questions, variables, images = everything
    found = look(questions, variables, images, batch_size=8)  # 23: the last is padded
    assert list(found) == list(questions)
    for name, q in questions.items():
        alone = map_batches(q.score, q.apply_fn, variables, q.state, images)
        assert found[name].shape == alone.shape
        # A sum of relative deviations, of which many are 0 but for rounding.
        rounding = 1e-3 if name == "gram" else 2e-5
        np.testing.assert_allclose(found[name], alone, rtol=2e-5, atol=rounding)


def compiled(questions, variables, images):
    """The text of the one program that a look compiles."""
    texts, run = [], pipeline._score_batch

    def watched(score, apply_fn, *arrays):
        program = jax.jit(partial(run.__wrapped__, score, apply_fn))
        texts.append(program.lower(*arrays).compile().as_text())
        return run(score, apply_fn, *arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_score_batch", watched)
        look(questions, variables, images, batch_size=len(images))
    assert 1 <= len(texts) <= 2  # the first time, images are looked at once more
    return texts[0]


def convolutions(text):
    """Shapes of the results of all convolutions of a compiled program."""
    found = re.findall(r"= f32\[([\d,]+)\]\S* convolution\(", text)
    return sorted(tuple(map(int, shape.split(","))) for shape in found)


def test_the_compiled_look_runs_each_network_once(everything):
    """Eleven scores, two networks: the trained one, and the one before training."""
    questions, variables, images = everything
    text = compiled(questions, variables, images)
    once = [(23, 24, 24, 64), (23, 26, 26, 32)]
    assert convolutions(text) == sorted(2 * once)
    of_two = ("displacement", "moved")
    of_one = {name: q for name, q in questions.items() if name not in of_two}
    assert convolutions(compiled(of_one, variables, images)) == once


def test_a_network_in_two_states_is_passed_once(everything):
    """As copies, XLA cannot know that they are one."""
    questions, variables, images = everything
    feature_fn = questions["fssd"].apply_fn
    start = questions["moved"].state
    copied = jax.tree.map(jnp.array, start)
    twice = {"first": start, "second": copied}
    asked = {
        name: Question(displacement.displacements, feature_fn, state)
        for name, state in twice.items()
    }
    assert len(convolutions(compiled(asked, variables, images))) == 6
    asked["second"] = asked["first"]
    assert len(convolutions(compiled(asked, variables, images))) == 4


def test_only_the_first_answers_are_kept(everything):
    questions, variables, images = everything
    whole = questions["distances"]
    asked = {"all": whole, "some": whole._replace(first=11)}
    found = look(asked, variables, images, batch_size=4)
    assert len(found["all"]) == 23
    np.testing.assert_array_equal(found["some"], found["all"][:11])
    assert (
        len(look({"more": whole._replace(first=99)}, variables, images)["more"]) == 23
    )


def test_a_second_look_compiles_nothing(everything):
    questions, variables, images = everything
    traced = []

    def counted(*args):
        traced.append(1)
        return msp.score(*args)

    asked = {"msp": questions["msp"]._replace(score=counted)}
    look(asked, variables, images, batch_size=8)
    other = jax.tree.map(lambda a: a + 0.01, variables)
    look(asked, other, images, batch_size=8)
    assert traced == [1]


def test_unusable_images_are_refused(everything):
    questions, variables, images = everything
    with pytest.raises(InputError, match="unit_range"):
        look(questions, variables, as_input(images) * 2)
