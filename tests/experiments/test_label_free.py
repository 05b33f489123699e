"""The study of rules without labels: centres and rules by hand, means by theory."""

from collections import OrderedDict

import numpy as np
import pytest
from scipy import stats

from experiments.centre_study import (
    centres,
    explained,
    rules,
    tables,
)
from experiments.comparison import methods, singular
from experiments.harness.keys import Use, of_seed
from fssd_jax import metrics
from fssd_jax.data import corruptions
from fssd_jax.data.inputs import as_input
from tests.experiments.test_variants import asked


def features(s, x, variables=None):
    of = s.variables if variables is None else variables
    found = s.feature_fn(of, as_input(x))
    return {k: np.asarray(v, np.float64).reshape(len(x), -1) for k, v in found.items()}


@pytest.fixture(scope="module")
def few():
    """Centres of few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centres, "COUNT", 30)
        patch.setattr(rules, "COUNT", 40)
        yield


@pytest.fixture(scope="module")
def found(setting, few):
    return asked(rules.ask_centres(setting), setting)


def distances(s, x, centre):
    """[n, layers] to a centre of each layer, or of each layer and image."""
    of = features(s, x)
    return np.stack([np.linalg.norm(of[k] - centre[k], axis=1) for k in of], 1)


def test_scores_about_each_centre_are_those_of_the_definition(setting, found):
    s = setting
    start = features(s, np.asarray(s.noise), s.initial)
    known = {
        "noise": {k: v.mean(0) for k, v in features(s, np.asarray(s.noise)).items()},
        "oracle": {k: v.mean(0) for k, v in features(s, s.val_ood).items()},
        "origin": {k: np.zeros(v.shape[1]) for k, v in start.items()},
        "noise, initial": {k: v.mean(0) for k, v in start.items()},
        "mix 16": {
            k: v.mean(0) for k, v in features(s, centres.OF_IMAGES["mix 16"](s)).items()
        },
    }
    for name, centre in known.items():
        logs = [
            np.log(distances(s, x, centre)) for x in (s.val_ind, s.test_ind, s.test_ood)
        ]
        both = [(x - logs[0].mean(0)) / logs[0].std(0) for x in logs[1:]]
        for which, expected in zip(("ind", "ood"), both, strict=True):
            for rule, scores in (
                ("deep", expected[:, -2:].sum(1)),
                ("all", expected.sum(1)),
            ):
                row = getattr(found[f"{name}: {rule}"], which)
                np.testing.assert_allclose(row, scores, rtol=2e-3, atol=2e-3)


def test_logits_are_a_layer_of_networks_whose_layers_are_without(setting, few):
    """As of ResNets: "deep" is of the last hidden layer and the logits there, too."""
    s, close = setting, {"rtol": 1e-3, "atol": 1e-3}

    def hidden(variables, x):
        found = s.feature_fn(variables, x)
        return OrderedDict((k, v) for k, v in found.items() if k != "logits")

    without = s._replace(feature_fn=hidden)
    expected = asked(rules.ask_learned(s), s)["mix 16: learned"]
    row = asked(rules.ask_learned(without), without)["mix 16: learned"]
    np.testing.assert_allclose(row.ood, expected.ood, **close)
    # Mahalanobis' distance is that of the rival's row, without the logits.
    without = without._replace(test_ind=s.val_ind)
    asks = [rules.ask_with_mahalanobis, rules.ask_centres]
    both = asked([ask for of in asks for ask in of(without)], without)
    rival = asked(rules.ask_mahalanobis("m", without), without)["m"]
    expected = stats.zscore(both["mix 16: deep"].ind) + stats.zscore(rival.ind)
    found = both["mix 16: deep + mahalanobis"].ind
    np.testing.assert_allclose(found, expected, **close)


def test_each_images_own_centre_is_its_feature_before_training(setting, found):
    s = setting
    expected = distances(s, s.test_ood, features(s, s.test_ood, s.initial))
    for k, layer in enumerate(("conv1", "conv2", "fc1", "logits")):
        row = found[f"own, initial: {layer}"]
        np.testing.assert_allclose(row.ood, expected[:, k], rtol=1e-3)


def test_the_oracle_alone_sees_images_of_the_tested_kind(found):
    seen = {name for name, row in found.items() if row.target_ood}
    assert seen == {name for name in found if name.startswith("oracle")}


def test_with_mahalanobis_each_counts_as_much(setting, few):
    """On the images by which both are standardised: means 0, deviations 1, and sum."""
    s = setting._replace(test_ind=setting.val_ind)
    (ask,) = rules.ask_with_mahalanobis(s)
    row = asked([ask], s)["mix 16: deep + mahalanobis"]
    both = asked([*rules.ask_centres(s), *rules.ask_mahalanobis("m", s)], s)
    parts = [both[name].ind for name in ("mix 16: deep", "m")]
    expected = sum(stats.zscore(part.astype(np.float64)) for part in parts)
    np.testing.assert_allclose(row.ind, expected, rtol=1e-3, atol=1e-3)


def test_what_was_chosen_is_a_row_of_table2(setting, found):
    """The rows by F* of the library, and the study's by NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singular, "SHUFFLED", 30)  # as of `few`
        rows = asked(singular.ask_tiles(setting), setting)
    row, rule = rows["fssd tiles"], found["tiles 2: deep"]
    for which in ("ind", "ood"):
        expected = getattr(rule, which)
        np.testing.assert_allclose(getattr(row, which), expected, rtol=1e-3, atol=1e-3)
    assert row.note == "of fc1, logits; F* of shuffled 2×2 tiles of training images"
    assert row.fitted_on == f"{len(setting.val_ind)} in, training set"
    np.testing.assert_array_equal(rows["fssd tiles, photographs"].ind, row.ind)


