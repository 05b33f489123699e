"""A new centre and a new rule are one function and one row."""

import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from experiments.comparison import controls, methods, variants
from fssd_jax.data.inputs import as_input
from fssd_jax.ensemble import Ensemble


def asked(asks, s):
    """Rows of some questions, by a look of their own."""
    found = {}
    for ask in asks:
        ind, ood = (
            fssd_jax.look({"it": ask.question}, s.variables, x)["it"]
            for x in (s.test_ind, s.test_ood)
        )
        found |= ask.to_rows(ind, ood)
    return found


def test_another_centre_is_one_row(setting, monkeypatch):
    """F* of images turned upside down, of the training set."""

    def upside_down(s):
        return as_input(s.train.x[:30])[:, ::-1], {"fitted_on": "30 turned"}

    monkeypatch.setattr(variants, "CENTERS", {"upside down": upside_down})
    found = asked(variants.singularities(setting), setting)
    layers = ["conv1", "conv2", "fc1", "logits"]
    assert list(found) == [
        f"fssd, F* of upside down, {k}" for k in ("standardised", *layers)
    ]
    assert found["fssd, F* of upside down, fc1"].fitted_on == "30 turned"
    # By the definition, in NumPy.
    s = setting
    features = [
        np.asarray(s.feature_fn(s.variables, as_input(x))["fc1"])
        for x in (s.train.x[:30][:, ::-1], s.test_ood)
    ]
    expected = np.linalg.norm(features[1] - features[0].mean(0), axis=1)
    row = found["fssd, F* of upside down, fc1"]
    np.testing.assert_allclose(row.ood, expected, rtol=1e-4)


def test_another_combination_is_one_row(setting, monkeypatch):
    """The last layer alone, counted negative; and one that sees labels."""

    def last(ind, ood, layers):
        alpha = [0.0] * (len(layers) - 1) + [-1.0]
        zeros, ones = np.zeros(len(layers)), np.ones(len(layers))
        assert ood is None
        return Ensemble(*map(jnp.asarray, (zeros, ones, alpha, 0.0)))

    def by_labels(ind, ood, layers):
        assert len(ood) == len(setting.val_ood)
        return last(ind, None, layers)

    rules = {"last": (last, False), "labelled": (by_labels, True)}
    monkeypatch.setattr(variants, "COMBINATIONS", rules)
    found = asked(variants.combinations(setting), setting)
    assert list(found) == ["fssd, last", "fssd, labelled"]
    assert [row.target_ood for row in found.values()] == [False, True]
    alone = asked(methods.METHODS["layers"].ask(setting), setting)["fssd logits"]
    np.testing.assert_allclose(found["fssd, last"].ind, -alone.ind, rtol=1e-5)
    # Where no OoD image may be seen, what needs one is left out.
    clean = setting.under_clean()._replace(val_ood=None)
    assert list(asked(variants.combinations(clean), clean)) == ["fssd, last"]


def test_the_untrained_control_has_a_singularity_of_its_own(setting):
    """Network and F* are both those before training; in NumPy."""
    s = setting
    (ask,) = controls.CONTROLS["untrained_layers"].ask(s)
    assert controls.CONTROLS["untrained_layers"].network == "initial"
    found = asked([ask], s._replace(variables=s.initial))
    noise, tested = (
        np.asarray(s.feature_fn(s.initial, x)["fc1"])
        for x in (s.noise, as_input(s.test_ood))
    )
    expected = np.linalg.norm(tested - noise.mean(0), axis=1)
    row = found["control: untrained, fc1"]
    np.testing.assert_allclose(row.ood, expected, rtol=1e-4)


def test_no_two_centres_are_drawn_by_one_key(setting, monkeypatch):
    used = []

    def of_seed(seed, use):
        used.append(use)
        return jax.random.key(int(use))

    monkeypatch.setattr(variants, "of_seed", of_seed)
    for center in variants.CENTERS.values():
        center(setting)
    assert len(used) == len(set(used)) == 2
