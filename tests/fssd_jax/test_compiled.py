"""What is compiled is found again by value, and let go when it is old."""

import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fssd_jax import (
    compiled,
    make_feature_fn,
    make_logit_fn,
    map_batches,
    uniform_noise,
)
from fssd_jax.detectors import deep_ensemble, fssd, knn, mahalanobis
from fssd_jax.fssd import sweep
from fssd_jax.train import train


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
        found.append(map_batches(summed, make_logit_fn(model), {}, None, X[:4]))
    np.testing.assert_allclose(found[1], 1.5 * found[0], rtol=1e-6)


def summed(apply_fn, variables, state, x):
    return apply_fn(variables, x).reshape(len(x), -1).sum(1)


def test_a_function_made_in_a_loop_is_compiled_once(monkeypatch):
    made = []
    lower = jax.stages.Traced.lower
    monkeypatch.setattr(
        jax.stages.Traced, "lower", lambda t, *a: made.append(t) or lower(t, *a)
    )
    variables = Scaled().init(jax.random.key(0), X[:1])
    found = [
        map_batches(summed, make_logit_fn(Scaled(scale)), variables, None, X)
        for scale in (2.0, 2.0, 3.0, 2.0)
    ]
    assert len(made) == 2
    np.testing.assert_array_equal(found[0], found[3])
    assert np.any(found[0] != found[2])


def test_a_network_is_traced_once_whatever_asks_it():
    class Own(Scaled):
        """Not equal to a network of other tests."""

    model = Own()
    variables = model.init(jax.random.key(0), X[:1])
    feature_fn = make_feature_fn(model)
    map_batches(score, feature_fn, variables, None, X)
    traces = Scaled.traces
    for power in (2, 3):
        also = lambda f, v, _, x, power=power: score(f, v, _, x) ** power  # noqa: E731
        map_batches(also, feature_fn, variables, None, X)
    assert Scaled.traces == traces
    map_batches(score, feature_fn, variables, None, X[:3])  # of another shape
    assert Scaled.traces > traces


def test_callbacks_are_told_apart_by_identity():
    """Of a program that calls back, the text tells no difference."""
    apply = compiled.compiled(static=1)(lambda f, x: f(x))

    def calling(number):
        host = lambda x: np.float32(number) + x  # noqa: E731
        return lambda x: jax.pure_callback(host, jax.ShapeDtypeStruct((), "float32"), x)

    x = jnp.float32(0)
    assert [float(apply(calling(n), x)) for n in (1, 2, 1)] == [1, 2, 1]


def test_what_cannot_be_hashed_may_be_static():
    class Unhashable:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __call__(self, variables, x):
            return {"logits": variables * x.reshape(len(x), -1)}

    found = map_batches(score, Unhashable(), 2.0, None, X)
    np.testing.assert_allclose(found, 2 * X.sum((1, 2, 3)), rtol=1e-6)


def test_a_program_follows_jaxs_configuration():
    apply = compiled.compiled(static=1)(lambda f, x: f(x))
    x = np.ones(3, np.float64)
    assert apply(jnp.cos, x).dtype == jnp.float32
    with jax.enable_x64(True):
        assert apply(jnp.cos, x).dtype == jnp.float64


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
    monkeypatch.setattr(compiled, "TRACES", 3)
    monkeypatch.setattr(compiled, "_PROGRAMS", compiled.Recent(3))
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


class Wide(nn.Module):
    width: int
    feature_layers = ("first",)

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(self.width, name="first")(x.reshape(len(x), -1)))
        return nn.Dense(2)(x)


def all_fitted(count: int, side: int, width: int) -> None:
    x = np.random.default_rng(0).uniform(size=(count, side, side, 1))
    x, y = x.astype(np.float32), np.arange(count) % 2
    model, of_model = Wide(width), {"num_classes": 2, "seed": 0, "epochs": 1}
    recipe = lambda epochs, steps: optax.sgd(0.1, momentum=0.9)  # noqa: E731
    trained = train(model, x, y, recipe=recipe, progress=False, **of_model)
    of = make_feature_fn(model), trained.variables
    noise = uniform_noise(jax.random.key(0), count, x.shape[1:])
    state, steps = fssd.fit(*of, noise), jnp.float32([0.0, 0.1])
    map_batches(sweep, *of, state.singularity, x, epsilons=steps, batch_axis=1)
    mahalanobis.estimate_gaussians(*of, x, y, 2)
    knn.fit(*of, x, "first", k=2)
    deep_ensemble.stack([trained.variables, trained.initial])


def test_at_new_shapes_nothing_is_compiled_but_our_programs(monkeypatch):
    """What JAX compiles beside, one operation at a time, is kept: some 2 MiB each."""
    ours, found = [], []
    ours_too = compiled._compile
    monkeypatch.setattr(
        compiled, "_compile", lambda *of: ours.append(of[0]) or ours_too(*of)
    )

    def listen(event: str, seconds: float, **of):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(of.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        all_fitted(count=24, side=2, width=3)  # of any shape: keys, seeds, …
        ours.clear()
        found.clear()
        all_fitted(count=27, side=3, width=5)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert ours
    assert len(found) == len(ours), found


def test_donated_arguments_are_counted_with_the_static_ones():
    add = compiled.compiled(static=1, donate=(2,))(lambda f, x, total: f(x) + total)
    x, total = jnp.ones(3), jnp.ones(3)
    np.testing.assert_allclose(add(jnp.exp, x, total), np.e + np.ones(3), rtol=1e-6)
    assert total.is_deleted()
    assert not x.is_deleted()
