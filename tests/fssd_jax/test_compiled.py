"""What is compiled is found again by value, and let go when it is old."""

import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax import compiled, make_feature_fn, make_logit_fn, map_batches
from fssd_jax.features import make_init_fn


class Scaled(nn.Module):
    scale: object = 2.0
    traces = 0
    feature_layers = ("logits",)

    @nn.compact
    def __call__(self, x):
        Scaled.traces += 1
        return self.scale * nn.Dense(3, name="logits")(x.reshape(len(x), -1))


X = np.random.default_rng(0).uniform(size=(70, 2, 2, 1)).astype(np.float32)


def score(apply_fn, variables, state, x):
    return apply_fn(variables, x)["logits"].sum(-1)


def test_equal_arguments_give_one_function():
    one = make_feature_fn(Scaled(), ["logits"])
    assert make_feature_fn(Scaled(), ("logits",)) is one
    assert make_feature_fn(Scaled()) is one  # the model's own layers
    logit_fn = make_logit_fn(Scaled())
    assert make_logit_fn(Scaled()) is logit_fn
    # Equal and of equal hash, but other networks.
    others = [make_logit_fn(Scaled(scale)) for scale in (2, 3.0, True, 1)]
    assert len({*map(id, others), id(logit_fn)}) == 5
    # What cannot be hashed makes a function of its own, which works.
    array = Scaled(np.float32([[1, 2, 3]]))
    assert make_logit_fn(array) is not make_logit_fn(array)
    variables = array.init(jax.random.key(0), X[:1])
    assert make_logit_fn(array)(variables, X[:4]).shape == (4, 3)


class Knob:
    """An object of a user's, which may be changed."""

    value = 2.0


class Turned(nn.Module):
    knob: Knob

    @nn.compact
    def __call__(self, x):
        return self.knob.value * x


def test_what_may_change_unseen_is_not_found_again():
    knob = Knob()
    model = Turned(knob)  # equal to itself, and of the same hash, whatever its knob
    found = []
    for value in (2.0, 3.0):
        knob.value = value
        found.append(map_batches(plain, make_logit_fn(model), {}, None, X[:4]))
    np.testing.assert_allclose(found[1], 1.5 * found[0])


def plain(apply_fn, variables, state, x):
    return apply_fn(variables, x).sum((1, 2, 3))


def test_a_function_made_in_a_loop_is_compiled_once():
    variables = make_init_fn(Scaled())(jax.random.key(0), X[:1])
    before = Scaled.traces
    for _ in range(3):
        map_batches(score, make_feature_fn(Scaled()), variables, None, X)
    assert Scaled.traces == before + 1


def test_sets_of_any_size_need_few_programs():
    traced = []

    def apply_fn(variables, x):
        traced.append(len(x))
        return {"logits": variables * x.reshape(len(x), -1)}

    for count in range(1, 71):
        found = map_batches(score, apply_fn, 2.0, None, X[:count])
        np.testing.assert_allclose(found, 2 * X[:count].sum((1, 2, 3)), rtol=1e-6)
    assert traced == [1, 2, 4, 8, 16, 32, 64]


def test_the_oldest_programs_are_let_go(monkeypatch):
    """With what they hold; each keeps memory maps, of which a process has 65,530."""
    monkeypatch.setattr(compiled, "PROGRAMS", 3)
    apply = compiled.compiled(static=1)(lambda f, x: f(x))
    alive = []
    for i in range(6):
        f = lambda x, i=i: jnp.sin(x) + i  # noqa: E731
        alive.append(weakref.ref(f))
        np.testing.assert_allclose(apply(f, np.zeros(2, np.float32)), [i, i])
        del f
    for size in range(3, 6):  # shapes count as well
        apply(jnp.cos, np.zeros(size, np.float32))
    gc.collect()
    assert [ref() is None for ref in alive] == [True] * 6


def test_donated_arguments_are_counted_with_the_static_ones():
    add = compiled.compiled(static=1, donate=(2,))(lambda f, x, total: f(x) + total)
    x, total = jnp.ones(3), jnp.ones(3)
    np.testing.assert_allclose(add(jnp.exp, x, total), np.e + np.ones(3), rtol=1e-6)
    assert total.is_deleted()
    assert not x.is_deleted()
