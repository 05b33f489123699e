"""What is printed of a state: names, shapes and numbers that one looks for."""

import re
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import Fitted, Question
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import (
    ash,
    deep_ensemble,
    dice,
    displacement,
    energy,
    fdbd,
    feature_norm,
    fssd,
    fssd_mahalanobis,
    gen,
    gram,
    kl_matching,
    knn,
    mahalanobis,
    max_logit,
    mc_dropout,
    msp,
    nnguide,
    odin,
    react,
    relative_mahalanobis,
    scale,
    she,
    vim,
)
from fssd_jax.ensemble import Ensemble
from fssd_jax.fssd import Singularity
from fssd_jax.head import Head
from fssd_jax.shown import brief
from fssd_jax.train import Trained

LAYERS = ("first", "second")
NUMBERS = np.linspace(-1, 1, 21, dtype=np.float32)


def of_layers(*values):
    return OrderedDict(zip(LAYERS, map(jnp.asarray, values), strict=True))


SINGULARITY = Singularity(
    of_layers(np.zeros(70, np.float32), np.ones(50, np.float32)),
    of_layers(np.float32(1.25), np.float32(0.5)),
    jnp.int32(321),
)
ENSEMBLE = Ensemble(
    *(jnp.array(a, jnp.float32) for a in ([3, 4], [5, 6], [0.75, -0.25], 0.125))
)
STEPS = jnp.array([0, 0.01], jnp.float32)
GAUSSIANS = mahalanobis.Gaussians(
    of_layers(np.eye(70), np.eye(50)), of_layers(np.ones((3, 70)), np.ones((3, 50)))
)
TREE = {"params": {"a": {"kernel": jnp.zeros((20, 30))}, "b": {"bias": jnp.zeros(7)}}}
HEAD = Head(OrderedDict(first=jnp.zeros((90, 3))), jnp.zeros(3))
BOUNDS = of_layers(np.zeros((10, 3, 70)), np.ones((10, 3, 50)))
STATES = {
    "ash": ash.fit(HEAD),
    "scale": scale.fit(HEAD),
    "react": react.State(HEAD, jnp.float32(1.5)),
    "dice": dice.State(HEAD),
    "vim": vim.State(HEAD, jnp.zeros(90), jnp.zeros((90, 60)), jnp.float32(0.5)),
    "fdbd": fdbd.State(HEAD, jnp.zeros(90), jnp.zeros((3, 3))),
    "gen": gen.fit(),
    "kl_matching": kl_matching.State(jnp.zeros((3, 3))),
    "she": she.State(OrderedDict(first=jnp.zeros((3, 90)))),
    "nnguide": nnguide.State(
        OrderedDict(first=jnp.zeros((1, 90, 64))), jnp.int32(90), jnp.arange(1, 11)
    ),
    "relative_mahalanobis": relative_mahalanobis.State(GAUSSIANS, GAUSSIANS),
    "gram": gram.State(BOUNDS, BOUNDS, of_layers(np.float32(1.5), np.float32(2))),
    "feature_norm": feature_norm.State(
        OrderedDict(first=jnp.float32(1.5)), of_layers(np.float32(1.5), np.float32(1))
    ),
    "fssd": fssd.State(
        SINGULARITY, jnp.float32(0.01), ENSEMBLE, STEPS, jnp.array([0.5, 0.875])
    ),
    "fssd_mahalanobis": fssd_mahalanobis.State(SINGULARITY, GAUSSIANS, ENSEMBLE),
    "mahalanobis": mahalanobis.State(
        GAUSSIANS, jnp.float32(0.01), ENSEMBLE, STEPS, jnp.array([0.5, 0.875])
    ),
    "odin": odin.State(
        jnp.float32(1000), None, jnp.asarray([1.0, 10]), STEPS, jnp.full((2, 4), 0.5)
    ),
    "knn": knn.State(
        OrderedDict(first=jnp.zeros((1, 90, 64))),
        jnp.zeros(64),
        jnp.int32(90),
        jnp.arange(1, 51),
    ),
    "displacement": displacement.State(
        of_layers(np.int32(0), np.int32(1)), TREE, jnp.asarray(True), ENSEMBLE
    ),
    "mc_dropout": mc_dropout.fit(jax.random.key(0), 32),
    "msp": msp.fit(),
    "energy": energy.fit(),
    "max_logit": max_logit.fit(),
    "deep_ensemble": deep_ensemble.fit(),
}
OTHERS = {
    "fitted": Fitted("fssd", {"threshold": 1.5, "mean": [0.5]}, STATES["fssd"]),
    "trained": Trained(
        TREE, TREE, np.array([[2.25, 0.125], [0.5, 0.75]] * 9), {3: TREE}
    ),
    "data": ArrayDataset(
        np.zeros((40, 9, 9, 1), np.uint8), np.arange(40), "mnist", "test", "/x", "ab12"
    ),
    "metrics": fssd_jax.evaluate(NUMBERS, NUMBERS - 1),
    "question": Question(msp.score, lambda v, x: x, STATES["fssd"], 5),
    "singularity": SINGULARITY,
    "ensemble": ENSEMBLE,
    "gaussians": GAUSSIANS,
}
ALL = STATES | OTHERS