def test_without_a_training_set_validation_images_are_shuffled(setting):
    s = setting._replace(train=None)
    (row, *_) = asked(singular.ask_tiles(s), s).values()
    key = of_seed(s.seed, Use.TILES)
    shuffled = corruptions.shuffled_tiles(s.val_ind, 1000, 2, key)
    centre = {k: v.mean(0) for k, v in features(s, shuffled).items()}
    ind, x = (np.log(distances(s, of, centre)) for of in (s.val_ind, s.test_ood))
    expected = ((x - ind.mean(0)) / ind.std(0))[:, -2:].sum(1)
    np.testing.assert_allclose(row.ood, expected, rtol=2e-3, atol=2e-3)
    assert row.note == "of fc1, logits; F* of shuffled 2×2 tiles of validation images"


def test_the_centre_of_tiles_is_of_one_setting_and_computed_once(setting, monkeypatch):
    """What `score` saves is what its row was; another setting has its own."""
    monkeypatch.setattr(singular, "SHUFFLED", 20)
    s = setting._replace(val_ind=setting.val_ind.copy())
    first = singular.tiles_state(s)[1]
    assert singular.tiles_state(s)[1] is first
    others = (
        s._replace(variables=s.initial),
        s._replace(val_ind=s.val_ind[::2]),
        s._replace(train=None),
        s._replace(seed=s.seed + 1),
    )
    for other in others:
        found = singular.tiles_state(other)[1]
        assert not np.allclose(found.ensemble.scale, first.ensemble.scale, rtol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_row_of_table2_is_the_rule_of_the_study(setting, few, channels_last):
    """One `Ensemble` in float32, and NumPy in float64."""
    s = setting
    if channels_last:
        s = s._replace(channels_last=s.feature_fn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "MIXES", centres.COUNT)
        asks = methods.ask_fssd_mahalanobis(s)
    rows = asked([*asks, *rules.ask_with_mahalanobis(s)], s)
    row, rule = rows["fssd + mahalanobis"], rows["mix 16: deep + mahalanobis"]
    for which in ("ind", "ood"):
        found, expected = getattr(row, which), getattr(rule, which)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert row.note == "of fc1, logits; F* of means of 16 training images"
    assert not row.target_ood
    photos = rows["fssd + mahalanobis, photographs"]
    np.testing.assert_array_equal(photos.ind, row.ind)
    assert photos.note == f"{len(photos.ood)} patches as OoD"
    shown = s._replace(test_ood=singular.photo_patches((28, 28, 1)))
    expected = asked(rules.ask_with_mahalanobis(shown), shown)
    expected = expected["mix 16: deep + mahalanobis"].ood
    np.testing.assert_allclose(photos.ood, expected, rtol=1e-3, atol=1e-3)


def test_what_is_learned_is_learned_against_fifteen_sets(setting, few):
    made = rules.self_made(setting)
    assert len(made) == 15
    for name, x in made.items():
        assert x.shape[1:] == setting.test_ind.shape[1:], name
        assert 0 <= x.min() <= x.max() <= 1, name
    row = asked(rules.ask_learned(setting), setting)["mix 16: learned"]
    assert row.ind.shape == (len(setting.test_ind),)
    # What it was fitted against is told from the validation images.
    s = setting._replace(test_ind=setting.val_ind, test_ood=made["noise"])
    row = asked(rules.ask_learned(s), s)["mix 16: learned"]
    assert np.median(row.ind) > np.median(row.ood)


def test_what_clean_turns_is_left_out(setting, few):
    s = setting
    row = asked(rules.ask_left_out(s), s)[rules.LEFT_OUT]
    start = {k: v.mean(0) for k, v in features(s, np.asarray(s.noise)).items()}
    noise, ind, x = (
        distances(s, np.asarray(x), start) for x in (s.noise, s.val_ind, s.test_ood)
    )
    kept = np.median(ind, 0) >= np.sqrt((noise**2).mean(0))
    expected = ((x - ind.mean(0)) / ind.std(0))[:, kept].sum(1)
    np.testing.assert_allclose(row.ood, expected, rtol=1e-3, atol=1e-3)


# ---- pairs --------------------------------------------------------------------------


def test_facts_of_centres_by_hand(setting, few):
    s = setting
    facts = {(f.centre, f.layer): f for f in explained.explain(s, "p", "lenet")}
    assert len(facts) == 4 * (len(centres.OF_IMAGES) + 3)
    ood, start = features(s, s.test_ood), features(s, s.test_ood, s.initial)
    ind = features(s, s.test_ind)
    for centre, x in (("noise", np.asarray(s.noise)), ("oracle", s.val_ood)):
        c = features(s, x)["fc1"].mean(0)
        fact = facts[centre, "fc1"]
        square = np.linalg.norm(ood["fc1"] - c, axis=1) ** 2
        offset = np.linalg.norm(start["fc1"] - c, axis=1) ** 2
        moved = np.linalg.norm(ood["fc1"] - start["fc1"], axis=1) ** 2
        assert fact.offset == pytest.approx(offset.sum() / square.sum(), rel=1e-3)
        assert fact.offset + fact.cross + fact.moved == pytest.approx(1, abs=1e-6)
        near = np.sqrt(offset.mean() / moved.mean())
        assert fact.near_start == pytest.approx(near, rel=1e-3)
        away = [np.linalg.norm(c - of["fc1"].mean(0)) for of in (ood, ind)]
        assert fact.near_ood == pytest.approx(away[0] / away[1], rel=1e-3)
        scores = np.linalg.norm(ind["fc1"] - c, axis=1), np.sqrt(square)
        assert fact.auroc == pytest.approx(metrics.auroc(*scores), abs=1e-3)


def test_correlations_are_over_centres_of_one_network_without_the_oracle():
    def fact(seed, centre, auroc, offset):
        told = {"offset": offset, "near_start": 1 - offset, "near_ood": auroc}
        parts = "p", seed, "lenet", "fc1", centre
        return explained.Facts(*parts, auroc, cross=0.0, moved=0.0, **told)

    facts = [
        *(fact(0, f"c{k}", 0.9 - 0.1 * k, 0.1 * k) for k in range(4)),
        *(fact(1, f"c{k}", 0.1 * k, 0.1 * k) for k in range(4)),
        fact(0, "oracle", 1.0, 1.0),
    ]
    found = {of.predictor: of for of in explained.correlations(facts)}
    offset, start = found["offset"], found["near_start"]
    assert (offset.rho, offset.low, offset.high) == pytest.approx((0, -1, 1))
    assert (start.rho, start.low, start.high) == pytest.approx((0, -1, 1))
    assert found["near_ood"].rho == pytest.approx(1)
    assert offset.networks == 2
    assert "[-1.00, +1.00]" in tables.explained(facts).rows[0][3]


def test_the_table_of_centres_has_means_of_auroc_and_medians_of_shares():
    def fact(seed, centre, auroc, offset):
        told = {"cross": 0.0, "moved": 0.0, "near_start": -auroc, "near_ood": offset}
        return explained.Facts(
            *("p", seed, "lenet", "fc1", centre), auroc, offset, **told
        )

    centres = [c for c in tables.CENTRES if c != "oracle"]
    facts = [
        *(
            fact(s, c, 0.1 * k, 0.2 * s + k)
            for k, c in enumerate(centres)
            for s in (0, 1, 4)
        ),
        *(fact(s, "oracle", 0.9, 0.0) for s in (0, 1, 4)),
    ]
    (row,) = tables.centres(facts).rows
    assert row[:2] == ["lenet", "fc1"]
    # Offsets 0.0, 0.2 and 0.8 beyond k: the median is 0.2.
    assert row[2:7] == [f"{10 * k} ({100 * k + 20})" for k in range(5)]
    assert row[7:] == ["90 (0)", "+1.00", "-1.00", "+1.00", "3"]
