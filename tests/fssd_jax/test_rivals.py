"""Today's rivals: each against its paper's formula, written in NumPy in float64."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from fssd_jax import InputError, detectors, head, labelled, map_batches, metrics
from fssd_jax.detectors import (
    ash,
    dice,
    fdbd,
    gen,
    kl_matching,
    react,
    scale,
    vim,
)
from tests.fssd_jax.rivals import (
    CHANNELS,
    CLASSES,
    close,
    feature_fn,
    logit_fn,
    make_case,
)

RAW = {"unit_range": False}  # the inputs are the logits


@pytest.fixture(scope="module")
def case():
    return make_case()


# ---- what all do --------------------------------------------------------------------


def channels(variables, x):
    """The image's channels are the units, two a class."""
    logits = jnp.matmul(x.mean((1, 2)), variables["kernel"], precision="highest")
    return OrderedDict(maps=x, logits=logits + variables["bias"][None])


def blobs(seed, n, known=True):
    """The two channels of a class are bright; of OoD, two of neighbours, half so."""
    rng, y = np.random.default_rng(seed), np.arange(n) % CLASSES
    x = rng.uniform(0, 0.1 if known else 0.05, (n, 3, 3, 2 * CLASSES))
    for i, c in enumerate(y):
        bright = [2 * c, 2 * c + 1] if known else [2 * c + 1, (2 * c + 2) % 8]
        x[i, ..., bright] = rng.uniform(0.7, 1, (2, 3, 3)) / (1 if known else 2)
    return x.astype(np.float32), y


RIVALS = (
    *("react", "dice", "vim", "fdbd", "ash", "scale", "gen", "kl_matching", "she"),
    *("nnguide", "relative_mahalanobis", "gram", "feature_norm"),
)


@pytest.mark.parametrize("name", RIVALS)
def test_it_separates_blobs_and_does_not_depend_on_the_batch(name):
    kernel = 10 * np.repeat(np.eye(CLASSES), 2, axis=0)
    v = {"kernel": jnp.float32(kernel), "bias": jnp.arange(CLASSES) / 10}
    (train, y), (ind, _), (ood, _) = blobs(0, 80), blobs(1, 60), blobs(2, 60, False)
    logits = lambda v, x: channels(v, x)["logits"]  # noqa: E731
    last = head.find(channels, logits, v, train)
    module, apply_fn = getattr(detectors, name), channels
    if name in ("ash", "scale"):
        state = module.fit(last, percentile=75.0)
    elif name in ("gen", "kl_matching"):
        apply_fn = logits
        state = gen.fit() if name == "gen" else kl_matching.fit(logits, v, ind)
    else:
        given = {
            "she": (train, y, CLASSES, "maps"),
            "nnguide": (train, "maps"),
            "relative_mahalanobis": (train, y, CLASSES, "maps"),
            "gram": (train, ind),
            "feature_norm": (train,),
        }
        options = {"dice": {"percentile": 75.0}}
        state = module.fit(
            channels, v, *given.get(name, (last, train)), **options.get(name, {})
        )
    scores = [map_batches(module.score, apply_fn, v, state, x) for x in (ind, ood)]
    assert [s.shape for s in scores] == [(60,), (60,)]
    assert metrics.auroc(*scores) > 0.95
    again = map_batches(module.score, apply_fn, v, state, ind[::-1], batch_size=7)
    size = max(np.ptp(s) for s in scores)
    np.testing.assert_allclose(scores[0], again[::-1], 1e-4, 1e-5 * size)


# ---- what reads the last layer ------------------------------------------------------


def test_react_clips_at_the_percentile_of_the_training_set(case):
    state = react.fit(*case.network, case.head, case.train, batch_size=16)
    clip = np.quantile(case.of_train.h, 0.9)
    np.testing.assert_allclose(state.clip, clip, rtol=2e-3)
    # One pass tells the percentile to some 1/2048; the score is of that one.
    clipped = np.minimum(case.of_x.h, np.float64(state.clip))
    assert (clipped < case.of_x.h).any()
    close(case, react.score, state, case.energy(clipped))


def test_dice_keeps_a_tenth_of_the_weights(case):
    state = dice.fit(*case.network, case.head, case.train, batch_size=16)
    contribution = case.of_train.h.mean(0)[:, None] * case.kernel
    kept = contribution > np.percentile(contribution, 90)
    assert kept.sum() == 5  # of 48
    close(case, dice.score, state, case.energy(case.of_x.h, kept * case.kernel))


def largest(h, k):
    """Which of each row's numbers are among its k largest."""
    rank = np.argsort(np.argsort(-h, axis=1, kind="stable"), axis=1)
    return rank < k


@pytest.mark.parametrize("kind", ["s", "b", "p"])
def test_ash_shapes_each_image_by_itself(case, kind):
    state = ash.fit(case.head, percentile=65.0)
    h = case.of_x.h
    kept = largest(h, CHANNELS - 8)  # 65 % of 12 are 8
    shaped = {
        "s": np.exp(h.sum(1) / (h * kept).sum(1))[:, None] * h * kept,
        "b": kept * h.sum(1, keepdims=True) / kept.sum(1, keepdims=True),
        "p": h * kept,
    }
    score = {"s": ash.score, "b": ash.score_b, "p": ash.score_p}[kind]
    close(case, score, state, case.energy(shaped[kind]))
    assert len(ash.fit(case.head).ranks) == 1  # a tenth


def test_scale_is_ash_s_without_pruning(case):
    h = case.of_x.h
    total = np.sort(h, axis=1)[:, -2:].sum(1)  # 15 % of 12
    factor = np.exp(h.sum(1) / total)
    close(case, scale.score, scale.fit(case.head), case.energy(factor[:, None] * h))


