"""No detector knows Flax: NNX and a plain function score as an equal Linen network."""

import pkgutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import detectors, head, map_batches
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
from tests.fssd_jax.equal_networks import (
    CLASSES,
    LAYERS,
    RATE,
    SHAPE,
    Network,
    equal_networks,
)
from tests.test_layout import imported

METHODS = [module.name for module in pkgutil.iter_modules(detectors.__path__)]
EPSILONS = (0.02,)  # one only: nothing that rounding could choose


@pytest.fixture(scope="module")
def networks():
    return equal_networks()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    ind, ood, noise, x = rng.uniform(size=(4, 40, *SHAPE)).astype(np.float32)
    return {"ind": ind, "ood": ood / 2, "noise": noise, "x": x}


def fit(method: str, network: Network, data):
    """(score, function, variables, state) of a detector, each in its fullest form."""
    features, logits, stochastic, variables, initial = network
    ind, ood = data["ind"], data["ood"]
    if method == "fssd":
        state = fssd.fit(
            features, variables, data["noise"], ind, ood, epsilons=EPSILONS
        )
        return fssd.score, features, variables, state
    if method in ("mahalanobis", "fssd_mahalanobis"):
        y = np.arange(len(ind)) % CLASSES
        gaussians = mahalanobis.estimate_gaussians(features, variables, ind, y, CLASSES)
        if method == "fssd_mahalanobis":
            means = (ind[:20] + ind[20:]) / 2
            state = fssd_mahalanobis.fit(features, variables, means, gaussians, ind)
            return fssd_mahalanobis.score, features, variables, state
        state = mahalanobis.fit(
            features, variables, gaussians, ind, ood, epsilons=EPSILONS
        )
        return mahalanobis.score, features, variables, state
    if method == "knn":
        state = knn.fit(features, variables, ind, "hidden", k=3)
        return knn.score, features, variables, state
    if method == "displacement":
        state = displacement.fit(features, variables, initial, ind, relative=True)
        return displacement.score, features, variables, state
    if method == "odin":
        state = odin.fit(
            logits, variables, ind, ood, temperatures=(10.0,), epsilons=EPSILONS
        )
        return odin.score, logits, variables, state
    if method == "deep_ensemble":
        members = deep_ensemble.stack([variables, initial])
        return deep_ensemble.score, logits, members, deep_ensemble.fit()
    if method == "mc_dropout":  # at rate 0: above it, no two libraries draw one mask
        state = mc_dropout.fit(jax.random.key(3), passes=3)
        return mc_dropout.score, stochastic(0.0), variables, state
    if method == "kl_matching":
        state = kl_matching.fit(logits, variables, ind)
        return kl_matching.score, logits, variables, state
    known = {"msp": msp, "energy": energy, "max_logit": max_logit, "gen": gen}
    if method in known:
        return known[method].score, logits, variables, known[method].fit()
    return fit_rival(method, network, data)


def fit_rival(method: str, network: Network, data):
    """Of those that read the layer before the logits."""
    of, variables, ind = activated(network), network.variables, data["ind"]
    y = np.arange(len(ind)) % CLASSES
    last = head.find(of, network.logit_fn, variables, ind)
    state = {
        "ash": lambda: ash.fit(last, percentile=50.0),
        "scale": lambda: scale.fit(last, percentile=50.0),
        "react": lambda: react.fit(of, variables, last, ind),
        "dice": lambda: dice.fit(of, variables, last, ind, percentile=50.0),
        "vim": lambda: vim.fit(of, variables, last, ind),
        "fdbd": lambda: fdbd.fit(of, variables, last, ind),
        "she": lambda: she.fit(of, variables, ind, y, CLASSES, "act"),
        "nnguide": lambda: nnguide.fit(of, variables, ind, "act", k=3),
        "relative_mahalanobis": lambda: relative_mahalanobis.fit(
            of, variables, ind, y, CLASSES, "act"
        ),
        "gram": lambda: gram.fit(of, variables, ind, data["ood"], orders=3),
        "feature_norm": lambda: feature_norm.fit(of, variables, ind),
    }[method]()
    module = getattr(detectors, method)
    return module.score, of, variables, state


def activated(network: Network):
    """The layer before the logits, after its activation."""

    def feature_fn(variables, x):
        features = network.feature_fn(variables, x)
        features["act"] = jnp.tanh(features.pop("hidden"))
        features.move_to_end("logits")
        return features

    return feature_fn


