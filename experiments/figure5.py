"""Figure 5: are in-distribution and OoD images still told apart when both are noisy?

  fssd figure5
  fssd figure5 --methods paper fssd_clean knn
  fssd figure5 --benchmark cifar10 --preset paper

Gaussian or impulse noise of growing amount is added to the test images of both sets.
Networks and hyper-parameters are those of clean images: each method is fitted once, on
the clean training images and the clean validation images of both sets (protocol
`paper`), and scores every amount. Beside the methods stand rivals: the whole of FSSD on
the untrained network, two numbers of the pixels, nearness in pixels, brightness.

Leaves OUT/figure5/PAIR-SEED-DIGEST/ with the picture, the table, metrics.json and the
score of every image in scores.npz. Weights, noisy images and each method's scores are
kept in OUT: a killed run goes on at the method it was in.
"""

import dataclasses
import sys
from typing import Any, Literal

import numpy as np

from analysis import shift_plots
from experiments.comparison import figure_settings, shifted
from experiments.comparison.figure_settings import (
    ALL_METHODS,
    Benchmarks,
    MethodOptions,
    auxiliary_for,
    pair_of,
    ready,
    with_options,
)
from experiments.comparison.shift_tables import (
    is_drawn,
    missing_notes,
    networks_note,
)
from experiments.comparison.shifted import Shifted
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.imagenet_c import NOISES


@dataclasses.dataclass(frozen=True)
class Config(MethodOptions):
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: 200 test and 200 validation images of
    each set; the network has 5 epochs of 10,000 images, those that some methods need
    beside it 2; MC dropout has 8 passes. paper: all test images, 1,000 validation
    images, the benchmark's own epochs of the whole training set; 32 passes."""
    benchmark: Benchmarks = "fmnist"
    """fmnist: FashionMNIST against MNIST; cifar10: CIFAR-10 against SVHN, as in the
    paper's figure; cifar6: six of its classes against the other four; digits: 0-4
    against 5-9; dogs: ImageNet's dogs against its other images, the paper's other
    panel; celeba, ms1m: the paper's E and F."""
    pair: str | None = None
    """Another OoD set of the benchmark, by its pair: cifar10_mnist, for one."""
    gaussian: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
    """Standard deviations, of pixels in [0, 1]. The paper does not tell its own."""
    impulse: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
    """Shares of the values that become 0 or 1. Likewise."""


def run(config: Config) -> dict[str, Any]:
    preset = with_options(ALL_METHODS[config.preset], config)
    methods = shifted.checked_methods(config.methods)
    amounts = amounts_of(config)
    files.writable(config.out / "figure5")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = pair_of(benchmark, config.pair)
    outliers = auxiliary_for(benchmark, methods, config)
    data = [benchmark.train, benchmark.test, benchmark.ood[pair]]
    options = figure_settings.deciding(benchmark, config, preset)
    options |= {"amounts": amounts}
    place = results.place(
        *(config.out, "figure5", f"{pair}-{config.seed}"),
        options | {"methods": methods},
        [*data, *([outliers[0]] if outliers[0] else [])],
        shifted,
    )
    kept = results.place(
        *(config.out, "scores", f"figure5-{pair}-{config.seed}", options, data, shifted)
    )
    s, facts = ready(benchmark, pair, "paper", config, preset, outliers)
    how = {"seed": config.seed, "cache": config.out / "corrupted"}
    ind, ood = (shifted.noised(x, amounts, **how) for x in (s.test_ind, s.test_ood))
    found = shifted.score(
        *(s, methods, files.writable(kept.path), [*ind.values()], [*ood.values()]),
        told=lambda name: print(f"{pair}, both sets noisy: {name}", flush=True),
    )
    facts |= {"passes": preset.passes, "amounts": amounts}
    facts |= to_facts(found, list(ind))
    figure = shift_plots.against_noise(curves(facts), amounts)
    numbers, sheets, arrays = (
        to_records(facts),
        to_sheets(facts),
        to_arrays(found, facts),
    )
    results.leave(place, facts, numbers, sheets, {"figure5": figure}, arrays)
    return facts


