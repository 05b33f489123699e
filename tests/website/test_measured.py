"""The numbers of the site are those of docs/results, as documents tell them."""

import statistics

import pytest

from fssd_jax import detectors
from website import measured
from website.measured import Cell, Row

ROWS = {row.name: row for row in measured.rows()}
# As docs/results.md has them, typed there before there was a site.
TOLD = {
    ("fssd logits", "fmnist6"): "86.9 ± 2.6",
    ("fssd conv2", "fmnist"): "4.1 ± 0.4",
    ("fssd clean", "digits_far"): "83.5 ± 15.7",
    ("msp", "digits_near"): "95.0 ± 2.2",
    ("fssd", "digits_far"): "99.9 ± 0.2",
    ("mahalanobis", "fmnist"): "99.3 ± 0.3",
    ("outlier exposure, from scratch", "fmnist"): "89.2 (1 seed)",
    ("energy", "genomes"): "76.8 (1 seed)",
    ("energy", "cifar6"): "76.3 ± 0.6",
    ("scale", "cifar10_photos"): "95.9 ± 1.0",
    ("vim", "cifar6"): "70.6 ± 0.9",
    # Of networks trained anew, where the others have no such row.
    ("msp", "fmnist6"): "80.5 ± 0.3",
    ("fssd + mahalanobis", "fmnist6"): "87.1 ± 1.2",
    ("gen", "fmnist"): "88.4 (1 seed)",
}


@pytest.mark.parametrize("of", TOLD, ids=str)
def test_a_cell_is_what_the_results_say(of):
    row, benchmark = of
    assert str(ROWS[row].cells[benchmark]) == TOLD[of]


def test_a_row_has_its_name_of_today():
    assert not any("default" in name for name in ROWS)
    assert (
        str(ROWS["fssd clean, turned layers left out"].cells["cifar6"])
        == "64.0 ± 3.2 (2 seeds)"
    )


def test_mean_and_deviation():
    aurocs = (0.5, 0.75, 0.7)
    deviation = (sum((a - 0.65) ** 2 for a in aurocs) / 2) ** 0.5
    assert statistics.mean(aurocs) == pytest.approx(Cell(aurocs).mean) == 0.65
    assert str(Cell(aurocs)) == f"65.0 ± {100 * deviation:.1f}"
    assert str(Cell((0.5, 0.7))) == "60.0 ± 14.1 (2 seeds)"


@pytest.mark.parametrize(
    ("row", "level"),
    [
        ("msp", "network"),
        ("fssd logits", "noise"),
        ("fssd clean", "validation"),
        ("displacement", "validation"),
        ("knn", "training"),
        ("mahalanobis clean", "training"),
        ("deep ensemble", "further training"),
        ("outlier exposure, fine-tuned", "further training"),
        ("mc dropout", "OoD"),
        ("odin", "OoD"),
        ("fssd", "OoD"),
    ],
)
def test_rows_stand_by_what_they_saw(row, level):
    assert ROWS[row].level == level


def test_it_is_told_what_each_benchmark_is():
    assert {b for row in ROWS.values() for b in row.cells} == measured.BENCHMARKS.keys()


def test_no_row_with_ood_labels_stands_elsewhere():
    for row in ROWS.values():
        assert ("OoD" in row.fitted_on) == (row.level == "OoD"), row


def test_a_row_is_of_the_detector_with_the_longest_name_in_it():
    names = ["mahalanobis", "relative_mahalanobis", "fssd", "mc_dropout", "scale"]
    of = {row: measured.detector_of(row, names) for row in ("mahalanobis clean", "x")}
    assert of == {"mahalanobis clean": "mahalanobis", "x": None}
    assert measured.detector_of("relative mahalanobis", names) == "relative_mahalanobis"
    assert measured.detector_of("mc dropout, mean", names) == "mc_dropout"
    assert measured.detector_of("fssd, F* of scaled noise", names) == "fssd"


def test_the_lowest_and_the_highest_are_of_means():
    a = Row("a", "noise", "nothing", {"x": Cell((0.1, 0.9)), "y": Cell((0.4,))})
    b = Row("b", "noise", "nothing", {"x": Cell((0.45, 0.46))})
    assert measured.ends([a, b]) == ((a, "y"), (a, "x"))
    assert measured.ends([]) is None


def test_contributing_tells_what_each_detector_needs():
    needs = measured.needs()
    assert set(detectors.__all__) <= set(needs)
    assert needs["energy"] == ["nothing", "logits", "1"]
    assert needs["Outlier Exposure"][0] == "an auxiliary set"
    assert sorted(measured.detectors()) == sorted(detectors.__all__)
    assert measured.detectors()[:2] == ["fssd", "ash"]
