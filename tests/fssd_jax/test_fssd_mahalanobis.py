"""FSSD and Mahalanobis as one score: against the formula in NumPy, in float64."""

from collections import OrderedDict

import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, map_batches
from fssd_jax.detectors import fssd_mahalanobis, mahalanobis
from fssd_jax.detectors.mahalanobis import estimate_gaussians
from tests.fssd_jax.rivals import CLASSES, close, feature_fn, images, known, make_case

LAYERS = ["first", "maps", "logits"]


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture(scope="module")
def centre_images():
    """Means of 16."""
    return images(7, 800).reshape(50, 16, 6, 6, 1).mean(1)


def some_layers(variables, x):
    """What Gaussians may be of: not the logits."""
    found = feature_fn(variables, x)
    return OrderedDict((k, found[k]) for k in ("first", "maps"))


def fitted(case, centre_images, of=feature_fn, **options):
    gaussians = estimate_gaussians(of, case.variables, case.train, case.y, CLASSES)
    return fssd_mahalanobis.fit(
        *(feature_fn, case.variables, centre_images, gaussians, case.ind), **options
    )


def z(a, by):
    return (a - by.mean(0)) / by.std(0)


def expected(case, centre_images, deep, of_gaussians):
    f_star, of = known(case.variables, centre_images), {}
    for name, x in (("ind", case.of_ind), ("x", case.of_x)):
        d, m = [], []
        for layer in deep:
            flat = [getattr(a, layer).reshape(len(a.h), -1) for a in (x, f_star)]
            d.append(np.linalg.norm(flat[0] - flat[1].mean(0), axis=1))
        for layer in of_gaussians:
            train, f = (
                a if a.ndim == 2 else a.mean((1, 2))
                for a in (getattr(case.of_train, layer), getattr(x, layer))
            )
            means = np.stack([train[case.y == c].mean(0) for c in range(CLASSES)])
            centred = train - means[case.y]
            covariance = centred.T @ centred / len(train)
            ridge = 1e-6 * np.trace(covariance) / len(covariance)
            inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
            apart = f[:, None] - means[None]
            m.append(-np.einsum("ncd,de,nce->nc", apart, inverse, apart).min(1))
        of[name] = np.log(np.stack(d, 1)), np.stack(m, 1)
    one = [
        (z(tested, by).sum(1), z(by, by).sum(1))
        for tested, by in zip(of["x"], of["ind"], strict=True)
    ]
    return sum(z(tested, by) for tested, by in one)


@pytest.mark.parametrize(
    ("options", "deep"),
    [({}, ("maps", "logits")), ({"layers": ["logits", "first"]}, ("first", "logits"))],
)
def test_it_is_the_formula(case, centre_images, options, deep):
    state = fitted(case, centre_images, **options)
    right = expected(case, centre_images, deep, LAYERS)
    close(case, fssd_mahalanobis.score, state, right)


def test_gaussians_may_be_of_some_layers(case, centre_images):
    state = fitted(case, centre_images, some_layers)
    right = expected(case, centre_images, ("maps", "logits"), ("first", "maps"))
    close(case, fssd_mahalanobis.score, state, right)


def test_a_singularity_or_the_images_it_is_of(case, centre_images):
    singularity = fssd_jax.estimate_singularity(*case.network, centre_images)
    states = [fitted(case, of) for of in (singularity, centre_images)]
    scores = [
        map_batches(fssd_mahalanobis.score, *case.network, state, case.x)
        for state in states
    ]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_validation_images_are_read_once(case, centre_images):
    def once():
        for _ in range(1):
            yield from (case.ind[i : i + 7] for i in range(0, len(case.ind), 7))

    gaussians = estimate_gaussians(*case.network, case.train, case.y, CLASSES)
    state = fssd_mahalanobis.fit(*case.network, centre_images, gaussians, once())
    whole = fitted(case, centre_images)
    np.testing.assert_allclose(state.ensemble.alpha, whole.ensemble.alpha, rtol=1e-4)


def test_it_is_saved_with_its_weights_and_loaded(case, centre_images, tmp_path):
    state = fitted(case, centre_images)
    fssd_jax.save(
        tmp_path / "a", fssd_jax.Fitted("fssd_mahalanobis", {}, state), case.variables
    )
    loaded = fssd_jax.load(tmp_path / "a", case.variables).state
    scores = [
        map_batches(fssd_mahalanobis.score, *case.network, of, case.x)
        for of in (state, loaded)
    ]
    np.testing.assert_array_equal(*scores)


def test_what_cannot_be_is_told(case, centre_images):
    with pytest.raises(InputError, match=r"layers: \['conv9'\]; choose one or more"):
        fitted(case, centre_images, layers=["conv9"])
    with pytest.raises(InputError, match=r"a list of names, got 'maps': \['maps'\]"):
        fitted(case, centre_images, layers="maps")
    with pytest.warns(UserWarning, match=r"images of F\* lie in \[.*noise_like"):
        fitted(case, centre_images * np.float32(0.01))
    names = ("first", "other")
    strange = mahalanobis.Gaussians(
        OrderedDict((k, np.eye(7, dtype=np.float32)) for k in names),
        OrderedDict((k, np.zeros((CLASSES, 7), np.float32)) for k in names),
    )
    with pytest.raises(InputError, match="fitted on layers"):
        fssd_mahalanobis.fit(*case.network, centre_images, strange, case.ind)
