"""Pictures and table of ensembles in docs/results are of the stored rows."""

import json
from collections import defaultdict
from functools import cache
from statistics import mean

import pytest

from website import ensembles
from website.measured import RESULTS

# Of the table in docs/results.md.
PAIRS = {
    "six classes of FashionMNIST against four": "fmnist6",
    "digits 0–4 against 5–9": "digits_near",
    "six classes of CIFAR-10 against four": "cifar6",
    "FashionMNIST against MNIST": "fmnist",
    "digits against photographs": "digits_far",
    "CIFAR-10 against photographs": "cifar6_photos",
    "CIFAR-10 against FashionMNIST": "cifar6_fashion_mnist",
    "CIFAR-10 against MNIST": "cifar6_mnist",
    "ten classes of CIFAR-10 against photographs": "cifar10_photos",
    "ten classes of CIFAR-10 against FashionMNIST": "cifar10_fashion_mnist",
    "ten classes of CIFAR-10 against MNIST": "cifar10_mnist",
}


@cache
def with_ensembles():
    """Pair → results of its seeds that have such rows, in whatever file."""
    found = defaultdict(list)
    for path in sorted(RESULTS.glob("*/*.json")):
        stored = json.loads(path.read_text())
        for result in stored if isinstance(stored, list) else [stored]:
            if "fssd, 3 networks, clean" in result.get("variants", ()):
                found[result["benchmark"]].append(result)
    return found


def test_a_picture_a_pair_of_all_its_seeds():
    drawn = {
        name: figure
        for benchmark in ensembles.BENCHMARKS
        for name, figure in ensembles.drawn(benchmark).items()
    }
    pairs = {name.rpartition("ensembles-")[2].removesuffix(".png") for name in drawn}
    assert pairs == set(with_ensembles()) == set(PAIRS.values())
    for name, figure in drawn.items():
        assert (RESULTS / name).exists()
        title = figure.axes[0].get_title()
        pair = title.partition(",")[0]
        assert f"ensembles-{pair}.png" in name
        seeds = sorted(result["seed"] for result in with_ensembles()[pair])
        told = title.partition(", seed")[2].lstrip("s ")
        assert told == ", ".join(map(str, seeds))


def rows_of_the_table():
    """(pair, "clean" or "labels") → the cells behind."""
    text = (RESULTS.parent / "results.md").read_text().partition("## Ensembles")[2]
    pair, found = "", {}
    for line in text.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[2] in ("clean", "labels"):
            pair = PAIRS.get(cells[0], pair)
            found[pair, cells[2]] = [cells[1], *cells[3:]]
    return found


@pytest.mark.parametrize("how", ["clean", "labels"])
@pytest.mark.parametrize("pair", PAIRS.values())
def test_the_table_is_of_the_stored_rows(pair, how):
    results = with_ensembles()[pair]
    rows = [{**r["methods"], **r["variants"]} for r in results]
    kind = "ResNet" if pair.startswith("cifar") else "LeNet"
    layers = [f"fssd {layer['name']}" for layer in results[0]["layers"]]
    assert all(rows[0][layer]["fitted_on"] == "nothing" for layer in layers)
    best = mean(max(row[k]["auroc"] for k in layers) for row in rows)
    names = [
        "fssd clean" if how == "clean" else "fssd, no input step",
        *(
            f"fssd, {group}, {how}"
            for group in ("3 networks", f"{kind} and perceptron")
        ),
        f"fssd, snapshots, {how}",
    ]
    expected = [f"{100 * mean(row[k]['auroc'] for row in rows):.1f}" for k in names]
    first = [str(len(rows)), f"{100 * best:.1f}"] if how == "clean" else ["", ""]
    assert rows_of_the_table()[pair, how] == [*first, *expected]
