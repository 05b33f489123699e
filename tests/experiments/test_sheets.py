"""Tables as text, and the facts that they tell."""

import numpy as np
import pytest

from experiments.comparison import report
from experiments.comparison.rows import Scored
from experiments.harness.sheets import FORMATS, Sheet, show
from tests.experiments.screen import assert_it_fits


def test_numbers_are_not_broken_where_words_must_be(capsys):
    """One row of 136 columns as it is."""
    numbers = ["-0.123 ± 0.456"] * 3 + ["98.1 [97.2, 98.9]"]
    headings = ["method", *(f"heading {i}" for i in range(4)), "chosen"]
    row = ["a method of many words", *numbers, "a note of as many words, or so"]
    show([Sheet("title", headings, [row], [])])
    printed = capsys.readouterr().out
    assert_it_fits(printed, [*headings, row[0], row[-1]])
    assert printed.count("-0.123 ± 0.456") == 3
    assert printed.count("98.1 [97.2, 98.9]") == 1


def test_what_is_no_number_may_be_broken(capsys):
    row = ["a method", "word " * 30, "5 members", "0.5"]
    show([Sheet("title", ["method", "text", "other", "AUROC"], [row], [])])
    assert_it_fits(capsys.readouterr().out, row)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_sheet_in_every_format(ending):
    sheet = Sheet("a & b", ["method", "AUROC"], [["x_1", "50.0 % ± 1"]], ["a note"])
    text = FORMATS[ending](sheet)
    expected = {
        "md": "| x_1 | 50.0 % ± 1 |",
        "csv": "x_1,50.0 % ± 1",
        "tex": r"x\_1 & 50.0 \% $\pm$ 1 \\",
    }
    assert expected[ending] in text


def test_a_single_ood_image_gives_rows_and_no_paired_test():
    ind, ood = np.arange(5.0), np.array([-1.0])
    rows = {name: Scored(ind, ood) for name in ("fssd clean", "msp")}
    found = report.summarise({"methods": rows, "variants": {}, "controls": {}})
    assert found["methods"]["msp"]["auroc"] == 1
    assert [test["against"] for test in found["paired"]] == [None]
