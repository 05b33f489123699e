"""The study of rules without labels: its splits, means, intervals and tables."""

import numpy as np
import pytest

from experiments import label_free
from experiments.centre_study import (
    pairs,
    summary,
    tables,
)
from fssd_jax.checks import InputError


def test_splits_are_of_six_and_four_classes_and_one_is_held_back():
    splits = [pairs.known(k) for k in range(pairs.SPLITS)]
    assert all(len(set(split)) == 6 for split in splits)
    assert len(set(splits)) == pairs.SPLITS
    held = [name for name, family in pairs.FAMILIES.items() if family.held_back]
    assert held == ["fmnist_split3", "cifar_split3"]
    kinds = {pairs.kind(f"{name}{end}") for name in held for end in ("", "_photos")}
    assert kinds == {"fmnist_split", "cifar_split", "photographs"}
    assert pairs.kind("digits_far") == "photographs"
    assert pairs.kind("cifar10_fashion_mnist") == "cifar10_fashion_mnist"


def test_what_is_held_back_is_refused_by_its_name_alone(tmp_path):
    with pytest.raises(InputError, match="held back; give --held-back"):
        label_free.run(label_free.Config(("fmnist_split3",), out=tmp_path))
    with pytest.raises(InputError, match=r"\['fmnist6'\]; choose from digits, fmnist"):
        label_free.run(label_free.Config(("fmnist6",), out=tmp_path))


def test_a_split_has_the_known_classes_inside_and_the_others_outside():
    found = pairs.of_split("f", "fashion_mnist", "photo_patches", 1, None)
    whole = pairs.load("fashion_mnist", "test")
    inside = np.isin(whole.y, pairs.known(1))
    np.testing.assert_array_equal(found.test.x, whole.x[inside])
    np.testing.assert_array_equal(found.ood["f1"].x, whole.x[~inside])
    of = np.array(pairs.known(1))
    np.testing.assert_array_equal(of[found.test.y], whole.y[inside])


# ---- means --------------------------------------------------------------------------


def drawn(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    names = [
        *("digits_near", "cifar_split0"),
        *(f"fmnist_split{k}" for k in range(3)),
        "digits_far",
    ]
    return {p: {s: float(rng.normal(shift, 0.1)) for s in range(8)} for p in names}


def test_each_near_kind_counts_as_much_and_photographs_do_not():
    one = drawn(0)
    means = {pair: np.mean(list(of.values())) for pair, of in one.items()}
    splits = np.mean([means[f"fmnist_split{k}"] for k in range(3)])
    expected = (means["digits_near"] + means["cifar_split0"] + splits) / 3
    assert summary.near(one).value == pytest.approx(expected)
    with pytest.raises(InputError, match="no pair of kind cifar_split"):
        summary.near({k: v for k, v in one.items() if k[0] != "c"})


def test_the_interval_is_about_that_of_the_normal_law():
    """σ²/8 a pair, three pairs of one kind, and of three kinds the mean."""
    found = summary.near(drawn(1))
    one = drawn(1)
    parts = [np.var(list(one[p].values())) / 8 for p in ("digits_near", "cifar_split0")]
    of_splits = [np.var(list(one[f"fmnist_split{k}"].values())) / 8 for k in range(3)]
    sigma = np.sqrt(sum(parts) + sum(of_splits) / 9) / 3
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * sigma, rel=0.1)


def test_differences_are_paired():
    """What two rules have in common does not widen the interval of their difference."""
    one = drawn(2)
    other = {p: {s: v - 0.05 for s, v in of.items()} for p, of in one.items()}
    found = summary.difference(one, other)
    np.testing.assert_allclose(found, [0.05] * 3, rtol=1e-9)


def test_tables_show_whole_scores_best_first():
    found = {
        "fssd clean": drawn(3, 0.5),
        "mix 16: deep": drawn(4, 0.9),
        "mix 16: fc1": drawn(5, 0.7),
        "control: brightness": drawn(6, 0.6),
        "not everywhere": {"digits_near": {0: 1.0}},
    }
    sheet = tables.rules(found, {"digits": {0: 0.9}}, {"digits": {0: "a GPU"}})
    assert [row[0] for row in sheet.rows] == [
        *("mix 16: deep", "control: brightness", "fssd clean")
    ]
    assert sheet.rows[2][2] == "+0.0 [+0.0, +0.0]"
    assert [row[0] for row in tables.pairs(found).rows] == list(found)[:4]
    worst = min(found["mix 16: deep"]["digits_far"].values())
    assert sheet.rows[0][-1] == f"{100 * worst:.1f}"
    numbers = tables.to_records(found)
    assert len(numbers) == 4 * 6 * 8 + 1
    assert sheet.notes[-1] == "Not of every network, and left out: not everywhere."


@pytest.mark.parametrize("lost", ["fssd clean", "mix 16: deep"])
def test_a_rule_that_failed_for_one_network_is_left_out_and_told(lost):
    found = {"fssd clean": drawn(3, 0.5), "mix 16: deep": drawn(4), "msp": drawn(5)}
    del found[lost]["cifar_split0"][3]
    sheet = tables.rules(found, {"digits": {0: 0.9}}, {"digits": {0: "a GPU"}})
    assert {row[0] for row in sheet.rows} == found.keys() - {lost}
    assert sheet.notes[-1] == f"Not of every network, and left out: {lost}."
    assert all(bool(row[2]) == (lost != "fssd clean") for row in sheet.rows)


# ---- why ----------------------------------------------------------------------------
