"""Tables as text, and the facts that they tell."""

import numpy as np
import pytest

from experiments.comparison import report
from experiments.comparison.rows import Scored
from experiments.harness.sheets import FORMATS, Sheet


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
