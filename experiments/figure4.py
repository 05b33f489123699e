"""Figure 4: which method tells images from the same images corrupted?

  fssd figure4
  fssd figure4 --methods paper fssd_clean knn --labels ood
  fssd figure4 --benchmark cifar10 --preset paper

In-distribution test images against their copies in the 16 kinds and 5 levels of
ImageNet-C, at the images' own size: at each level a box a method, of the AUROCs over
the kinds. Each method is fitted once, and one fitted state scores all 80 sets. What
chooses by OoD images (ODIN, Mahalanobis, FSSD, MC dropout) is fitted on in-distribution
validation images and as many OoD ones, which --labels names. Beside the methods stand
rivals with the same labels: the whole of FSSD on the untrained network, two numbers of
the pixels; and nearness in pixels and brightness, which want none.

`frost` needs photographs of a package that pip gets (`fssd figure4 --kinds frost` says
which); without it 15 kinds are left. Leaves OUT/figure4/BENCHMARK-SEED-DIGEST/ with the
picture, tables, metrics.json and the score of every image in scores.npz. Weights,
corrupted images and each method's scores are kept in OUT: a killed run goes on at the
kind or the method that it was in.
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
from experiments.comparison.shifted import Box, Shifted
from experiments.harness import cli, files, results
from experiments.harness.records import Record, record
from experiments.harness.sheets import Sheet
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.imagenet_c import LEVELS

TINY_KINDS = ("gaussian_noise", "contrast", "pixelate")  # of the tiny preset


@dataclasses.dataclass(frozen=True)
class Config(MethodOptions):
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, three kinds, means nothing. small: 200 test images in each kind
    and level, 200 validation images of each set; the network has 5 epochs of 10,000
    images, those that some methods need beside it 2; MC dropout has 8 passes. paper:
    all test images, 1,000 validation images, the benchmark's own epochs of the whole
    training set; 32 passes."""
    benchmark: Benchmarks = "fmnist"
    """fmnist: FashionMNIST at 28×28; cifar10: CIFAR-10 at 32×32, cifar6 six of its
    classes; digits: 0-4, for a try; dogs, celeba, ms1m: of the paper's C, E and F. The
    paper's figure is of ImageNet, for which table2 reads ImageNet-C."""
    labels: Literal["corrupted", "ood"] = "corrupted"
    """OoD validation images. corrupted: the in-distribution ones, each in one kind and
    level, as the paper's 1,000 images of each pair of sets would be; ood: those of the
    benchmark's OoD set, so that nothing is known of corruptions."""
    pair: str | None = None
    """Another OoD set for them, by the benchmark's pair: cifar10_mnist, for one."""
    kinds: tuple[str, ...] | None = None
    """Some of the 16 kinds, by name; by default all that can be made."""


def run(config: Config) -> dict[str, Any]:
    preset = with_options(ALL_METHODS[config.preset], config)
    methods = shifted.checked_methods(config.methods)
    kinds, without = shifted.available(
        TINY_KINDS if preset.tiny and config.kinds is None else config.kinds
    )
    files.writable(config.out / "figure4")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    pair = next(iter(benchmark.ood))  # of which nothing is used, but as follows
    if config.labels == "ood":
        pair = pair_of(benchmark, config.pair)
    elif config.pair:
        raise InputError("--pair: wants --labels ood; corrupted images need no OoD set")
    outliers = auxiliary_for(benchmark, methods, config)
    data = [benchmark.train, benchmark.test, benchmark.ood[pair]]
    options = figure_settings.deciding(benchmark, config, preset)
    options |= {"kinds": kinds, "labels": config.labels}
    name = f"{benchmark.name}-{config.seed}"
    place = results.place(
        *(config.out, "figure4", name),
        options | {"methods": methods},
        [*data, *([outliers[0]] if outliers[0] else [])],
        shifted,
    )
    kept = results.place(
        *(config.out, "scores", f"figure4-{name}", options, data, shifted)
    )
    s, facts = ready(benchmark, pair, "paper", config, preset, outliers)
    val_ood = np.asarray(s.val_ood)
    if config.labels == "corrupted":
        val_ood = shifted.corrupted_validation(s.val_ind, kinds, seed=config.seed)
    s = s._replace(val_ood=val_ood)
    made = shifted.corrupted(
        s.test_ind, kinds, seed=config.seed, cache=config.out / "corrupted"
    )
    found = shifted.score(
        *(s, methods, files.writable(kept.path), s.test_ind, [*made.values()]),
        told=lambda name: print(f"{benchmark.name} corrupted: {name}", flush=True),
    )
    facts |= {
        "benchmark": benchmark.name,
        "images": len(s.test_ind),
        "passes": preset.passes,
        "labels": config.labels,
        "labels_of": pair if config.labels == "ood" else None,
        "labelled": [len(s.val_ind), len(val_ood)],
        "without": without,
        **to_facts(found, kinds),
    }
    title = f"{benchmark.name} against itself corrupted: {len(kinds)} kinds"
    figure = shift_plots.boxes(drawn_boxes(facts), LEVELS, title)
    numbers, sheets = to_records(facts), to_sheets(facts)
    arrays = to_arrays(found, kinds)
    results.leave(place, facts, numbers, sheets, {"figure4": figure}, arrays)
    return facts


