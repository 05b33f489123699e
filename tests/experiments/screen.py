"""What a script prints: every table whole, within the screen's width."""

import re
from collections.abc import Iterable

from experiments.harness.sheets import WIDTH


def assert_it_fits(printed: str, shown: Iterable[str]) -> None:
    """No line is too long, and no word of the headings or cells `shown` is broken."""
    lines = [line for line in printed.splitlines() if not line.startswith("results: ")]
    assert any("┃" in line for line in lines), "no table"
    assert max(map(len, lines)) <= WIDTH
    found = set(re.split(r"[\s│┃]+", printed))
    assert {word for text in shown for word in text.split()} <= found
