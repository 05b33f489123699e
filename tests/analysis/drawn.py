"""Each picture by name, of stored results or of random numbers."""

import itertools
import json
from pathlib import Path

import numpy as np

from analysis import (
    auroc_plots,
    dynamics_plots,
    example_plots,
    feature_plots,
    kernel_plots,
    pca,
    phase_plots,
    plots,
    shift_plots,
)
from analysis.style import SETS
from benchmarks import kernel
from experiments.comparison import pictures

RNG = np.random.default_rng(0)
STORED = Path(__file__).parents[2] / "docs" / "results"
PAIRS = ("fmnist6", "fmnist")
LAYERS = ["conv1", "conv2", "fc1", "logits"]
MANY = [*(f"method {i}" for i in range(14)), "control: untrained", "control: pixels"]


def stored(path):
    return json.loads((STORED / path).read_text())


def points(*names, n=30):
    return {name: RNG.normal(size=(n, 2)) for name in names}


def scores(names):
    return {name: (RNG.normal(1, 1, 30), RNG.normal(0, 1, 20)) for name in names}


WIDTHS = 32, 128, 512, 2048


def widths():
    def form():
        low, value, high, error = np.sort(RNG.uniform(size=4))
        return {
            "auroc": value, "auroc_ci95": (low, high), "relative_error": error,
        }  # fmt: skip

    names = ("fssd", "displacement", "path", "frozen", "offset", "untrained")
    terms = ("moved", "cross", "offset")
    return {
        width: {
            layer: {
                "forms": {
                    name: form()
                    for name in (*names, *(["infinite"] if layer == "logits" else []))
                },
                **{
                    key: {term: {"all": RNG.uniform()} for term in terms}
                    for key in ("shares", "shares_moving")
                },
                "kernel_drift": RNG.uniform(),
            }
            for layer in LAYERS
        }
        for width in WIDTHS
    }


def over_time():
    facts = stored("figure2/mnist-0.json")
    quantities = ("distance", "displacement", "speed")
    return dynamics_plots.over_time(
        facts["steps"], facts["layers"], quantities, "title"
    )


def train_size():
    (of,) = stored("train_size/fmnist-0.json")["auroc"].values()
    curves = {name: {int(n): v for n, v in o.items()} for name, o in of.items()}
    return auroc_plots.train_size(curves, "title")


def leakage():
    facts = stored("leakage/fmnist6-0.json")
    counts = {
        name: {int(n): v for n, v in of.items()} for name, of in facts["counts"].items()
    }
    return auroc_plots.leakage(facts["rungs"], counts, "title")


def ladder():
    rungs = {name: stored(f"leakage/{name}-0.json")["rungs"] for name in PAIRS}
    return auroc_plots.ladder(rungs)


def dots():
    rows = stored("ablation/fmnist-0.json")["rows"]
    return auroc_plots.dots(
        [row["switch"] for row in rows],
        [row["auroc"] for row in rows],
        "AUROC",
        "title",
        intervals=[tuple(row["auroc_ci95"]) for row in rows],
        published={"paper": [0.9] * len(rows), "README": [None] + [0.8] * 8},
    )


def forms():
    sizes = {k: RNG.uniform(size=(40, 4)) for k in (*kernel_plots.FORMS, "fssd")}
    return kernel_plots.forms(sizes, LAYERS, "title")


def against_distance():
    layers = stored("kernel/tangent.json")["layers"]
    distances = RNG.uniform(5, 15, (40, 50))
    cosines = {
        layer: {when: RNG.uniform(size=(40, 50)) for when in ("before", "after")}
        for layer in layers
    }
    return kernel_plots.against_distance(layers, distances, cosines)


def moved_by():
    tested, top = RNG.uniform(size=(4, 5, 5, 1)), RNG.uniform(size=(4, 5, 5, 5, 1))
    shares = RNG.uniform(0.01, 0.03, (4, 5))
    return kernel_plots.moved_by(tested, top, np.ones((4, 5), int), shares)


def benchmark():
    found = stored("benchmarks/kernel.json")
    for method, of in found["runs"].items():
        found["runs"][method] = {int(count): run for count, run in of.items()}
    return kernel.picture(found)


def infinite_width():
    measures = ("E‖Δ‖²", "‖AY‖², the labels' part", "E‖Δ‖²/E‖f_0‖²")
    lines = {
        f"{twin}, {m}": {time: [*RNG.uniform(size=3)] for time in ("1", "10", "inf")}
        for twin in ("perceptron", "strided")
        for m in measures
    }
    names = ("nearest training image", "brightness", "RBF regression, ℓ = 0.5 medians")
    return kernel_plots.infinite_width(
        lines, {n: [*RNG.uniform(size=3)] for n in names}
    )


def features():
    star, share = np.zeros(2), np.array([0.7, 0.2])
    return feature_plots.feature_scatter(points(*SETS), star, share, "title")


def panels(*names):
    of = pca.Panel(points(*SETS), np.ones(2), np.zeros(2), 0.94, 0.031)
    return dict.fromkeys(names, of)


def moments():
    titles = [f"step {s:,}" for s in (0, 1, 29, 340, 2814)]
    of = {title: (points(*SETS), np.zeros(2)) for title in titles}
    return dynamics_plots.moments(of, np.array([0.7, 0.2]), "title")


def speeds():
    of = {s: {n: RNG.uniform(size=30) for n in SETS} for s in (0, 1, 29, 340, 2814)}
    return dynamics_plots.speeds(of, "logits", "title")


def layers(count):
    sets = {name: RNG.normal(size=(30, count)) for name in SETS}
    return plots.layer_histograms(sets, LAYERS[:count], ["AUROC 0.5"] * count)


