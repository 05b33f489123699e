"""Tables as text."""

import pytest

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