def to_facts(found: Shifted, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Of each row the AUROCs [kind][level], and a box a level."""
    aurocs = {
        name: of.reshape(len(kinds), len(LEVELS))
        for name, of in shifted.aurocs(found).items()
    }
    return {
        "kinds": kinds,
        "levels": LEVELS,
        "auroc": {name: of.tolist() for name, of in aurocs.items()},
        "boxes": {
            name: [box._asdict() for box in shifted.boxes(of)]
            for name, of in aurocs.items()
        },
        "left_out": found.left_out,
        "failed": found.failed,
    }


def to_arrays(found: Shifted, kinds: tuple[str, ...]) -> dict[str, np.ndarray]:
    """scores.npz: "ROW/in-distribution" [n], "ROW/corrupted" [kind, level, n]."""
    shape = len(kinds), len(LEVELS), -1
    return {
        **{f"{name}/in-distribution": of for name, of in found.ind.items()},
        **{f"{name}/corrupted": of.reshape(shape) for name, of in found.ood.items()},
        "kinds": np.array(kinds),
        "levels": np.array(LEVELS),
    }


def drawn_boxes(facts: dict[str, Any]) -> dict[str, list[list[float]]]:
    return {
        name: [list(box.values()) for box in of]
        for name, of in facts["boxes"].items()
        if is_drawn(name)
    }


def to_records(facts: dict[str, Any]) -> list[Record]:
    """Of each kind and level; no intervals, as both sets are of the same images."""
    keys = {k: facts[k] for k in ("benchmark", "seed", "network")}
    return [
        record("AUROC", value, method=name, condition=f"{kind}, level {level}", **keys)
        for name, of in facts["auroc"].items()
        for kind, of_kind in zip(facts["kinds"], of, strict=True)
        for level, value in zip(facts["levels"], of_kind, strict=True)
    ]


def to_sheets(facts: dict[str, Any]) -> list[Sheet]:
    """By level, and by kind."""
    levels = [
        [name, *(_cell(Box(**box)) for box in of)]
        for name, of in facts["boxes"].items()
    ]
    mean = {name: np.mean(of, axis=1) for name, of in facts["auroc"].items()}
    columns = [name for name in mean if is_drawn(name)]
    by_kind = [
        [kind.replace("_", " "), *(f"{100 * mean[name][k]:.0f}" for name in columns)]
        for k, kind in enumerate(facts["kinds"])
    ]
    of_set = facts["labels_of"]
    whose = f"images of the OoD set of {of_set}" if of_set else "corrupted images"
    of_ind, of_ood = facts["labelled"]
    note = (
        f"AUROC in %, mean [quartiles] over {len(facts['kinds'])} kinds of corruption; "
        f"{facts['images']:,} images and the same corrupted. Fitted once, what chooses "
        f"by OoD images on {of_ind:,} in-distribution and {of_ood:,} "
        f"{whose}. {networks_note(facts)}"
    )
    whole = f"{facts['benchmark']} against itself corrupted"
    without = [f"without {kind}: {why}" for kind, why in facts["without"].items()]
    return [
        Sheet(
            f"{whole}, by level",
            ["method", *(f"level {level}" for level in facts["levels"])],
            levels,
            [note, *missing_notes(facts), *without],
        ),
        Sheet(
            f"{whole}, by kind",
            ["kind", *(name.replace("control: ", "control ") for name in columns)],
            by_kind,
            ["AUROC in %, mean over the levels."],
        ),
    ]


def _cell(box: Box) -> str:
    return f"{100 * box.mean:.0f} [{100 * box.lower:.0f}, {100 * box.upper:.0f}]"


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args, failed=lambda f: list(f["failed"]))


if __name__ == "__main__":
    sys.exit(main())
