from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.bottleneck import GradientFn
from analysis.infinite_width import kernel_fn
from analysis.ntk_networks import (
    BIAS_STD,
    PARAMETRISATIONS,
    WEIGHT_STD,
    ConvNet,
    Perceptron,
    ResNet,
    stable_rate,
)
from fssd_jax import InputError, make_feature_fn
from fssd_jax.losses import cross_entropy

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))


def rms(features):
    return {k: float(jnp.sqrt(jnp.square(f).mean())) for k, f in features.items()}


def exponents(found, widths):
    """layer → that of the width."""
    return {
        k: np.polyfit(np.log(widths), np.log([of[k] for of in found]), 1)[0]
        for k in found[0]
    }


@pytest.mark.parametrize(
    ("parametrisation", "logits", "steps"),
    [
        ("ntk", 0, (-1 / 2, -1 / 2, 0)),
        ("standard", 0, (-3 / 2, -1 / 2, 0)),
        ("mup", -1 / 2, (0, 0, 0)),
    ],
)
def test_sizes_and_steps_are_powers_of_the_width(parametrisation, logits, steps):
    """Yang and Hu (2021): features that begin at size 1, and how far one step goes.

    Of a loss that is linear in the logits: its gradient by them is alike at all widths.
    """
    widths, x, before, change = (64, 1024), X[:, :4, :4], [], []
    for width in widths:
        model = Perceptron(width, 8, parametrisation=parametrisation, base_width=8)
        feature_fn, rate = make_feature_fn(model), stable_rate(model, 0.1)

        @jax.jit
        @jax.vmap
        def step(key, model=model, feature_fn=feature_fn, rate=rate):
            start = model.init(key, x)["params"]

            def loss(params):
                return -model.apply({"params": params}, x)[:, 0].mean()

            slope = jax.grad(loss)(start)
            end = jax.tree.map(lambda p, g: p - rate * g, start, slope)
            at, then = (feature_fn({"params": p}, x) for p in (start, end))
            return at, jax.tree.map(jnp.subtract, then, at)

        at, moved = step(jax.random.split(jax.random.key(1), 6))
        before.append(rms(at))
        change.append(rms(moved))
    found = exponents(before, widths)
    np.testing.assert_allclose(list(found.values()), [0, 0, logits], atol=0.15)
    found = exponents(change, widths)
    np.testing.assert_allclose(list(found.values()), steps, atol=0.2)


NETWORKS = [
    partial(Perceptron, 6),
    partial(ConvNet, 6),
    partial(ResNet, 6),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_parametrisations_are_the_ntk_one_with_factors(network):
    """Of its parameters and of its output, by the table; at the base width, of none."""
    ntk, root = network(num_classes=3, base_width=6), np.sqrt(3)  # r = 3
    variables = ntk.init(jax.random.key(0), X)
    expected = ntk.apply(variables, X)
    for parametrisation in PARAMETRISATIONS:
        same = network(num_classes=3, base_width=6, parametrisation=parametrisation)
        assert stable_rate(same, 0.7) == 0.7
        jax.tree.map(
            np.testing.assert_array_equal, same.init(jax.random.key(0), X), variables
        )
        np.testing.assert_array_equal(same.apply(variables, X), expected)
    mup = network(num_classes=3, base_width=2, parametrisation="mup")
    small = jax.tree.map(lambda p: p / root, variables)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        mup.init(jax.random.key(0), X),
        small,
    )
    np.testing.assert_allclose(mup.apply(small, X), expected / root, rtol=1e-4)
    assert stable_rate(mup, 0.7) == 0.7

    def scaled(path, p):
        layer, *_, which = (part.key for part in path[1:])
        first = layer == ntk.feature_layers[0]
        return p if which == "bias" or first else p / root

    standard = network(num_classes=3, base_width=2, parametrisation="standard")
    small = jax.tree_util.tree_map_with_path(scaled, variables)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6),
        standard.init(jax.random.key(0), X),
        small,
    )
    np.testing.assert_allclose(standard.apply(small, X), expected, rtol=1e-4)
    assert stable_rate(standard, 0.6) == pytest.approx(0.2)