def to_facts(found: Shifted, cells: list[tuple[str, float]]) -> dict[str, Any]:
    """Of each row the AUROC of each noise and amount, the cells, and its interval."""
    return {
        "cells": [list(cell) for cell in cells],
        "auroc": {name: v.tolist() for name, v in shifted.aurocs(found).items()},
        "auroc_ci95": {n: v.tolist() for n, v in shifted.intervals(found).items()},
        "left_out": found.left_out,
        "failed": found.failed,
    }


def to_arrays(found: Shifted, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """scores.npz: "ROW/SET" [cell, image], and each cell's "noise" and "amount"."""
    return {
        **{f"{name}/in-distribution": of for name, of in found.ind.items()},
        **{f"{name}/OoD": of for name, of in found.ood.items()},
        "noise": np.array([kind for kind, _ in facts["cells"]]),
        "amount": np.array([amount for _, amount in facts["cells"]]),
    }


def amounts_of(config: Config) -> dict[str, tuple[float, ...]]:
    """noise → amounts, increasing; those without any are left out."""
    asked = dict(zip(NOISES, (config.gaussian, config.impulse), strict=True))
    if config.preset == "tiny":
        asked = {kind: of[:2] for kind, of in asked.items()}
    found = {kind: tuple(sorted(set(of))) for kind, of in asked.items() if of}
    if not found or any(min(of) < 0 for of in found.values()):
        raise InputError("--gaussian, --impulse: amounts of 0 or more, of one at least")
    if max(found.get("impulse_noise", (0,))) > 1:
        raise InputError("--impulse: shares of the values, 1 at most")
    return found


def curves(facts: dict[str, Any]) -> dict[str, dict[str, tuple]]:
    """noise → row → (AUROC, low, high) of each amount; of the rows that are drawn."""
    found: dict[str, dict[str, tuple]] = {}
    for kind in facts["amounts"]:
        at = [i for i, (noise, _) in enumerate(facts["cells"]) if noise == kind]
        found[kind] = {
            name: (
                [values[i] for i in at],
                *np.array([facts["auroc_ci95"][name][i] for i in at]).T.tolist(),
            )
            for name, values in facts["auroc"].items()
            if is_drawn(name)
        }
    return found


def to_records(facts: dict[str, Any]) -> list[Record]:
    keys = {k: facts[k] for k in ("benchmark", "seed", "network")}
    return [
        record(
            *("AUROC", value, facts["auroc_ci95"][name][i]),
            method=name,
            condition=f"{noise} {amount:g}",
            **keys,
        )
        for name, values in facts["auroc"].items()
        for i, ((noise, amount), value) in enumerate(
            zip(facts["cells"], values, strict=True)
        )
    ]


def to_sheets(facts: dict[str, Any]) -> list[Sheet]:
    """A table a noise."""
    widest = max(
        100 * (high - low) / 2
        for of in facts["auroc_ci95"].values()
        for low, high in of
    )
    images = facts["images"]
    note = (
        f"In %; {images['in-distribution']:,} in-distribution and {images['OoD']:,} "
        f"OoD images, half of a 95 % interval is {widest:.1f} at most. Fitted once, on "
        f"clean images. {networks_note(facts)}"
    )
    sheets = []
    for kind, amounts in facts["amounts"].items():
        at = [i for i, (noise, _) in enumerate(facts["cells"]) if noise == kind]
        rows = [
            [name, *(f"{100 * values[i]:.1f}" for i in at)]
            for name, values in facts["auroc"].items()
        ]
        sheets.append(
            Sheet(
                f"{facts['benchmark']}: AUROC, {kind.replace('_', ' ')} in both sets",
                ["method", *(f"{amount:g}" for amount in amounts)],
                rows,
                [note, *missing_notes(facts)],
            )
        )
    return sheets


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=lambda f: list(f["failed"]))


if __name__ == "__main__":
    sys.exit(main())
