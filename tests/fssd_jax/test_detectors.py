import inspect
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import fssd_jax
from fssd_jax import InputError, make_feature_fn, make_logit_fn, map_batches, metrics
from fssd_jax.detectors import fssd, msp
from fssd_jax.ensemble import check_validation
from fssd_jax.head import with_logits
from tests.conftest import Smooth

OPTIONS = {"batch_size": 32}
EPSILONS = (0.0, 0.05)


def noise(n=200):
    return np.random.default_rng(5).uniform(size=(n, 4, 4, 1)).astype(np.float32)


def test_msp_is_the_largest_softmax_probability(smooth):
    model = Smooth()
    x = jax.random.uniform(jax.random.key(3), (5, 4, 4, 1))
    variables = smooth[1]
    logits = np.asarray(model.apply(variables, x), np.float64)
    expected = scipy.special.softmax(logits, axis=1).max(axis=1)
    found = msp.score(make_logit_fn(model), variables, msp.fit(), x)
    np.testing.assert_allclose(found, scipy.special.logit(expected), rtol=2e-6)


def test_msp_separates_easy_blobs(blobs):
    model, variables, sets, _ = blobs
    scores = [
        map_batches(msp.score, make_logit_fn(model), variables, msp.fit(), x)
        for x in sets
    ]
    assert metrics.auroc(*scores) > 0.9


@pytest.mark.parametrize("data", ["noise", "clean", "paper"])
def test_fssd_separates_easy_blobs(blobs, data):
    model, variables, sets, (ind, ood) = blobs
    feature_fn = make_feature_fn(model, layers=["second", "logits"])
    given = {"noise": (), "clean": (ind,), "paper": (ind, ood)}[data]
    state = fssd.fit(
        feature_fn, variables, noise(), *given, epsilons=EPSILONS, **OPTIONS
    )
    scores = [
        map_batches(fssd.score, feature_fn, variables, state, x, **OPTIONS)
        for x in sets
    ]
    assert metrics.auroc(*scores) > 0.95


