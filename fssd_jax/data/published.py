"""What was published for benchmarks: the paper's Table 2, and the released README."""

from collections.abc import Mapping

Rows = Mapping[str, Mapping[str, float]]  # method → metric → fraction
METRICS = ("auroc", "auprc", "fpr80")
# The paper's order; `msp` is its "Base".
METHODS = (
    *("msp", "odin", "mahalanobis", "deep ensemble", "mc dropout", "outlier exposure"),
    "fssd",
)


def _rows(*columns: str) -> dict[str, dict[str, float]]:
    """Published rows "method AUROC AUPRC FPR80" in %, as fractions."""
    table = {}
    for column in columns:
        name, *values = column.split()
        fractions = (round(float(v) / 100, 4) for v in values)
        table[name.replace("_", " ")] = dict(zip(METRICS, fractions, strict=True))
    return table


# By the benchmark's letter in the paper's Table 1. D is in its Figure 4 only.
TABLE2: dict[str, Rows] = {
    "A": _rows(
        *("msp 77.3 79.2 43.5", "odin 96.9 93.0 2.5", "mahalanobis 99.6 99.7 0.0"),
        *("deep_ensemble 83.9 83.3 27.5", "mc_dropout 81.7 85.3 36.8"),
        *("outlier_exposure 99.6 99.6 0.0", "fssd 99.6 99.7 0.0"),
    ),
    "B": _rows(
        *("msp 89.9 85.4 10.1", "odin 96.7 92.5 4.7", "mahalanobis 99.1 98.1 0.3"),
        *("deep_ensemble 93.7 90.6 3.7", "mc_dropout 96.7 93.9 2.4"),
        *("outlier_exposure 90.4 89.8 12.5", "fssd 99.5 99.5 0.4"),
    ),
    "C": _rows(
        *("msp 88.5 86.1 19.5", "odin 90.8 88.6 15.2", "mahalanobis 83.3 83.0 30.1"),
        *("deep_ensemble 89.0 89.0 18.8", "mc_dropout 67.2 66.9 59.2"),
        *("outlier_exposure 92.5 92.6 7.9", "fssd 93.1 92.5 10.2"),
    ),
    "E": _rows(
        *("msp 71.7 89.9 52.0", "odin 73.3 91.4 50.3", "mahalanobis 73.9 90.9 46.0"),
        *("deep_ensemble 74.5 91.4 47.1", "mc_dropout 69.8 88.7 53.2"),
        *("outlier_exposure 71.5 90.7 54.2", "fssd 78.3 92.8 39.2"),
    ),
    "F": _rows(
        *("msp 60.0 53.3 61.8", "odin 61.3 55.9 59.4", "mahalanobis 82.5 80.6 29.6"),
        *("deep_ensemble 63.0 56.1 56.7", "mc_dropout 65.5 59.4 58.8"),
        *("outlier_exposure 52.6 46.6 64.2", "fssd 86.7 86.1 22.1"),
    ),
    # No outliers: there is no reasonable auxiliary set of sequences.
    "G": _rows(
        *("msp 69.6 69.9 57.4", "odin 70.6 71.9 55.9", "mahalanobis 70.4 69.3 53.7"),
        *("deep_ensemble 70.0 56.0 30.0", "mc_dropout 69.3 70.2 58.3"),
        "fssd 74.8 75.8 47.4",
    ),
}
# What the authors' README later says, where it says anything.
README: dict[str, Rows] = {
    "A": _rows(
        *("msp 77.3 79.2 42.5", "odin 87.9 88.0 20.0", "mahalanobis 99.6 99.7 0.0"),
        *("deep_ensemble 83.9 83.3 27.5", "mc_dropout 76.5 79.3 42.3"),
        *("outlier_exposure 99.6 99.6 0.0", "fssd 99.6 99.7 0.0"),
    ),
    "B": _rows("deep_ensemble 96.0 93.9 1.2", "odin 96.6 96.7 4.8"),
}


def of(letter: str) -> dict[str, Rows]:
    """All that was published for a benchmark, by where."""
    found = {"paper": TABLE2[letter]}
    return found | ({"released README": README[letter]} if letter in README else {})
