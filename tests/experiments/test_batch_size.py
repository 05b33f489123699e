"""How many images are scored at a time: chosen, overridden, and of no consequence."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from experiments import table2
from experiments.comparison import brought, setting
from experiments.comparison.answers import answer
from experiments.comparison.chosen import chosen_network
from experiments.comparison.figure_settings import TINY, FigureOptions, ready
from experiments.comparison.methods import METHODS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, make_setting, prepare
from experiments.harness import results
from fssd_jax.checks import InputError
from tests.experiments.conftest import near_only

NAMES = ("fssd", "msp", "mahalanobis_clean", "knn")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("batches")


@pytest.fixture
def settings(out):
    """Protocol → a setting, of a batch size that is told or chosen."""

    def of(name, size=None):
        options = Options(tiny=True, out=out, batch_size=size)
        prepared = prepare(near_only("digits"), 0, options)
        return make_setting(prepared, "digits_near", PROTOCOLS[name], tiny=True)

    return of


@pytest.fixture
def accelerator(monkeypatch):
    for module in (setting, brought):
        monkeypatch.setattr(module, "scoring_batch", lambda *_: 256)


def sizes(s):
    return s.batch_size, s.protocol.batch_size


def test_on_a_cpu_batches_are_as_they_were(settings):
    assert sizes(settings("paper")) == (64, 50)


@pytest.mark.usefixtures("accelerator")
def test_an_accelerator_has_its_own_and_the_override_wins(settings):
    assert sizes(settings("paper")) == (256, 256)
    assert sizes(settings("released")) == (256, 512)
    assert sizes(settings("paper", 16)) == (16, 16)
    assert sizes(settings("released", 16)) == (16, 512)


@pytest.mark.usefixtures("accelerator")
def test_a_figure_has_them_too(out):
    for size, found in ((None, 256), (16, 16)):
        config = FigureOptions(out=out, batch_size=size)
        of = ready(near_only("digits"), "digits_near", "clean", config, TINY)
        assert sizes(of.setting) == (found, found)


@pytest.mark.usefixtures("accelerator")
def test_what_is_brought_has_them_too(settings):
    s, few = settings("clean"), np.zeros((4, 8, 8, 1), np.float32)
    fields = {"feature_fn": s.feature_fn, "variables": s.variables}
    fields |= {"logit_fn": None, "initial": None, "num_classes": 5, "train": None}
    for size, found in ((None, 256), (16, 16)):
        images = brought.Images(*[few] * 5)
        own = brought.shared_setting(images, seed=0, batch_size=size, **fields)
        assert sizes(own) == (found, found)


def test_a_batch_changes_no_score_but_for_rounding(settings, tmp_path):
    found = []
    for size in (16, 64):
        folder = tmp_path / str(size)
        folder.mkdir()
        s = settings("paper", size)._replace(timed=False)
        of = answer(s, NAMES, folder, groups={"methods": METHODS})
        assert not of.failed
        found.append(of.groups["methods"])
    assert set(found[0]) == {"fssd", "msp", "mahalanobis clean", "knn"}
    for name, row in found[0].items():
        other = found[1][name]
        for a, b in ((row.ind, other.ind), (row.ood, other.ood)):
            if name in ("msp", "knn"):
                close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(b).max()}
                np.testing.assert_allclose(a, b, **close)
            else:
                # Last digits decide the sign of a gradient that is all but 0, on which
                # the weights were fitted, and count where a covariance is nearly
                # singular.
                ranks: Any = spearmanr(a, b)
                assert ranks.statistic > 0.99, name
                assert np.median(np.abs(a - b)) < 0.01 * a.std(), name


def test_it_names_no_result(out):
    benchmark, places = near_only("digits"), []
    for size in (None, 16):
        config = table2.Config(tiny=True, out=out, batch_size=size)
        chosen = chosen_network(config, benchmark)
        at = table2.place(config, benchmark, chosen, "digits_near", 0, None)
        told = dataclasses.asdict(config)  # as of leakage, score and openood
        there = results.place(out, "x", "x", told, [benchmark.train], setting)
        places.append((at, there))
    assert places[0] == places[1]


def test_none_is_an_error(out):
    with pytest.raises(InputError, match="--batch-size: expected 1 or more, got 0"):
        table2.run(table2.Config(tiny=True, out=out, batch_size=0))
