"""The ladder's picture: what is drawn are the stored AUROCs, least labels first."""

import json

import pytest

from website import ladder
from website.measured import RESULTS


def test_the_picture_is_of_the_stored_numbers():
    figure = ladder.picture()
    for ax, name in zip(figure.axes, ("fmnist6", "fmnist"), strict=True):
        stored = json.loads((RESULTS / "leakage" / f"{name}-0.json").read_text())
        rungs = stored["rungs"]["fssd"]
        (drawn,) = [line for line in ax.lines if line.get_label() == "fssd"]
        order = ("none", "corrupted and noise", "another OoD set", "target")
        by_place = dict(zip(*drawn.get_data(), strict=True))
        expected = {k: rungs[rung] for k, rung in enumerate(order)}
        assert by_place == pytest.approx(expected)
        labels = [tick.get_text() for tick in ax.get_xticklabels()]
        assert labels == [ladder.RUNGS[rung] for rung in order]
