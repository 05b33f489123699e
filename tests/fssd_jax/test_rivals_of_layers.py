"""Rivals that read whole layers: each against its formula, written in NumPy."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.detectors import (
    feature_norm,
    gram,
    knn,
    nnguide,
    relative_mahalanobis,
    she,
)
from tests.fssd_jax.rivals import (
    CLASSES,
    Known,
    close,
    feature_fn,
    known,
    make_case,
)


@pytest.fixture(scope="module")
def case():
    return make_case()


def test_she_takes_the_patterns_of_what_is_predicted_rightly(case):
    labelled = case.train, case.y, CLASSES, "maps"
    state = she.fit(*case.network, *labelled, batch_size=16)
    right = case.of_train.predicted == case.y
    assert 0.5 < right.mean() < 0.9
    patterns = np.stack(
        [case.of_train.h[right & (case.y == c)].mean(0) for c in range(CLASSES)]
    )
    expected = (case.of_x.h * patterns[case.of_x.predicted]).sum(1)
    close(case, she.score, state, expected)
    # Batches with their labels are the same.
    parts = [(case.train[i::2], case.y[i::2]) for i in range(2)]
    again = she.fit(*case.network, parts, None, CLASSES, "maps")
    np.testing.assert_allclose(again.patterns["maps"], patterns, rtol=1e-5)


def test_she_of_a_class_that_is_never_right_takes_all_of_it(case):
    y = np.where(case.of_train.predicted == 1, 2, case.y)
    y[:3] = [1, 0, 3]
    never = (y == 1) & (case.of_train.predicted != 1)
    y[(y == 1) & (case.of_train.predicted == 1)] = 0
    assert never.any()
    state = she.fit(*case.network, case.train, y, CLASSES, "maps")
    np.testing.assert_allclose(
        state.patterns["maps"][1], case.of_train.h[never].mean(0), rtol=1e-5
    )
    with pytest.raises(InputError, match=r"no image of classes \[1\]"):
        she.fit(*case.network, case.train, np.where(y == 1, 0, y), CLASSES, "maps")


@pytest.mark.parametrize("chunk", [16, 4096])
def test_nnguide_guides_the_energy(case, monkeypatch, chunk):
    monkeypatch.setattr(knn, "CHUNK", chunk)  # of 90: the last is not full
    state = nnguide.fit(*case.network, case.train, "maps", k=7, batch_size=16)
    unit = lambda h: h / np.linalg.norm(h, axis=1, keepdims=True)  # noqa: E731
    bank = unit(case.of_train.h) * case.of_train.energy[:, None]
    products = np.sort(unit(case.of_x.h) @ bank.T, axis=1)
    expected = products[:, -7:].mean(1) * case.of_x.energy
    close(case, nnguide.score, state, expected)
    with pytest.raises(InputError, match="k: expected 1 to 90"):
        nnguide.fit(*case.network, case.train, "maps", k=91)


def test_relative_mahalanobis_is_the_difference_of_two(case):
    labelled = case.train, case.y, CLASSES, "maps"
    state = relative_mahalanobis.fit(*case.network, *labelled, batch_size=16)
    h, x = case.of_train.h, case.of_x.h

    def squares(center, covariance):
        # What is nearly singular has the ridge of `mahalanobis`.
        ridge = 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        gap = x - center
        return np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance + ridge), gap)

    means = np.stack([h[case.y == c].mean(0) for c in range(CLASSES)])
    tied = np.cov((h - means[case.y]).T, bias=True)
    of_classes = np.min([squares(m, tied) for m in means], axis=0)
    background = squares(h.mean(0), np.cov(h.T, bias=True))
    close(case, relative_mahalanobis.score, state, background - of_classes)


def gram_of(f, p):
    """[n, channels]: the sums of the rows of F^p (F^p)ᵀ, and their p-th roots."""
    f = f.reshape(len(f), -1, f.shape[-1]) ** p
    total = np.einsum("nsi,nsj->nij", f, f).sum(2)
    return np.sign(total) * abs(total) ** (1 / p)


def test_gram_matrices_leave_their_bounds(case):
    state = gram.fit(*case.network, case.train, case.ind, orders=3, batch_size=16)
    layers = ("first", "maps")

    def deviations(of: Known):
        found = np.zeros((len(of.h), len(layers)))
        for k, layer in enumerate(layers):
            for p in (1, 2, 3):
                g = gram_of(getattr(case.of_train, layer), p)
                ends = [
                    (g[case.of_train.predicted == c].min(0),
                     g[case.of_train.predicted == c].max(0))
                    for c in range(CLASSES)
                ]  # fmt: skip
                for i, (row, c) in enumerate(
                    zip(gram_of(getattr(of, layer), p), of.predicted, strict=True)
                ):
                    low, high = ends[c]
                    under = np.maximum(low - row, 0) / abs(low + 1e-6)
                    over = np.maximum(row - high, 0) / abs(high + 1e-6)
                    found[i, k] += (under + over).sum()
        return found

    expected = deviations(case.of_ind).mean(0)
    assert (expected > 0).all()
    total = (deviations(case.of_x) / expected).sum(1)
    assert (total > 0).any()
    close(case, gram.score, state, -total)


def test_sums_of_gram_matrices_do_not_overflow():
    """Products of 10⁶ to the tenth power; homogeneous of degree 2, of either sign."""
    rng = np.random.default_rng(0)
    f = rng.normal(size=(3, 5, 4))
    f[0, :, 1] *= 1e-3  # a channel that is small beside others
    f[1] = 0
    of = jax.jit(gram.row_sums, static_argnums=1)
    found = np.asarray(of(jnp.float32(f), 10))
    for p in range(1, 11):
        np.testing.assert_allclose(found[:, p - 1], gram_of(f, p), rtol=2e-4, atol=1e-9)
    large = np.asarray(of(jnp.float32(1e3 * f), 10))
    np.testing.assert_allclose(large, 1e6 * found, rtol=1e-4)


def test_a_class_never_predicted_has_the_bounds_of_all(case):
    class_0 = case.of_train.predicted == 0
    state = gram.fit(*case.network, case.train[~class_0], case.ind, orders=2)
    g = gram_of(case.of_train.maps[~class_0], 2)
    np.testing.assert_allclose(state.low["maps"][1, 0], g.min(0), 1e-4, 1e-6)
    np.testing.assert_allclose(state.high["maps"][1, 0], g.max(0), 1e-4)
    only = lambda v, x: OrderedDict(maps=feature_fn(v, x)["maps"])  # noqa: E731
    with pytest.raises(InputError, match=r"'logits' and others are needed"):
        gram.fit(only, case.variables, case.train, case.ind)


def norm_of(f):
    """Mean over channels of the norms over space."""
    f = np.maximum(f, 0).reshape(len(f), -1, f.shape[-1])
    return np.sqrt((f**2).sum(1)).mean(1)


def test_feature_norm_is_of_the_block_that_puzzles_choose(case):
    state = feature_norm.fit(*case.network, case.train, seed=3, batch_size=16)
    puzzles = feature_norm.jigsaws(case.train, np.random.default_rng(3))
    cut = known(case.variables, np.concatenate(list(puzzles)))
    ratios = {
        name: np.mean(
            norm_of(getattr(case.of_train, name)) / norm_of(getattr(cut, name))
        )
        for name in ("first", "maps")
    }
    for name, ratio in ratios.items():
        assert state.ratios[name] == pytest.approx(ratio, rel=1e-4)
    best = max(ratios, key=ratios.__getitem__)
    assert list(state.block) == [best]
    close(case, feature_norm.score, state, norm_of(getattr(case.of_x, best)))


def test_jigsaw_puzzles_are_of_an_images_own_tiles():
    x = np.random.default_rng(0).integers(1, 255, (40, 8, 6, 3), np.uint8)
    (cut,) = feature_norm.jigsaws(x, np.random.default_rng(1))
    cut = np.rint(255 * cut).astype(np.uint8) if cut.dtype != np.uint8 else cut
    assert cut.shape == x.shape
    assert not cut[:, 6:].any()  # 8 is no multiple of 3
    orders = set()
    for image, puzzle in zip(x, cut, strict=True):
        tiles, found = (
            [a[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].tobytes()
             for i in range(3) for j in range(3)]
            for a in (image, puzzle)
        )  # fmt: skip
        assert sorted(tiles) == sorted(found)
        orders.add(tuple(map(tiles.index, found)))
    assert len(orders) > 35
    with pytest.raises(InputError, match="jigsaw puzzles are of images"):
        next(feature_norm.jigsaws(np.zeros((4, 7), np.int32), np.random.default_rng()))
