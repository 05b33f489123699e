"""Results of `table2` beside the paper's Table 2 and the authors' README."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.comparison.report import Result, mean_and_deviation
from experiments.harness.sheets import Sheet
from fssd_jax.data import published
from fssd_jax.data.published import METRICS

NOT_RUN = "not run here"
NO_NUMBERS = "Published as box plots (Figure 4), without numbers."
SPREAD = (
    "In %: mean ± standard deviation over the seeds, of one seed its 95 % interval, "
    "which of each of several stands in its own table; differences of the mean, in "
    "points."
)
CONTROLS = tuple(
    f"control: {name}"
    for name in ("untrained", "pixel stats", "raw pixels", "composition")
)


class Title(NamedTuple):
    words: str
    pair: str  # of our benchmark, as results name it; of D, many (corrupted_pairs.py)


TITLES = {
    "A": Title("FMNIST against MNIST, LeNet", "fmnist"),
    "B": Title("CIFAR10 against SVHN, ResNet-34", "cifar10"),
    "C": Title("ImageNet, dogs against non-dogs, ResNet-34", "dogs"),
    "D": Title("ImageNet against ImageNet-C, ResNet-34", "imagenet_KIND_LEVEL"),
    "E": Title("CelebA, not blurry against blurry, ResNeXt-50", "celeba"),
    "F": Title("MS-1M against IJB-C, ResNeXt-50", "ms1m"),
    "G": Title("bacteria before 2011 against after 2016, BiLSTM", "genomics"),
}
# Real, and run here, but not the paper's.
FAR = {
    "photos": "patches of photographs",
    "fashion_mnist": "FashionMNIST in colour",
    "mnist": "MNIST in colour",
}
OURS = {
    "genomes": "Five species of bacteria against three others, BiLSTM of 64 units",
    **{f"cifar10_{name}": f"CIFAR-10 against {words}" for name, words in FAR.items()},
    "cifar6": "Six classes of CIFAR-10 against the other four",
    **{
        f"cifar6_{name}": f"Six classes of CIFAR-10 against {words}"
        for name, words in FAR.items()
    },
    "fmnist6": "Six classes of FashionMNIST against the other four, LeNet",
    "digits_near": "Digits 0-4 against 5-9, of scikit-learn, LeNet",
    "digits_far": "Digits 0-4, of scikit-learn, against patches of photographs, LeNet",
}


def to_sheet(title: str, of: dict[str, Any], results: list[Result]) -> Sheet:
    rows = []
    for name in published.METHODS:
        said = [_fractions(rows_.get(name), where) for where, rows_ in of.items()]
        for own in _named(name, results) or [name]:
            rows.append([own, *said, *_measured(own, results)])
    for name in CONTROLS:
        if _named(name, results):
            rows.append([name, *["" for _ in of], *_measured(name, results)])
    if not of and not results:
        return Sheet(title, ["", "here"], [["all methods", NOT_RUN]], [NO_NUMBERS])
    headings = ["", *of, "here", "fitted on"]
    return Sheet(title, headings, rows, notes(of, results))


def names(results: list[Result]) -> list[str]:
    """Of a table's rows: all methods of the paper, and controls that are there."""
    methods = [n for m in published.METHODS for n in _named(m, results) or [m]]
    return methods + [name for name in CONTROLS if _named(name, results)]


def rows_of(name: str, results: list[Result]) -> list[tuple[Result, Result]]:
    """Results that have a row of that name, each with it."""
    return [
        (r, r[kind][name])
        for r in results
        for kind in ("methods", "controls")
        if name in r[kind]
    ]


def _named(name: str, results: list[Result]) -> list[str]:
    """Our rows of a method: the chosen one, or all that there are."""
    rows = dict.fromkeys(
        row for r in results for kind in ("methods", "controls") for row in r[kind]
    )
    if name in rows:
        return [name]
    return [row for row in rows if row.startswith(f"{name},")]


