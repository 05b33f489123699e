"""Words of the tables of Figures 4 and 5, and what their pictures have room for."""

from typing import Any

from experiments.comparison.figure_settings import told_of

# Controls and second rows of a method that tables have and pictures have no room for.
NOT_DRAWN = (
    *("control: nearest in pixels", "control: brightness"),
    *("outlier exposure, from scratch", "fssd deep"),
)
OF_ALL = ("fssd clean", "fssd noise")  # of all layers together


def is_drawn(name: str) -> bool:
    """No single layer, and not what pictures have no room for."""
    return name not in NOT_DRAWN and (not name.startswith("fssd ") or name in OF_ALL)


def networks_note(facts: dict[str, Any]) -> str:
    """On the network, on those that some methods need beside it, and on passes."""
    others, passes = facts["short_epochs"], ""
    if "mc dropout" in facts["auroc"]:
        passes = f" MC dropout: {facts['passes']} passes an image."
    short = f"; of other networks: {others}." if others else "."
    return told_of(facts) + short + passes


def missing_notes(facts: dict[str, Any]) -> list[str]:
    """What there is no row of, and why."""
    titles = {"left_out": "left out", "failed": "failed"}
    return [
        f"{title}: {name}: {why}"
        for key, title in titles.items()
        for name, why in facts[key].items()
    ]
