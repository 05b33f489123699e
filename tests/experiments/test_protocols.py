from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV

from experiments.comparison import protocols
from experiments.comparison.protocols import PROTOCOLS, Protocol
from fssd_jax import map_batches
from fssd_jax.detectors import fssd
from fssd_jax.metrics import auroc

EPSILONS = (0.0, 0.05, 0.1)


@pytest.fixture(scope="module")
def validation():
    rng = np.random.default_rng(0)
    ind = rng.uniform(0, 1, (60, 4, 4, 1)).astype(np.float32)
    ood = np.clip(0.6 * rng.uniform(0, 1, (60, 4, 4, 1)) + 0.1, 0, 1)
    return ind, ood.astype(np.float32)


def noise():
    return np.random.default_rng(5).uniform(size=(80, 4, 4, 1)).astype(np.float32)


def test_the_papers_switches_give_the_librarys_fit(smooth, validation):
    feature_fn, variables, _, _ = smooth
    steps = EPSILONS[1:]  # so that a step is chosen
    protocol = Protocol(epsilons=steps)
    found = protocols.fit(protocol, feature_fn, variables, noise(), *validation, seed=4)
    expected = fssd.fit(
        feature_fn, variables, noise(), *validation,
        epsilons=steps, seed=4, batch_size=50,
    )  # fmt: skip
    # They may differ in the batch size of F* alone.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )
    assert found.epsilon is not None
    stepped = protocols.sweep(
        protocol, feature_fn, variables, found.singularity, validation[0],
        (float(found.epsilon),),
    )[0]  # fmt: skip
    of_library = map_batches(
        fssd.layer_scores, feature_fn, variables, expected, validation[0]
    )
    np.testing.assert_allclose(stepped, of_library, rtol=1e-5)


@pytest.fixture
def half_beyond(smooth):
    """A network one of whose layers has noise farther from F* than the data."""
    feature_fn, variables, _, _ = smooth

    def with_pixels(variables, x):
        layers = {"pixels": x - 0.5, "far": 3 + x.mean((1, 2, 3))[:, None]}
        return OrderedDict(layers | feature_fn(variables, x))

    x = 0.9 + 0.2 * (np.random.default_rng(3).uniform(size=(50, 4, 4, 1)) - 0.5)
    return with_pixels, variables, np.clip(x, 0, 1).astype(np.float32)


def test_clean_takes_the_sign_from_noise(half_beyond):
    """Of standardised layers: by hand."""
    feature_fn, variables, ind = half_beyond
    ind[:, :2] -= 0.4  # so that pixels are nearer than noise
    state = protocols.fit(PROTOCOLS["clean"], feature_fn, variables, noise(), ind, None)
    features = [
        {k: np.asarray(f, np.float64).reshape(len(x), -1) for k, f in of.items()}
        for x in (noise(), ind)
        for of in [feature_fn(variables, x)]
    ]
    expected, signs = 0, []
    for of_noise, of_ind in zip(*(f.values() for f in features), strict=True):
        center = of_noise.mean(0)
        d = np.linalg.norm(of_ind - center, axis=1)
        spread = np.sqrt(((of_noise - center) ** 2).sum(1).mean())
        signs.append(1 if np.median(d) >= spread else -1)
        expected = expected + signs[-1] * (d - d.mean()) / d.std()
    assert set(signs) == {1, -1}
    assert state.ensemble.alpha.tolist() == signs
    found = map_batches(fssd.score, feature_fn, variables, state, ind)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_released_step_agrees_with_finite_differences(smooth):
    """x + ε·z, z = (g − mean g)/std g over the batch, g = −∂d/∂x: in NumPy."""
    feature_fn, variables, singularity, x = smooth
    x = np.asarray(x, np.float64)[:5]

    def distance(x, k, layer):
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
            feature = feature_fn(wide, jnp.asarray(x, jnp.float64))[layer]
            gap = np.asarray(feature) - np.asarray(singularity.center[layer])
        return np.sqrt((gap**2).sum(1))

    epsilon, columns = 0.03, []
    for k, layer in enumerate(singularity.center):
        gradient = np.zeros_like(x)
        for pixel in np.ndindex(4, 4):
            bump = np.zeros_like(x)
            bump[:, pixel[0], pixel[1], 0] = 1e-6
            difference = distance(x + bump, k, layer) - distance(x - bump, k, layer)
            gradient[:, pixel[0], pixel[1], 0] = -difference / 2e-6
        z = (gradient - gradient.mean()) / gradient.std(ddof=1)
        columns.append(distance(x + epsilon * z, k, layer))
    # Padded rows must not matter: 5 real rows in a batch of 7.
    padded = np.concatenate([x, x[:2]]).astype(np.float32)
    found = protocols.standardised_sweep(
        feature_fn, variables, singularity, jnp.asarray(padded),
        jnp.asarray([epsilon]), jnp.arange(7) < 5,
    )  # fmt: skip
    np.testing.assert_allclose(found[0, :5], np.array(columns).T, rtol=2e-5)


