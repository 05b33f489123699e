"""What JAX is configured to do, to look for faults, changes no number of ours."""

import jax
import numpy as np
import optax
import pytest

import fssd_jax
from analysis.kernel_regression import FrozenForm, make_gradient_fn
from fssd_jax.detectors import fssd, knn, mahalanobis, msp
from fssd_jax.models import MLP
from fssd_jax.train import train

RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 3, 3, 1), np.float32), np.arange(32) % 4
OOD = RNG.random((24, 3, 3, 1), np.float32) ** 3
NOISE = RNG.random((20, 3, 3, 1), np.float32)
MODEL = MLP(hidden=(8, 8), num_classes=4)
FEATURE_FN, LOGIT_FN = fssd_jax.make_feature_fn(MODEL), fssd_jax.make_logit_fn(MODEL)
EPSILONS = (0.0, 0.01)


def told():
    """Numbers of trainings, of a follower and of scores."""
    initial = MODEL.init(jax.random.key(0), X[:1])
    frozen = FrozenForm(FEATURE_FN, make_gradient_fn(MODEL, FEATURE_FN), None, 0.1)
    same = {"num_classes": 4, "seed": 0, "epochs": 1, "batch_size": 16}
    same |= {"initial": initial, "progress": False}
    followed = train(
        MODEL, X, Y, recipe=lambda *_: optax.sgd(0.1), on_step=frozen, **same
    )
    variables = train(MODEL, X, Y, **same).variables  # by the default recipe
    of = FEATURE_FN, variables
    gaussians = mahalanobis.estimate_gaussians(*of, X, Y, 4)
    fits = {
        fssd: fssd.fit(*of, NOISE, X, OOD, epsilons=EPSILONS),
        mahalanobis: mahalanobis.fit(*of, gaussians, X, OOD, epsilons=EPSILONS),
        knn: knn.fit(*of, X, "logits", k=3),
        msp: msp.fit(),
    }
    scores = {
        method.__name__: fssd_jax.map_batches(
            method.score,
            LOGIT_FN if method is msp else FEATURE_FN,
            *(variables, state, OOD),
            batch_size=16,
        )
        for method, state in fits.items()
    }
    assert all(np.ptp(values) > 0 for values in scores.values())
    error = frozen.error(OOD)["logits"]
    return {"history": followed.history, "error": error, **scores}


@pytest.fixture(scope="module")
def usual():
    return told()


@pytest.mark.parametrize(
    "configured",
    [
        jax.disable_jit,  # to step through a network, or to print in it
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.debug_nans(True),
    ],
    ids=["disable_jit", "strict promotion", "debug_nans"],
)
def test_no_number_depends_on_how_jax_is_looked_into(configured, usual):
    with configured():
        found = told()
    assert found.keys() == usual.keys()
    for name, values in found.items():
        np.testing.assert_allclose(
            values, usual[name], rtol=2e-3, atol=1e-4, err_msg=name
        )


def test_without_compiling_a_network_can_be_looked_into():
    """Its values are there, and no tracers."""
    seen = []

    def feature_fn(variables, x):
        found = FEATURE_FN(variables, x)
        seen.extend(float(values.sum()) for values in found.values())
        return found

    of = feature_fn, MODEL.init(jax.random.key(0), X[:1]), NOISE
    with pytest.raises(fssd_jax.InputError, match="ConcretizationTypeError"):
        fssd_jax.estimate_singularity(*of)
    assert not seen
    with jax.disable_jit():
        fssd_jax.estimate_singularity(*of)
    assert seen


def test_a_killed_run_that_is_looked_into_is_the_same_run(tmp_path):
    same = {"num_classes": 4, "seed": 0, "batch_size": 16, "progress": False}
    same |= {"initial": MODEL.init(jax.random.key(0), X[:1])}
    of = MODEL, X, Y
    whole = train(*of, epochs=2, folder=tmp_path, **same)
    with jax.disable_jit():
        again = train(*of, epochs=2, folder=tmp_path, **same)
    np.testing.assert_array_equal(again.history, whole.history)