def test_every_detector_is_here():
    assert set(STATES) == set(fssd_jax.detectors.__all__)


@pytest.mark.parametrize("name", ALL)
def test_a_few_lines_without_arrays(name):
    text = repr(ALL[name])
    assert text == str(ALL[name]) == brief(ALL[name])
    assert len(text.splitlines()) <= 18
    assert max(map(len, text.splitlines())) <= 88
    # No more than eight numbers stand in a row, whatever the arrays' sizes.
    assert not re.search(r"(-?[\d.]+(e-?\d+)?,?\s+){9}", text)
    assert "Array(" not in text
    if name in STATES:
        assert text.startswith(f"{name}.State(")


def test_the_numbers_that_one_looks_for():
    text = repr(STATES["fssd"])
    for part in (
        "center: {first: float32[70], second: float32[50]}",
        "spread: {first: 1.25, second: 0.5}",
        "count: 321",
        "epsilon: 0.01",
        "alpha: {first: 0.75, second: -0.25}",
        "intercept: 0.125",
        "epsilons: [0, 0.01]",  # two numbers, which are not of the two layers
        "epsilon_auroc: [0.5, 0.875]",
    ):
        assert part in text
    assert "threshold: 1.5" in repr(OTHERS["fitted"])
    assert "last [0.5, 0.75]" in repr(OTHERS["trained"])  # loss and accuracy
    assert "2 arrays of 607 numbers" in repr(OTHERS["trained"])
    assert "x: uint8[40, 9, 9, 1]" in repr(OTHERS["data"])
    assert "y: int64[40], 0 to 39" in repr(OTHERS["data"])
    of = OTHERS["metrics"]
    low, high = of.auroc_ci95
    assert f"auroc: {of.auroc:.5g} [{low:.5g}, {high:.5g}]" in repr(of)
    assert "fssd_jax.detectors.msp.score" in repr(OTHERS["question"])
    assert "temperature: 1000" in repr(STATES["odin"])
    assert "temperatures: [1, 10]" in repr(STATES["odin"])


@pytest.mark.parametrize("name", [*STATES, "singularity", "ensemble", "gaussians"])
def test_traced_and_abstract_values_show_their_shapes(name):
    state, seen = ALL[name], []
    jax.jit(lambda s: seen.append(repr(s)))(state)
    seen.append(repr(jax.eval_shape(lambda s: s, state)))
    if jax.tree.leaves(state):
        shapes = [f"{a.dtype}{list(a.shape)}" for a in jax.tree.leaves(state)]
        for text in seen:
            # Variables are counted, not listed; all else has its shape.
            assert name == "displacement" or all(shape in text for shape in shapes)
    in_a_tree = {"a": [state, (state,)]}
    assert repr(in_a_tree).count(type(state).__name__) >= 2


def test_whatever_stands_in_the_fields_it_does_not_raise():
    gone = jax.tree.map(jnp.copy, SINGULARITY)
    jax.tree.map(lambda a: a.delete(), gone)
    assert "float32[70]" in repr(gone)
    many = {f"layer{i}": jnp.float32(i) for i in range(100)}
    assert "100 in all" in repr(SINGULARITY._replace(spread=many))
    assert len(repr(SINGULARITY._replace(spread=many))) < 400
    for value in (
        *(None, object(), float("nan"), "text", [], (), {}, {1: "a", "b": {2: 3}}, []),
        *(np.array(["a"]), np.zeros((0, 2)), jnp.zeros((), jnp.bfloat16), b"bytes"),
        *(jax.random.key(0), np.array([None, {}], object), 1 + 2j, jnp.int8(3)),
    ):
        for state in (SINGULARITY, ENSEMBLE, STATES["fssd"]):
            text = repr(jax.tree.map(lambda _, value=value: value, state))
            assert text.startswith(("Singularity(", "Ensemble(", "fssd.State("))
        assert repr(ENSEMBLE._replace(alpha=value)).startswith("Ensemble(")