@pytest.mark.parametrize("method", METHODS)
def test_every_detector_scores_as_with_linen(networks, data, tmp_path, method):
    found = {}
    for name, network in networks.items():
        score, function, variables, state = fit(method, network, data)
        found[name] = map_batches(score, function, variables, state, data["x"])
        fitted = fssd_jax.Fitted(method, {}, state)
        fssd_jax.save(tmp_path / name, fitted, variables)
        loaded = fssd_jax.load(tmp_path / name, variables).state
        again = map_batches(score, function, variables, loaded, data["x"])
        assert again.tobytes() == found[name].tobytes()
    expected = found.pop("Linen")
    # Of the range: standardised scores pass through 0.
    tolerance = 2e-5 * np.ptp(expected)
    assert tolerance > 0
    for name, scores in found.items():
        np.testing.assert_allclose(scores, expected, 0, tolerance, err_msg=name)


@pytest.mark.parametrize("name", ["Linen", "NNX", "plain"])
def test_the_last_layer_is_found_whatever_the_framework(networks, data, name):
    network, x = networks[name], data["x"]
    found = head.find(activated(network), network.logit_fn, network.variables, x)
    assert list(found.kernel) == ["act"]
    kernel = networks["Linen"].variables["params"]["logits"]["kernel"]
    np.testing.assert_array_equal(found.kernel["act"], kernel)
    # Before its activation the layer does not give the logits.
    with pytest.raises(fssd_jax.InputError, match=r"no linear.*'norm', 'hidden'\]"):
        head.find(network.feature_fn, network.logit_fn, network.variables, x)


@pytest.mark.parametrize("name", ["Linen", "NNX", "plain"])
def test_dropout_has_the_moments_of_dropout_and_obeys_its_key(networks, data, name):
    """E f = f without dropout; Var f_c = r / (1 − r) Σ_j h_j² W_jc², r the rate."""
    network, x = networks[name], data["x"]
    dropping, variables = network.stochastic(RATE), network.variables
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: dropping(variables, x[:1], key)[0])(keys)
    features = network.feature_fn(variables, x[:1])
    h = np.tanh(features["hidden"][0])
    kernel = networks["Linen"].variables["params"]["logits"]["kernel"]
    variance = RATE / (1 - RATE) * (h**2) @ kernel**2
    error = drawn.mean(0) - features["logits"][0]
    assert (abs(error) < 5 * np.sqrt(variance / len(keys))).all()
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.15)

    def scores(seed, x):
        state = mc_dropout.fit(jax.random.key(seed), passes=3)
        return map_batches(mc_dropout.score, dropping, variables, state, x)

    assert scores(1, x).tobytes() == scores(1, x).tobytes()
    np.testing.assert_allclose(scores(1, x), scores(1, x[::-1])[::-1], rtol=1e-5)
    assert (scores(1, x) != scores(2, x)).all()


def test_networks_of_three_kinds_join(networks, data):
    joined = fssd_jax.features.join({k: n.feature_fn for k, n in networks.items()})
    variables = {k: network.variables for k, network in networks.items()}
    x, noise = data["x"], data["noise"]
    names = list(jax.jit(joined)(variables, x))
    assert names == [f"{network}/{layer}" for network in networks for layer in LAYERS]
    state = fssd.fit(joined, variables, noise)
    found = map_batches(fssd.layer_scores, joined, variables, state, x)
    linen, of_nnx, plain = np.split(found, 3, axis=1)
    np.testing.assert_allclose(of_nnx, linen, rtol=1e-5)
    np.testing.assert_allclose(plain, linen, rtol=1e-5)


@pytest.mark.parametrize("name", ["NNX", "plain"])
def test_other_weights_of_the_same_network_are_refused(networks, tmp_path, name):
    network = networks[name]
    fssd_jax.save(tmp_path / "d", fssd_jax.Fitted("msp", {}, ()), network.variables)
    with pytest.raises(fssd_jax.InputError, match="only the values differ"):
        fssd_jax.load(tmp_path / "d", network.initial)
    with pytest.raises(fssd_jax.InputError, match="none then"):
        fssd_jax.load(tmp_path / "d", networks["Linen"].variables)


def test_flax_is_for_networks_only():
    """What scores, fits, batches and saves imports no Flax."""
    package = Path(fssd_jax.__path__[0])
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(str(name).split(".")[0] == "flax" for name in imported(path.read_text()))
    }
    assert "features.py" in found  # or nothing was read
    other = {name for name in found if not name.startswith("models/")}
    networks = {
        "adapters.py",
        "capture.py",
        "features.py",
        "torch_formats.py",
        "torch_weights.py",
    }
    assert other <= networks | {"train.py"}