def test_features_of_zeros_are_scored_by_the_bias(case):
    def dead(variables, x):
        return OrderedDict(maps=0 * feature_fn(variables, x)["maps"])

    for method in (ash, scale):
        state = method.fit(case.head)
        found = map_batches(method.score, dead, case.variables, state, case.x)
        np.testing.assert_allclose(found, logsumexp(case.bias), rtol=1e-6)


def test_vim_is_the_energy_less_what_lies_off_the_principal_space(case):
    state = vim.fit(*case.network, case.head, case.train, dim=4, batch_size=16)
    origin = -np.linalg.pinv(case.kernel.T) @ case.bias
    np.testing.assert_allclose(origin @ case.kernel, -case.bias, rtol=1e-6)
    centred = case.of_train.h - origin
    # By singular vectors, not by the covariance.
    off = np.linalg.svd(centred, full_matrices=True)[2][4:].T
    alpha = case.of_train.logits.max(1).mean()
    alpha /= np.linalg.norm(centred @ off, axis=1).mean()
    virtual = alpha * np.linalg.norm((case.of_x.h - origin) @ off, axis=1)
    close(case, vim.score, state, case.of_x.energy - virtual)
    assert vim.fit(*case.network, case.head, case.train).residual.shape == (12, 6)


@pytest.mark.parametrize("held", [0, 5000])
def test_vim_is_the_same_if_features_are_not_held(case, monkeypatch, held):
    """Of 12 numbers an image some 100 images are held, and then no more."""
    monkeypatch.setattr(labelled, "ROWS", 16)
    whole = vim.fit(*case.network, case.head, case.train, dim=4)
    monkeypatch.setattr(vim, "HELD", held)
    parts = vim.fit(*case.network, case.head, case.train, dim=4)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_vim_refuses_what_it_cannot_divide(case, monkeypatch):
    with pytest.raises(InputError, match="dim: expected 0 to 11, got 12"):
        vim.fit(*case.network, case.head, case.train, dim=12)
    few = case.train[:2]  # whose features span two directions
    with pytest.raises(InputError, match=r"no more than 6 directions; give a smaller"):
        vim.fit(*case.network, case.head, few, dim=6)
    assert vim.fit(*case.network, case.head, few).residual.shape == (12, 11)
    parts = [case.train[:40], case.train[40:]]
    vim.fit(*case.network, case.head, iter(parts))  # read once, and held
    monkeypatch.setattr(vim, "HELD", 0)
    once = iter(parts)
    with pytest.raises(InputError, match="gone through before: make it anew, or give"):
        vim.fit(*case.network, case.head, once)
    vim.fit(*case.network, case.head, parts)


def test_fdbd_is_the_mean_distance_to_the_boundaries(case):
    state = fdbd.fit(*case.network, case.head, case.train, batch_size=16)
    h, mean = case.of_x.h, case.of_train.h.mean(0)
    expected = []
    for row, logits, top in zip(h, case.of_x.logits, case.of_x.predicted, strict=True):
        distances = [
            abs(logits[top] - logits[c])
            / np.linalg.norm(case.kernel[:, top] - case.kernel[:, c])
            for c in range(CLASSES)
            if c != top
        ]
        expected.append(np.mean(distances) / np.linalg.norm(row - mean))
    close(case, fdbd.score, state, expected)


# ---- what reads logits --------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "most"), [(0.1, 100), (0.5, 2), (1.0, 1)])
def test_gen_is_the_generalised_entropy(case, gamma, most):
    p = np.sort(case.of_x.p, axis=1)[:, ::-1][:, :most]
    expected = -(p**gamma * (1 - p) ** gamma).sum(1)
    close(case, gen.score, gen.fit(gamma=gamma, most=most), expected, logit_fn)


def test_gen_tells_apart_what_is_all_but_certain():
    """1 − p = e^−20 and less, which float32 does not hold beside 1."""
    logits = np.stack([np.zeros(6), np.arange(20.0, 26.0)], 1)
    of_x = lambda v, x: x  # noqa: E731
    found = map_batches(gen.score, of_x, {}, gen.fit(), np.float32(logits), **RAW)
    gap = logits[:, 1]
    expected = -2 * np.exp(-0.1 * gap) * (1 + np.exp(-gap)) ** -0.2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_kl_matching_is_the_divergence_to_the_nearest_class(case):
    state = kl_matching.fit(logit_fn, case.variables, case.ind, batch_size=16)
    usual = [
        case.of_ind.p[case.of_ind.predicted == k].mean(0)
        for k in np.unique(case.of_ind.predicted)
    ]
    divergence = [(case.of_x.p * np.log(case.of_x.p / d)).sum(1) for d in usual]
    close(case, kl_matching.score, state, -np.min(divergence, axis=0), logit_fn)


def test_kl_matching_leaves_out_classes_that_are_never_predicted():
    logits = np.array([[9.0, 0, -300], [0, 9, -300], [1, 0, 9]])
    of_x = lambda v, x: x  # noqa: E731
    state = kl_matching.fit(of_x, {}, np.float32(logits[[0, 1, 1]]), **RAW)
    assert state.logs.shape == (2, 3)
    # Its probability is e^−309 in those that are known: finite all the same.
    found = map_batches(kl_matching.score, of_x, {}, state, np.float32(logits), **RAW)
    p = softmax(logits[2])
    assert found[2] == pytest.approx(-p[2] * 300, rel=0.05)
    np.testing.assert_allclose(found[:2], 0, atol=1e-5)