def phases(quantity):
    forms = (
        "frozen",
        "linearised 0",
        "linearised 30",
        "untrained",
        "infinite, own f_0",
    )
    kinds = ("ntk", "standard", "mup")
    grids = itertools.product(forms, kinds, ("fc2", "logits"))
    panels = {key: RNG.uniform(size=(4, 8)) for key in grids}
    panels["linearised 30", "ntk", "fc2"][:, :4] = np.nan
    times = [0.15 * 3 * 10**k for k in range(8)]
    at = (32, 128, 512, 2048), times
    return phase_plots.phases(panels, quantity, *at, "title", seeds=5)


# Of Figures 4 and 5: the paper's seven, FSSD without labels, and two rivals.
PAPER = (
    *("fssd clean", "msp", "deep ensemble", "mc dropout"),
    *("outlier exposure, fine-tuned", "odin", "mahalanobis", "fssd"),
    *("control: untrained", "control: pixel stats"),
)


def examples(channels):
    at = np.linspace(1, 9, 9)
    images = {
        name: {k: RNG.uniform(size=(28, 28, channels)) for k in range(start, 9)}
        for name, start in (("OoD", 0), ("in-distribution", 2))
    }
    fssd = {name: RNG.normal(5, 1, 30) for name in images}
    star, share = np.zeros(2), np.array([0.7, 0.2])
    shown = fssd, at, images, points(*images), star, share, "fc1"
    return example_plots.examples(*shown)


def boxes():
    drawn = {name: np.sort(RNG.uniform(size=(5, 6))).tolist() for name in PAPER}
    return shift_plots.boxes(drawn, (1, 2, 3, 4, 5), "title")


def against_noise():
    amounts = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
    noises = dict.fromkeys(("gaussian_noise", "impulse_noise"), amounts)
    curve = lambda: (*np.sort(RNG.uniform(size=(3, 6)), axis=0)[[1, 0, 2]].tolist(),)  # noqa: E731
    curves = {noise: {name: curve() for name in PAPER} for noise in noises}
    return shift_plots.against_noise(curves, noises)


def layers_of_pairs(layers):
    sets = {name: RNG.normal(size=(30, len(layers))) for name in SETS}
    pairs = {"near: cifar6": (sets, layers), "far: cifar6_photos": (sets, layers)}
    titles = dict.fromkeys(pairs, ["AUROC 0.500\nuntrained 0.500"] * len(layers))
    return feature_plots.layers_of_pairs(pairs, titles)


def ensembles(*of):
    """Of stored rows, near and far from perfect."""
    (figure,) = pictures.ensembles([stored(path) for path in of]).values()
    return figure


IND, OOD = RNG.normal(1, 1, 30), RNG.normal(0, 1, 20)
DRAWN = {
    "layers": lambda: layers(4),
    "one layer": lambda: layers(1),
    "histogram": lambda: plots.histogram(IND, {"mnist": OOD, "svhn": OOD - 1}),
    "histograms": lambda: plots.histogram(*[dict.fromkeys(MANY[:5], IND)] * 2),
    "roc": lambda: plots.roc(IND, OOD, "title"),
    "roc of some": lambda: plots.roc(scores(["fssd", "fssd b", "msp", "odin"])),
    "roc of many": lambda: plots.roc(scores(["fssd", *MANY]), title="title"),
    "epsilon": lambda: plots.epsilon_choice(*RNG.uniform(size=(2, 5)), 0.1),
    "ladder": ladder,
    "ensembles": lambda: ensembles("cifar6/table2-0.json", "cifar6/table2-1.json"),
    "ensembles, far": lambda: ensembles("cifar6/table2-mnist-0.json"),
    "ensembles, inverted": lambda: ensembles("fmnist/table2-0.json"),
    "leakage": leakage,
    "dots": dots,
    "train size": train_size,
    "forms": forms,
    "width": lambda: kernel_plots.against_width([widths()]),
    "width, seeds": lambda: kernel_plots.against_width([widths() for _ in range(3)]),
    "detectors": lambda: kernel_plots.detectors([widths()]),
    "detectors, seeds": lambda: kernel_plots.detectors([widths() for _ in range(3)]),
    "drift": lambda: kernel_plots.over_time([stored("kernel/tangent.json")["layers"]]),
    "drift, seeds": lambda: kernel_plots.over_time(
        [of["layers"] for of in stored("kernel/tangent-seeds.json")["runs"]]
    ),
    "rbf": against_distance,
    "contributions": moved_by,
    "infinite width": infinite_width,
    "benchmark": benchmark,
    "phases, error": lambda: phases("error"),
    "phases, error of FSSD": lambda: phases("FSSD error"),
    "phases, rank": lambda: phases("rank"),
    "phases, AUROC": lambda: phases("AUROC"),
    "moments": moments,
    "speeds": speeds,
    "dynamics": over_time,
    "features": features,
    "examples": lambda: examples(1),
    "examples in colour": lambda: examples(3),
    "boxes": boxes,
    "against noise": against_noise,
    "layers of pairs": lambda: layers_of_pairs(LAYERS),
    "layers of pairs, ResNet": lambda: layers_of_pairs(
        ["stem", *(f"stage{i}" for i in range(1, 5)), "logits"]
    ),
    "figure3": lambda: feature_plots.concentration(
        panels("pixels", "normalised pixels", *LAYERS), "title"
    ),
    "figure3 of a ResNet": lambda: feature_plots.concentration(
        panels("pixels", "stem", *(f"stage{i}" for i in range(1, 5)), "a"), "title"
    ),
}
