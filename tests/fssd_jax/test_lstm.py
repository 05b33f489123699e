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

SMALL = BiLSTM(num_classes=3, hidden=8, positions=(0, 2, 5))
LAYERS = ["embedding", "position0", "position2", "position5", "last"]
close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)


def one_hot(count, length=9, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 4, (count, length))
    return np.eye(4, dtype=np.float32)[tokens]


@pytest.fixture(scope="module")
def variables():
    return SMALL.init(jax.random.key(0), one_hot(1))


@pytest.fixture(scope="module")
def rival():
    """(x, F, G, variables): PyTorch's features and logits, and their own gradients.

    G[layer] is the gradient of the sum of F[layer]² with respect to x.
    """
    torch = pytest.importorskip("torch")
    nn = torch.nn
    embedding, logits = nn.Embedding(4, 4), nn.Linear(16, 3)
    lstm = nn.LSTM(4, 8, 2, batch_first=True, bidirectional=True)
    generator = torch.Generator().manual_seed(0)
    for p in nn.ModuleList([embedding, lstm, logits]).parameters():
        nn.init.normal_(p, 0, 0.6, generator=generator)

    x = torch.from_numpy(one_hot(5)).requires_grad_()
    embedded = x @ embedding.weight
    # The product is PyTorch's own look-up of tokens.
    close(embedded.detach(), embedding(x.argmax(-1)).detach())
    states = lstm(embedded)[0]
    features = {
        "embedding": embedded,
        **{f"position{i}": states[:, i] for i in (0, 2, 5)},
        "last": states[:, -1],
        "logits": logits(states[:, -1]),
    }
    gradients = {
        name: torch.autograd.grad((f**2).sum(), x, retain_graph=True)[0].numpy()
        for name, f in features.items()
    }

    def numbers(parameter):
        return parameter.detach().numpy()

    params = {
        "embedding": {"kernel": numbers(embedding.weight)},
        "logits": {"kernel": numbers(logits.weight).T, "bias": numbers(logits.bias)},
    }
    for layer in range(2):
        for way, suffix in (("forward", ""), ("backward", "_reverse")):
            inside, hidden, *biases = (
                np.split(numbers(getattr(lstm, f"{kind}_l{layer}{suffix}")), 4)
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            cell = params[f"{way}{layer + 1}"] = {}
            for i, gate in enumerate("ifgo"):
                bias = biases[0][i] + biases[1][i]
                cell[f"i{gate}"] = {"kernel": inside[i].T}
                cell[f"h{gate}"] = {"kernel": hidden[i].T, "bias": bias}
    features = {name: numbers(f) for name, f in features.items()}
    return one_hot(5), features, gradients, {"params": params}


def test_every_layer_is_that_of_pytorch(rival, variables):
    x, expected, _, copied = rival
    shapes = (jax.tree.map(np.shape, v) for v in (copied, variables))
    assert next(shapes) == next(shapes)
    found = make_feature_fn(SMALL)(copied, x)
    assert list(found) == LAYERS == list(SMALL.feature_layers)
    for layer in LAYERS:
        close(found[layer], expected[layer], err_msg=layer)
    close(make_logit_fn(SMALL)(copied, x), expected["logits"])


def test_gradients_with_respect_to_the_sequence_are_those_of_pytorch(rival):
    x, _, expected, copied = rival
    feature_fn = make_feature_fn(SMALL, [*LAYERS, "logits"])
    squares = lambda x: {k: (f**2).sum() for k, f in feature_fn(copied, x).items()}  # noqa: E731
    found = jax.jit(jax.jacrev(squares))(x)
    for layer, gradient in expected.items():
        assert np.abs(gradient).max() > 0.01
        np.testing.assert_allclose(found[layer], gradient, 1e-4, 1e-5, err_msg=layer)


@pytest.mark.parametrize(
    ("positions", "x", "message"),
    [
        ((2,), np.zeros((2, 9), np.int32), "jax.nn.one_hot"),
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
