"""The bidirectional LSTM, against PyTorch's and by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import (
    InputError,
    estimate_singularity,
    fssd,
    make_feature_fn,
    make_logit_fn,
    recipes,
    uniform_noise,
)
from fssd_jax.models import BiLSTM
from fssd_jax.train import accuracy, train
from tests.fssd_jax.references import one_hot, weights

SMALL = BiLSTM(num_classes=3, hidden=8, positions=(0, 2, 5))
LAYERS = ["embedding", "position0", "position2", "position5", "last"]
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def variables():
    return SMALL.init(jax.random.key(0), one_hot(1))


@pytest.fixture(scope="module")
def rival(reference):
    """PyTorch's features, logits and gradients, and its weights as ours."""
    expected = reference("lstm")
    theirs = weights(expected["entries"])
    params = {
        "embedding": {"kernel": theirs["embedding.weight"]},
        "logits": {
            "kernel": theirs["logits.weight"].T,
            "bias": theirs["logits.bias"],
        },
    }
    for layer in range(2):
        for way, suffix in (("forward", ""), ("backward", "_reverse")):
            inside, hidden, *biases = (
                np.split(theirs[f"lstm.{kind}_l{layer}{suffix}"], 4)
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            cell = params[f"{way}{layer + 1}"] = {}
            for i, gate in enumerate("ifgo"):
                bias = biases[0][i] + biases[1][i]
                cell[f"i{gate}"] = {"kernel": inside[i].T}
                cell[f"h{gate}"] = {"kernel": hidden[i].T, "bias": bias}
    return expected, {"params": params}


def test_every_layer_is_that_of_pytorch(rival, variables):
    expected, copied = rival
    shapes = (jax.tree.map(np.shape, v) for v in (copied, variables))
    assert next(shapes) == next(shapes)
    found = make_feature_fn(SMALL)(copied, one_hot(5))
    assert list(found) == LAYERS == list(SMALL.feature_layers)
    for layer in LAYERS:
        close(found[layer], expected[layer], err_msg=layer)
    close(make_logit_fn(SMALL)(copied, one_hot(5)), expected["logits"])


def test_gradients_with_respect_to_the_sequence_are_those_of_pytorch(rival):
    expected, copied = rival
    feature_fn = make_feature_fn(SMALL, [*LAYERS, "logits"])
    squares = lambda x: {k: (f**2).sum() for k, f in feature_fn(copied, x).items()}  # noqa: E731
    found = jax.jit(jax.jacrev(squares))(one_hot(5))
    for layer in [*LAYERS, "logits"]:
        gradient = expected[f"{layer} by x"]
        assert np.abs(gradient).max() > 0.01
        np.testing.assert_allclose(found[layer], gradient, 1e-4, 1e-5, err_msg=layer)


@pytest.mark.parametrize(
    ("positions", "x", "message"),
    [
        ((2,), np.zeros((2, 9), np.float32), "jax.nn.one_hot"),
        ((2,), np.zeros((2, 9, 5), np.float32), "one-hot sequences"),
        ((2,), np.zeros((2, 9, 4, 1), np.float32), "one-hot sequences"),
        ((0, 2, 5), np.zeros((2, 5, 4), np.float32), "of length 5"),
        ((-1,), np.zeros((2, 9, 4), np.float32), "positions count from 0"),
        ((), np.zeros((2, 0, 4), np.float32), "of length 0"),
    ],
)
def test_what_is_not_a_long_enough_one_hot_sequence_is_refused(
    positions, x, message, variables
):
    model = SMALL.clone(positions=positions)
    with pytest.raises(InputError, match=message):
        model.init(jax.random.key(0), x)
    with pytest.raises(InputError, match=message):
        make_feature_fn(model)(variables, x)


def test_ids_are_their_one_hot_sequences(variables):
    x = one_hot(5)
    feature_fn = make_feature_fn(SMALL, [*LAYERS, "logits"])
    found, expected = (feature_fn(variables, a) for a in (x.argmax(-1), x))
    for layer, features in expected.items():
        np.testing.assert_array_equal(found[layer], features)


def test_training_drops_units_out_between_the_layers_and_before_the_logits(variables):
    x, key = one_hot(200), jax.random.key(1)
    model = SMALL.clone(dropout=0.3)
    logits = make_logit_fn(model)(variables, x)
    np.testing.assert_array_equal(logits, make_logit_fn(SMALL)(variables, x))
    rngs = {"dropout": key}
    names = ["lstm1", "Dropout_0", "last", "Dropout_1", "logits"]
    found = make_feature_fn(model, names, train=True, rngs=rngs)(variables, x)
    assert list(found) == names
    for before, after in (("lstm1", "Dropout_0"), ("last", "Dropout_1")):
        kept = np.asarray(found[after]) != 0
        close(found[after], found[before] * kept / 0.7)
        assert abs(1 - kept.mean() - 0.3) < 5 * (0.3 * 0.7 / kept.size) ** 0.5
    assert np.abs(found["logits"] - logits).max() > 0.01
    undropped = SMALL.clone(dropout=0.0).apply(variables, x, train=True, rngs=rngs)
    close(undropped, logits)


def test_the_full_size_has_32_million_parameters():
    """PyTorch's count, less one of the two biases that it has for every gate."""
    h = 1000
    lstm = 2 * sum(4 * h * (inside + h) + 2 * 4 * h for inside in (4, 2 * h))
    shapes = jax.eval_shape(BiLSTM().init, jax.random.key(0), jnp.zeros((1, 250, 4)))
    found = sum(a.size for a in jax.tree.leaves(shapes))
    assert found == lstm - 2 * 2 * 4 * h + 4 * 4 + 2 * h * 10 + 10 == 32_068_026


def test_initial_weights_are_spread_as_those_of_pytorch(variables):
    """U[−b, b] with b = 1 / √hidden; a bias is the sum of two such."""
    params = variables["params"]
    cells = [params[f"{way}{i}"] for way in ("forward", "backward") for i in (1, 2)]
    for what, variance, bound in (("kernel", 1 / 3, 1), ("bias", 2 / 3, 2)):
        gates = [w[what] for cell in cells for w in cell.values() if what in w]
        a = np.concatenate([np.ravel(w) for w in gates]) * 8**0.5
        assert bound / 2 < np.abs(a).max() <= bound * (1 + 1e-5)
        error = 5 * (1.5 / a.size) ** 0.5
        np.testing.assert_allclose([a.mean(), a.var()], [0, variance], atol=error)


def test_it_learns_which_symbol_is_frequent(variables):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    frequent = rng.uniform(size=(600, 8)) < 0.7
    tokens = np.where(frequent, y[:, None], rng.integers(0, 4, (600, 8)))
    x = np.eye(4, dtype=np.float32)[tokens]
    model = SMALL.clone(positions=(2,))
    how = {"num_classes": 3, "seed": 0, "initial": variables, "progress": False}
    how |= {"recipe": recipes.lstm, "epochs": 20, "batch_size": 25}
    trained = train(model, x[:500], y[:500], **how).variables
    found = [
        accuracy(make_logit_fn(model), v, x[500:], y[500:])
        for v in (variables, trained)
    ]
    assert found[0] < 0.7
    assert found[1] > 0.9


def test_distances_are_those_computed_by_hand(variables):
    noise = uniform_noise(jax.random.key(1), 50, (9, 4))
    x, feature_fn = jnp.asarray(one_hot(6)), jax.jit(make_feature_fn(SMALL))
    singularity = estimate_singularity(feature_fn, variables, noise, 16)
    of_noise = feature_fn(variables, noise)
    centers = {k: np.asarray(f, np.float64).mean(0) for k, f in of_noise.items()}

    def by_hand(x):
        gaps = {k: f - centers[k][None] for k, f in feature_fn(variables, x).items()}
        squares = {k: (g**2).reshape(len(g), -1).sum(-1) for k, g in gaps.items()}
        return jnp.sqrt(jnp.stack(list(squares.values()), -1))

    run = jax.jit(partial(fssd.fssd, feature_fn), static_argnames="epsilon")
    plain, stepped = (run(variables, singularity, x, epsilon=e) for e in (0.0, 0.05))
    assert plain.shape == stepped.shape == (6, len(LAYERS))
    assert np.isfinite(stepped).all()
    assert (stepped > plain).all()
    close(plain, by_hand(x))
    close(fssd.distances(singularity, feature_fn(variables, x)), plain)
    slopes = jax.jit(jax.jacrev(lambda x: by_hand(x).sum(0)))(x)
    for i, slope in enumerate(slopes):
        close(stepped[:, i], by_hand(x + 0.05 * jnp.sign(slope))[:, i])


def test_bfloat16_is_near_float32_and_returns_float32(variables):
    x = one_hot(20)
    found, expected = (
        make_feature_fn(SMALL.clone(dtype=dtype), [*LAYERS, "logits"])(variables, x)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    for layer, f in found.items():
        assert f.dtype == jnp.float32
        close(f, expected[layer], atol=0.02, err_msg=layer)
    assert np.abs(found["logits"] - expected["logits"]).max() > 1e-6