def test_the_released_step_lowers_the_distance_and_depends_on_batch_mates(smooth):
    feature_fn, variables, singularity, x = smooth
    released = PROTOCOLS["released"]
    apply = lambda x: protocols.sweep(  # noqa: E731
        released, feature_fn, variables, singularity, np.asarray(x), (0.0, 0.01)
    )
    plain, stepped = apply(x)
    assert (stepped < plain).mean() > 0.9
    assert np.abs(apply(x[:3])[1] - stepped[:3]).max() > 1e-5
    np.testing.assert_allclose(apply(x[:3])[0], plain[:3], rtol=1e-5)


def test_released_noise_is_fed_past_the_normalisation():
    noise = protocols.draw_noise(
        PROTOCOLS["released"],
        jax.random.key(0),
        (28, 28, 3),
        (0.1, 0.2, 0.3),
        (1, 2, 3),
    )
    assert noise.shape == (100, 28, 28, 3)
    normalised = (np.asarray(noise) - [0.1, 0.2, 0.3]) / [1, 2, 3]
    whole = normalised * 255 + 127.5
    np.testing.assert_allclose(whole, whole.round(), atol=1e-2)
    assert set(np.unique(whole.round())) == set(range(255))  # 0–254
    assert normalised.min() == pytest.approx(-0.5, abs=1e-6)


def test_paper_noise_is_uniform_in_pixels():
    noise = protocols.draw_noise(Protocol(), jax.random.key(0), (4,), (9,), (9,))
    assert noise.shape == (1000, 4)
    assert 0 <= noise.min() < 0.01 < 0.99 < noise.max() <= 1


@pytest.mark.parametrize("split", ["nested", "halves"])
@pytest.mark.parametrize("choice", ["auroc", "tnr95"])
def test_every_combination_of_switches_runs(smooth, validation, split, choice):
    feature_fn, variables, _, _ = smooth
    for ensemble in ("standardised", "raw"):
        for perturbation in ("sign", "standardised"):
            protocol = Protocol(
                split=split, epsilon_choice=choice, ensemble=ensemble,
                perturbation=perturbation, epsilons=EPSILONS[::-1],
            )  # fmt: skip
            state = protocols.fit(protocol, feature_fn, variables, noise(), *validation)
            assert np.isfinite(state.ensemble.alpha).all()
            assert (state.ensemble.scale == 1).all() == (ensemble == "raw")


def test_the_released_choice_written_out(smooth, validation):
    """α on one half by a raw regression; ε by TNR at TPR 95 % on the other."""
    feature_fn, variables, _, _ = smooth
    protocol = PROTOCOLS["released"]._replace(
        noise="uniform", epsilons=(0.1, 0.0), perturbation="sign", batch_size=60
    )
    state = protocols.fit(protocol, feature_fn, variables, noise(), *validation)
    swept = [
        protocols.sweep(
            protocol, feature_fn, variables, state.singularity, x, (0.1, 0.0)
        )
        for x in validation
    ]
    y = np.r_[np.ones(30), np.zeros(30)]
    tnrs, models = [], []
    for ind, ood in zip(*swept, strict=True):
        model = LogisticRegressionCV(
            random_state=42, scoring="accuracy", l1_ratios=(0.0,),
            use_legacy_attributes=False,
        ).fit(np.r_[ind[:30], ood[:30]].astype(np.float64), y)  # fmt: skip
        held_ind, held_ood = (model.decision_function(d[30:]) for d in (ind, ood))
        threshold = np.sort(held_ind)[::-1][int(np.ceil(0.95 * 30)) - 1]
        tnrs.append((held_ood < threshold).mean())
        models.append(model)
    best = int(np.argmax(tnrs))  # a tie keeps the first, the larger ε
    np.testing.assert_allclose(state.epsilon_auroc, tnrs, atol=1e-6)
    assert float(0 if state.epsilon is None else state.epsilon) == pytest.approx(
        (0.1, 0.0)[best]
    )
    np.testing.assert_allclose(
        state.ensemble.alpha, models[best].coef_[0], rtol=1e-4, atol=1e-6
    )


def test_true_negative_rate():
    assert protocols.tnr95([3, 4, 5], [1, 2, 3.5, 6]) == 0.5
    assert auroc([3, 4, 5], [1, 2, 3.5, 6]) == 8 / 12
