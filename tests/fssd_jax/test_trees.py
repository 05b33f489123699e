"""Several arrays are one input: token ids, a mask, numbers."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, map_batches, noise
from fssd_jax.data.inputs import as_input
from fssd_jax.detectors import fssd

RNG = np.random.default_rng(0)


def of_two(variables, x):
    """A network of token ids and a mask, and of a number a row."""
    embedded = variables["table"][x["ids"]] * x["mask"][..., None]
    length = x["mask"].sum(1, keepdims=True)
    z = embedded.sum(1) / length + x["more"][:, None]
    return OrderedDict(z=z, logits=z @ variables["w"])


def test_several_arrays_are_one_input():
    n = 23
    data = {
        "ids": RNG.integers(0, 1000, (n, 6)),
        "mask": RNG.random((n, 6)) < 0.7,
        "more": RNG.normal(size=n),
    }
    data["mask"][:, 0] = True
    variables = {"table": RNG.normal(size=(1000, 4)), "w": RNG.normal(size=(4, 2))}
    variables = jax.tree.map(jnp.float32, variables)
    tokens = noise.random_tokens(jax.random.key(0), 40, (6,), 1000)
    around = {
        "ids": tokens,
        "mask": np.ones((40, 6), bool),
        "more": RNG.normal(size=40),
    }
    state = fssd.fit(of_two, variables, around)
    found = map_batches(fssd.score, of_two, variables, state, data, batch_size=8)

    def exact(d):
        embedded = np.float64(variables["table"])[d["ids"]] * d["mask"][..., None]
        z = embedded.sum(1) / d["mask"].sum(1, keepdims=True) + d["more"][:, None]
        return [z, z @ np.float64(variables["w"])]

    centers = [f.mean(0) for f in exact(jax.tree.map(np.asarray, around))]

    def far(d):
        pairs = zip(exact(d), centers, strict=True)
        return np.stack([np.linalg.norm(f - c, axis=1) for f, c in pairs], axis=1)

    d = far(data)
    got = map_batches(fssd.layer_scores, of_two, variables, state, data, batch_size=8)
    np.testing.assert_allclose(got, d, rtol=1e-4)
    parts = [jax.tree.map(lambda a, i=i: a[i : i + 5], data) for i in range(0, n, 5)]
    again = map_batches(fssd.score, of_two, variables, state, iter(parts))
    np.testing.assert_allclose(again, found, rtol=1e-5)
    # Numbers beside ids have a gradient, ids have none and stay.
    given = jax.tree.map(jnp.asarray, as_trees(data))
    of = of_two, variables, state.singularity
    stepped = fssd_jax.fssd.fssd(*of, given, jnp.float32(0.1))
    moved = [{**data, "more": data["more"] + s * 0.1} for s in (1, -1)]
    both = np.stack([far(m) for m in moved])
    assert np.isclose(both, np.asarray(stepped)[None], rtol=1e-4).any(0).all()
    assert (np.asarray(stepped) > d).mean() > 0.8


def as_trees(data):
    return {k: a if a.dtype == bool else as_input(a) for k, a in data.items()}


def test_ids_alone_have_no_step():
    table = jnp.asarray(RNG.normal(size=(50, 3)), jnp.float32)
    feature_fn = lambda v, x: OrderedDict(z=v[x].mean(1))  # noqa: E731
    ids = [RNG.integers(0, n, (40, 5)) for n in (50, 25)]
    tokens = noise.random_tokens(jax.random.key(0), 30, (5,), 50)
    with pytest.raises(InputError, match=r"epsilons=\(0\.,\)"):
        fssd.fit(feature_fn, table, tokens, *ids, epsilons=(0.0, 0.1))
    state = fssd.fit(feature_fn, table, tokens, *ids, epsilons=(0.0,))
    assert state.epsilon is None
    assert np.isfinite(map_batches(fssd.score, feature_fn, table, state, ids[0])).all()