def _measured(name: str, results: list[Result]) -> list[str]:
    """The cell of our numbers, and what was fitted on."""
    rows = [row for _, row in rows_of(name, results)]
    if not rows:
        key = name.replace(" ", "_")
        # Of sequences there is no auxiliary set, in the paper either.
        nothing = any(
            r.get("symbols") and key in r.get("left_out", ()) for r in results
        )
        return ["NA" if nothing else NOT_RUN, ""]
    cells = [_cell(rows, metric) for metric in METRICS]
    missing = f" ({len(rows)} of {len(results)} seeds)" * (len(rows) < len(results))
    return [" / ".join(cells) + missing, rows[0]["fitted_on"]]


def _cell(rows: list[Result], metric: str) -> str:
    of: dict[str, Any] = mean_and_deviation([row[metric] for row in rows])
    if of["std"] is None:
        low, high = rows[0][f"{metric}_ci95"]
        return f"{100 * rows[0][metric]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * of['mean']:.1f} ± {100 * of['std']:.1f}"


def _fractions(of: Any, where: str) -> str:
    if of is None:  # the README tells what was revised
        return "NA" if where == "paper" else "-"
    return " / ".join(f"{100 * of[m]:.1f}" for m in METRICS)


def notes(of: Mapping[str, published.Rows], results: list[Result]) -> list[str]:
    """What was run; and, beside published numbers, whether it is what they are of."""
    if not results:
        return []
    right = ", ".join(f"{100 * r['model']['accuracy']:.1f} %" for r in results)
    seeds = ", ".join(str(r["seed"]) for r in results)
    epochs = ", ".join(str(r["model"]["epochs"]) for r in results)
    sizes, models = results[0]["counts"], [r["model"] for r in results]
    networks = [m["network"] for m in models if m.get("network")]
    networks += [f"weights {m['weights']}" for m in models if m.get("weights")]
    of_networks = "".join(f"{name}, " for name in dict.fromkeys(networks))
    told = [
        f"Here: {of_networks}seeds {seeds}, {epochs} epochs, accuracy {right}; "
        f"{sizes['test_ind']:,} in-distribution and {sizes['test_ood']:,} OoD inputs.",
    ]
    others = [str(r["seed"]) for r in results if of and r.get("paper") is None]
    if others:
        told += [
            f"warning: seed{'s' * (len(others) > 1)} {', '.join(others)}: not the "
            "paper's benchmark, but with another network or width, of a part of the "
            "training set, or of images of one's own (`paper` is null in the result)."
        ]
    return told


def differences(
    title: str, of: Mapping[str, published.Rows], results: list[Result]
) -> Sheet:
    """A line a method and metric: ours with its interval, theirs, and the difference.

    Args:
      title: of the benchmark.
      of: where → what was published; see `published.of`.
      results: of the seeds, or none.
    """
    rows = []
    for name in published.METHODS:
        for own in _named(name, results) or [name]:
            found = [row for _, row in rows_of(own, results)]
            absent, fitted_on = _measured(own, results) if not found else ("", "")
            for metric in METRICS:
                here = _cell(found, metric) if found else absent
                row = [own, metric.upper(), here]
                for known in of.values():
                    row += _against(known.get(name, {}).get(metric), found, metric)
                rows.append([*row, found[0]["fitted_on"] if found else fitted_on])
    if not of and not results:
        return Sheet(title, ["", "here"], [["all methods", NOT_RUN]], [NO_NUMBERS])
    headings = ["method", "metric", "here"]
    for where in of:
        headings += [where, "difference"]
    told = [SPREAD] if of and results else []
    return Sheet(title, [*headings, "fitted on"], rows, [*told, *notes(of, results)])


def _against(value: float | None, found: list[Result], metric: str) -> list[str]:
    if value is None:
        return ["-", ""]
    mean = sum(row[metric] for row in found) / len(found) if found else None
    gap = "" if mean is None else f"{100 * (mean - value):+.1f}"
    return [f"{100 * value:.1f}", gap]
