import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.ntk_networks import BIAS_STD, WEIGHT_STD, ConvNet, Perceptron
from fssd_jax import InputError, make_feature_fn

X = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))


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


def test_other_shapes_are_an_error():
    with pytest.raises(InputError, match=r"x\[..., None\]"):
        Perceptron().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
