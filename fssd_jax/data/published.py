"""What was published for benchmarks: the paper's Table 2, and the released README."""


def _rows(*columns: str) -> dict[str, dict[str, float]]:
    """Published rows "method AUROC AUPRC FPR80" in %, as fractions."""
    table = {}
    for column in columns:
        name, *values = column.split()
        fractions = (round(float(v) / 100, 4) for v in values)
        table[name.replace("_", " ")] = dict(
            zip(("auroc", "auprc", "fpr80"), fractions, strict=True)
        )
    return table


# Benchmark A. `msp` is the paper's "Base".
_PAPER_A = (
    *("msp 77.3 79.2 43.5", "odin 96.9 93.0 2.5", "mahalanobis 99.6 99.7 0.0"),
    *("deep_ensemble 83.9 83.3 27.5", "mc_dropout 81.7 85.3 36.8"),
    *("outlier_exposure 99.6 99.6 0.0", "fssd 99.6 99.7 0.0"),
)
PAPER_FMNIST = {
    "paper": _rows(*_PAPER_A),
    "released README": _rows(
        *("msp 77.3 79.2 42.5", "odin 87.9 88.0 20.0", "mahalanobis 99.6 99.7 0.0"),
        *("deep_ensemble 83.9 83.3 27.5", "mc_dropout 76.5 79.3 42.3"),
        *("outlier_exposure 99.6 99.6 0.0", "fssd 99.6 99.7 0.0"),
    ),
}

# Benchmark B.
_PAPER_B = (
    *("msp 89.9 85.4 10.1", "odin 96.7 92.5 4.7", "mahalanobis 99.1 98.1 0.3"),
    *("deep_ensemble 93.7 90.6 3.7", "mc_dropout 96.7 93.9 2.4"),
    *("outlier_exposure 90.4 89.8 12.5", "fssd 99.5 99.5 0.4"),
)
PAPER_CIFAR10 = {
    "paper": _rows(*_PAPER_B),
    # What it revised.
    "released README": _rows("deep_ensemble 96.0 93.9 1.2", "odin 96.6 96.7 4.8"),
}
