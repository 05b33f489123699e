"""What a script prints: every table whole, within the screen's width."""

import re
from collections.abc import Iterable

from experiments.harness.sheets import WIDTH

# Lines of a path, which is as long as it is.
PATHS = ("results: ", "all of them: ", "already there ")
# The end, or the beginning, of a number that was broken: "0.5 ±", "[0.4,", "0.6]".
BROKEN = re.compile(r"±$|^±|\[[^\]]*$|^[^\[]*\]")


def assert_it_fits(printed: str, shown: Iterable[str] = ()) -> None:
    """No line is too long, no number broken, and no word of the cells `shown`."""
    lines = [line for line in printed.splitlines() if not line.startswith(PATHS)]
    assert any("┃" in line for line in lines), "no table"
    assert max(map(len, lines)) <= WIDTH == 100
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    for cell in (cell.strip() for row in rows for cell in row):
        assert not BROKEN.search(cell), cell
    found = set(re.split(r"[\s│┃]+", printed))
    assert {word for text in shown for word in text.split()} <= found
