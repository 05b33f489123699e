"""The table of `score`, and what must be known to read it."""

from typing import Any

from experiments.comparison import dumped, tables
from experiments.comparison.answers import SEEN
from experiments.harness.sheets import Sheet


def to_sheet(facts: dict[str, Any], came_from: dict[str, str]) -> Sheet:
    counts, dumps = facts["counts"], facts["model"] == dumped.NAME
    notes = [
        f"In %, [{tables.INTERVAL} of the images]; in-distribution is positive. "
        f"{counts['ind']:,} in-distribution and {counts['ood']:,} OoD images, "
        f"{counts['noise']:,} samples of noise for F*. No OoD image served to fit or "
        f"choose anything. {_of_rows(facts)}.",
        *tables.of_photographs([facts]),
        "No controls, which would need the network untrained, or pixels: nothing here "
        "tells what the training is worth."
        if dumps
        else "A method that does not pass the controls shows nothing of the training. "
        "The untrained network's BatchNorm has the statistics of in-distribution "
        "images.",
        *(f"warning: {text}" for text in facts["warnings"]),
        *tables.left_out(facts),
        *tables.failed_notes([facts]),
    ]
    if facts["accuracy"] is None and SEEN in facts["failed"]:
        notes.append("Accuracy: not known, what the pictures show could not be had.")
    elif dumps:
        notes.append(_accuracy_of_dumps(facts["accuracy"]))
    elif facts["accuracy"] is None:
        notes.append(
            "Accuracy: not known, the in-distribution images are of more or fewer "
            "class folders than the network has classes."
        )
    else:
        notes.append(
            f"Accuracy {100 * facts['accuracy']:.1f} %, if class folders in sorted "
            "order are the network's classes. At chance: another order, or mean and "
            "std are not those of the training."
        )
    notes += [f"{name}: {source}" for name, source in came_from.items()]
    title = f"{facts['model']}, seed {facts['seed']}: no OoD image used"
    rows = tables.metric_rows([facts], ("methods", "controls"))
    for row in rows:
        if row[0].startswith("fssd") and facts["methods"][row[0]]["auroc"] < 0.5:
            row[-1] = "; ".join(part for part in (row[-1], "inverted") if part)
    rows += tables.failed_rows([facts], ("methods", "controls"))
    return Sheet(title, tables.HEADINGS, rows, notes, tables.SCREEN)


ROWS = {
    "fssd clean": "clean: layers standardised by in-distribution images, and turned "
    "round where noise lies farther from F* than these do",
    "fssd deep": "deep: the sum of their standardised log distances at the last two "
    "layers",
    "fssd tiles": "tiles: the same of the last hidden layer and the logits, F* that of "
    "images cut into 2×2 tiles, which are shuffled",
    "fssd + mahalanobis": "fssd + mahalanobis: the same again, F* that of means of "
    "training images, and the label-free Mahalanobis score, each standardised",
}


def _of_rows(facts: dict[str, Any]) -> str:
    """What the rows of FSSD are, of those that there are."""
    told = [told for name, told in ROWS.items() if name in facts["methods"]]
    return "; ".join(["A layer alone is Eq. (1) as it stands", *told])


def _accuracy_of_dumps(accuracy: float | None) -> str:
    if accuracy is None:
        return "Accuracy: not known without logits, and labels y of all classes."
    return f"Accuracy {100 * accuracy:.1f} %. At chance: y in another order than rows."