def test_noise_alone_gives_the_mean_distance_in_units_of_the_noises_own(blobs):
    model, variables, sets, _ = blobs
    feature_fn = make_feature_fn(model)
    state = fssd.fit(feature_fn, variables, noise(), **OPTIONS)
    of_noise, of_data = (
        [np.asarray(f, np.float64) for f in feature_fn(variables, x).values()]
        for x in (noise(), sets[0])
    )
    expected = 0
    for n, d in zip(of_noise, of_data, strict=True):
        center = n.mean(0)
        spread = np.sqrt(((n - center) ** 2).sum(1).mean())
        expected = expected + np.linalg.norm(d - center, axis=1) / spread / 3
    found = fssd.score(feature_fn, variables, state, jnp.asarray(sets[0]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def by_hand(feature_fn, variables, chosen, ind, x):
    """Σ_k (log d_k − mean) / std over the chosen layers, in float64."""

    def logs(layer, x):
        of_noise, of_x = (
            np.asarray(feature_fn(variables, images)[layer], np.float64)
            for images in (noise(), x)
        )
        return np.log(np.linalg.norm(of_x - of_noise.mean(0), axis=1))

    return sum((logs(k, x) - logs(k, ind).mean()) / logs(k, ind).std() for k in chosen)


@pytest.mark.parametrize("chosen", [None, ["first"], ["logits", "first"]])
def test_log_distances_are_standardised_by_in_distribution_images(blobs, chosen):
    model, variables, sets, (ind, _) = blobs
    feature_fn = make_feature_fn(model)
    state = fssd.fit(feature_fn, variables, noise(), ind, layers=chosen, **OPTIONS)
    last_two = ["second", "logits"]
    expected = by_hand(feature_fn, variables, chosen or last_two, ind, sets[1])
    found = fssd.score(feature_fn, variables, state, jnp.asarray(sets[1]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("chosen", [[], ["frist"], ["first", "first"]])
def test_layers_that_cannot_be_chosen(blobs, chosen):
    model, variables, _, (ind, _) = blobs
    with pytest.raises(InputError, match=r"choose one or more of \['first', 'second'"):
        fssd.fit(make_feature_fn(model), variables, noise(), ind, layers=chosen)


def test_the_name_of_a_layer_is_no_list_of_names(blobs):
    """It would be taken for its letters."""
    model, variables, _, (ind, _) = blobs
    fit = partial(fssd.fit, make_feature_fn(model), variables, noise(), ind, **OPTIONS)
    with pytest.raises(InputError, match=r"a list of names, got 'first': \['first'\]"):
        fit(layers="first")
    fit(layers=["first"])


def test_the_last_layers_are_the_last_of_the_forward_pass(blobs):
    """Neither by name nor in the order that was asked for; jit keeps OrderedDicts."""
    model, variables, _, (ind, _) = blobs
    asked = make_feature_fn(model, ["logits", "second", "first"])

    def renamed(variables, x):
        found = make_feature_fn(model)(variables, x)
        return OrderedDict(zip("cba", found.values(), strict=True))

    for feature_fn in (asked, renamed, jax.jit(renamed)):
        state = fssd.fit(feature_fn, variables, noise(), ind, **OPTIONS)
        assert list(state.ensemble.alpha) == [0, 1, 1]
        assert next(iter(state.singularity.center)) in ("first", "c")


@pytest.mark.parametrize("jitted", [False, True])
def test_one_layer_under_two_names_is_told(blobs, jitted):
    """As where logits are a layer by another name, and are added as "logits"."""
    model, variables, _, (ind, _) = blobs

    def renamed(variables, x):
        found = make_feature_fn(model, ["first", "logits"])(variables, x)
        return OrderedDict(first=found["first"], out=found["logits"])

    feature_fn = jax.jit(renamed) if jitted else renamed
    twice = with_logits(feature_fn, make_logit_fn(model))
    with pytest.warns(UserWarning, match="'out' and 'logits' have the same distances"):
        fssd.fit(twice, variables, noise(), ind, **OPTIONS)
    # As advised: no warning, which would be an error here.
    fssd.fit(feature_fn, variables, noise(), ind, **OPTIONS)
    fssd.fit(twice, variables, noise(), ind, layers=["first", "logits"], **OPTIONS)


def test_layers_are_not_chosen_where_all_count(blobs):
    model, variables, _, (ind, ood) = blobs
    feature_fn = make_feature_fn(model)
    for given in ((), (ind, ood)):
        with pytest.raises(InputError, match=r"layers: .*make_feature_fn\(model"):
            fssd.fit(feature_fn, variables, noise(), *given, layers=["first"])


@pytest.mark.parametrize("layer", ["first", "logits"])
def test_a_layer_where_noise_lies_farther_than_the_data_is_not_turned_round(
    blobs, layer
):
    """The pixels themselves: noise is far from F*, a grey image near, data between.

    Turned round, they outweigh the layer that training made, and what is as far from
    the data as can be scores highest.
    """
    model, variables, (tested, ood), (ind, _) = blobs
    own = make_feature_fn(model, [layer])

    def feature_fn(variables, x):
        return OrderedDict([("pixels", x), *own(variables, x).items()])

    rng = np.random.default_rng(1)
    grey = rng.normal(0.5, 0.02, (100, 1, 1, 1)) + rng.normal(0, 0.02, (100, 4, 4, 1))
    with pytest.warns(
        UserWarning, match=r"at layers \['pixels'\] noise, or what.*layers="
    ) as told:
        state = fssd.fit(feature_fn, variables, noise(), ind, **OPTIONS)
    assert [warning.filename for warning in told] == [__file__]
    of = partial(map_batches, fssd.score, feature_fn, variables)
    grey = grey.astype(np.float32)
    assert metrics.auroc(of(state, tested), of(state, grey)) > 0.95
    # As it was once: below chance, though each layer alone tells all of them.
    turned = state.ensemble._replace(alpha=jnp.array([-1.0, 1.0]))
    turned = state._replace(ensemble=turned)
    assert metrics.auroc(of(turned, tested), of(turned, grey)) < 0.2
    # What the warning says to do: then the other layer's score is what it is alone.
    chosen = fssd.fit(feature_fn, variables, noise(), ind, layers=[layer], **OPTIONS)
    assert metrics.auroc(of(chosen, tested), of(chosen, ood)) > 0.95
    alone = fssd.fit(own, variables, noise(), ind, **OPTIONS)
    expected = map_batches(fssd.score, own, variables, alone, tested)
    np.testing.assert_allclose(of(chosen, tested), expected, rtol=1e-4, atol=1e-4)


def test_a_score_does_not_depend_on_its_batch(blobs):
    model, variables, sets, (ind, ood) = blobs
    feature_fn = make_feature_fn(model)
    state = fssd.fit(
        feature_fn, variables, noise(), ind, ood, epsilons=(0.01,), **OPTIONS
    )
    assert state.epsilon == jnp.float32(0.01)
    apply = partial(map_batches, fssd.score, feature_fn, variables, state)
    one = apply(sets[0], batch_size=7)
    other = apply(sets[0][::-1], batch_size=64)
    np.testing.assert_allclose(one, other[::-1], rtol=1e-5, atol=1e-5)


def test_constant_features_are_an_error(blobs):
    model, variables, _, (ind, ood) = blobs
    params = {**variables["params"]}
    # Constant up to rounding only: a zero kernel and a bias.
    kernel = params["second"]["Dense_0"]["kernel"]
    params["second"] = {
        "Dense_0": {"kernel": 0 * kernel, "bias": jnp.full(kernel.shape[1], 0.37)}
    }
    dead = {"params": params}
    feature_fn = make_feature_fn(model, layers=["first", "second"])
    for given in ((), (ind,), (ind, ood)):
        with pytest.raises(InputError, match=r"\['second'\].*constant features"):
            fssd.fit(feature_fn, dead, noise(), *given, epsilons=EPSILONS)
    with pytest.raises(InputError, match=r"'second'.*constant.*single sample"):
        fssd.fit(make_feature_fn(model), variables, noise(1))
    with pytest.raises(InputError, match="in-distribution images the same score"):
        fssd.fit(make_feature_fn(model), variables, noise(), ind[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": ()}, "epsilons must ascend"),
        ({"epsilons": (0.1, 0.1)}, "epsilons must ascend"),
        ({"batch_size": 0}, "batch_size: expected 1 or more"),
    ],
)
def test_bad_options_are_found_first(blobs, options, message):
    model, variables, _, (ind, ood) = blobs
    with pytest.raises(InputError, match=message):
        fssd.fit(make_feature_fn(model), variables, noise(), ind, ood, **options)
    # The tests' check of types would be before ours.
    for epsilons, told in (
        (0.1, "must ascend"),
        ([[0.0], [0.1, 0.2]], ": expected an"),
    ):
        with pytest.raises(InputError, match=f"epsilons{told}|epsilons {told}"):
            inspect.unwrap(check_validation)(ind, ood, epsilons)


def test_too_few_validation_images_or_noise_in_other_units(blobs):
    model, variables, _, (ind, ood) = blobs
    feature_fn = make_feature_fn(model)
    with pytest.raises(InputError, match="OoD validation set: 3 images"):
        fssd.fit(feature_fn, variables, noise(), ind, ood[:3])
    with pytest.raises(InputError, match=r"noise: float images must lie in \[0, 1\]"):
        fssd.fit(feature_fn, variables, noise() * 255)
    fssd.fit(feature_fn, variables, noise() * 255, unit_range=False)


def test_ood_without_in_distribution_is_an_error(blobs):
    model, variables, _, (_, ood) = blobs
    with pytest.raises(InputError, match="need in-distribution ones beside"):
        fssd.fit(make_feature_fn(model), variables, noise(), None, ood)


def test_fssd_takes_a_singularity_that_was_estimated_before(smooth):
    feature_fn, variables, singularity, x = smooth
    noise = fssd_jax.uniform_noise(jax.random.key(2), 50, (4, 4, 1))
    found = fssd.fit(feature_fn, variables, singularity, x)
    expected = fssd.fit(feature_fn, variables, noise, x)
    assert found.singularity is singularity
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
    )