def test_ntk_parametrisation():
    """By the formula; and features keep their size whatever the width."""
    model = Perceptron(7, 3, (0.5,), (0.25,))
    variables = model.init(jax.random.key(0), X)
    f = (np.asarray(X).reshape(4, -1) - 0.5) / 0.25
    for k, layer in enumerate(("fc1", "fc2", "logits")):
        p = jax.tree.map(np.asarray, variables["params"][layer])
        f = WEIGHT_STD / np.sqrt(f.shape[1]) * f @ p["kernel"] + BIAS_STD * p["bias"]
        f = np.maximum(f, 0) if k < 2 else f
    np.testing.assert_allclose(model.apply(variables, X), f, rtol=1e-4, atol=1e-5)
    for wide in (Perceptron(2000), ConvNet(100, max_pool=False, strides=2)):
        variables = jax.jit(wide.init)(jax.random.key(1), X)
        of = jax.jit(make_feature_fn(wide))(variables, X)
        squares = [float(jnp.square(f).mean()) for f in of.values()]
        # √2 keeps the mean square that relu halves, and each bias adds a little.
        pre = float(jnp.square((X - 0.286) / 0.353).mean())
        np.testing.assert_allclose(squares[0], pre + BIAS_STD**2 / 2, rtol=0.15)
        np.testing.assert_allclose(squares[1], pre + BIAS_STD**2, rtol=0.3)
    assert all(
        abs(float(leaf.std()) - 1) < 0.2
        for leaf in jax.tree.leaves(variables["params"])
        if leaf.size > 100
    )


def test_the_shape_of_lenet():
    model = ConvNet()
    x = jnp.zeros((1, 28, 28, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    features = jax.eval_shape(make_feature_fn(model), variables, x)
    assert [f.shape[1:] for f in features.values()] == [
        *((26, 26, 32), (24, 24, 64), (128,), (10,)),
    ]


def test_compiled_derivatives_are_those_op_by_op():
    """XLA once computed the input of the pooling twice, to different last bits."""
    model = ConvNet(2, 3)
    variables = model.init(jax.random.key(1), X)["params"]

    def logits(params):
        return model.apply({"params": params}, X)

    for derivative in (jax.jacrev, jax.jacfwd):
        compiled = jax.jit(derivative(logits))(variables)
        jax.tree.map(
            lambda c, e: np.testing.assert_allclose(c, e, rtol=1e-4, atol=1e-6),
            compiled,
            derivative(logits)(variables),
        )


def test_resnet():
    """By the formula; the loss passes through the stem and the blocks, not in them."""
    model = ResNet(4, 3, (0.5,), (0.25,))
    variables = model.init(jax.random.key(0), X)
    feature_fn = make_feature_fn(model)
    found = feature_fn(variables, X)
    p = variables["params"]

    def conv(x, p, strides=1):
        return (
            jax.lax.conv_general_dilated(
                *(x, p["kernel"] * WEIGHT_STD / np.sqrt(9 * x.shape[-1])),
                *((strides, strides), [(0, 1), (0, 1)] if strides == 2 else "SAME"),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            + BIAS_STD * p["bias"][None, None, None]
        )

    f = jnp.maximum(conv((X - 0.5) / 0.25, p["stem"], 2), 0)
    expected = [f]
    for block in ("block1", "block2"):
        branch = conv(jnp.maximum(conv(f, p[block]["conv1"]), 0), p[block]["conv2"])
        f = jnp.maximum(f + branch / 2, 0)
        expected.append(f)
    f = f.mean((1, 2)) @ p["logits"]["kernel"] * WEIGHT_STD / 2
    expected.append(f + BIAS_STD * p["logits"]["bias"][None])
    assert list(found) == ["stem", "block1", "block2", "logits"]
    for of, by_hand in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(of, by_hand, rtol=1e-4, atol=1e-5)
    layers = make_feature_fn(model, [*found, "block1/conv1"])
    gradient_fn = GradientFn(
        lambda variables, x, y: cross_entropy(model.apply(variables, x), y), layers
    )
    through = gradient_fn.bottlenecks(variables, X, np.array([0, 1, 2, 0]))
    assert through == list(found)
    colour = ResNet(4, 3, (0.5,) * 3, (0.3,) * 3, blocks=3)
    x = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(colour.init, jax.random.key(0), x)
    shapes = jax.eval_shape(make_feature_fn(colour), variables, x)
    assert [f.shape[1:] for f in shapes.values()] == [*4 * [(16, 16, 4)], (3,)]


def test_what_is_no_parametrisation_is_an_error():
    model = Perceptron(4, 3, parametrisation="muP")
    with pytest.raises(InputError, match=r"'ntk', 'standard', 'mup'.*got 'muP'"):
        model.init(jax.random.key(0), X)
    with pytest.raises(InputError, match="got 'muP'"):
        stable_rate(model, 0.1)
    with pytest.raises(InputError, match="base_width"):
        Perceptron(4, base_width=0).init(jax.random.key(0), X)
    with pytest.raises(InputError, match=r"parametrisation=.ntk., got 'mup'"):
        kernel_fn(Perceptron(4, parametrisation="mup"))


def test_other_shapes_are_an_error():
    with pytest.raises(InputError, match=r"x\[..., None\]"):
        Perceptron().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
