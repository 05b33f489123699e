"""Where is FSSD a kernel regression? Width × training time × parametrisation × data.

  fssd kernel_phases --preset small --networks perceptron
  fssd kernel_phases --preset small            all of it: hours on two cores

Trains networks by plain SGD and asks, at moments ηt of a run and in every layer, what
predicts the network's features and its FSSD, by the relative error of the displacement,
the rank correlation of FSSD within each set, and the AUROC:
  frozen         Eq. (4) with the kernel before training and the run's own gradients
  linearised τ   the network linearised at step τ, trained by itself
  infinite       networks of infinite width (NTK parametrisation, squared loss, logits):
                 √E FSSD², the one that begins as this network did, and drawn ones
  untrained      FSSD before training
  pixels         the nearest training image, no network

Each cell of the grid is kept when it is done. Killed, the same command goes on; started
several times at once, on one machine or on several with one disk, each takes cells that
no other has. Leaves OUT/kernel_phases/BENCHMARK-NETWORK-DIGEST/ when its cells are
done: the table, phase diagrams, and every number in scores.npz.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any, Literal

import jax
from filelock import FileLock, Timeout
from tqdm import tqdm

from experiments.harness import cli, files, results
from experiments.kernel_study import phase_facts, phase_tables, phase_twins
from experiments.kernel_study.phase_facts import Cell, Numbers, Plan
from experiments.kernel_study.phase_presets import PRESETS, RATES, Preset
from experiments.kernel_study.phase_twins import has_twin
from experiments.kernel_study.setting import Data, draw
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark

Network = Literal["perceptron", "strided", "resnet", "convnet"]


MEASURED = "config.json"  # of the cells beside it


@dataclasses.dataclass(frozen=True)
class Config:
    preset: Literal["tiny", "small", "paper"] = "small"
    """tiny: seconds, means nothing. small: 1,000 training images, 1,000 of each test
    set, looked at after 1, 3, 10, …, 3,000 steps of 100 images (of the convolutional
    networks 1,000), linearised at steps 0 and 30; minutes to an hour on an
    accelerator, many hours on two cores. paper: 10,000 images, 30,000 steps."""
    benchmarks: tuple[
        Literal["fmnist", "mnist", "fmnist6", "digits", "cifar6"], ...
    ] = ("fmnist", "fmnist6", "digits")
    """FashionMNIST with MNIST as OoD, the other way round, six classes of FashionMNIST
    with its other four, digits 0 to 4 with 5 to 9, six classes of CIFAR-10 with its
    other four, in colour."""
    networks: tuple[Network, ...] = ("perceptron", "strided", "resnet")
    """Two hidden layers; LeNet's shape with strides; two residual blocks; LeNet's."""
    losses: tuple[Literal["squared", "cross_entropy"], ...] = (
        *("squared", "cross_entropy"),
    )
    """What is trained with, and the linearised network, too."""
    parametrisations: tuple[Literal["ntk", "standard", "mup"], ...] = (
        *("ntk", "standard", "mup"),
    )
    """One network at the base width (perceptron 128, others 32), and three limits:
    Jacot et al.'s; Flax's own, at a rate ∝ 1/width; muP, Yang and Hu's."""
    widths: tuple[int, ...] | None = None
    """Units or channels; by default the preset's for each network."""
    rate: float | None = None
    """Learning rate at the base width. By default one at which all are stable: 0.15
    for the squared loss, 0.1 if convolutional, and four times as much for the
    cross-entropy. "standard" learns at this times base width / width."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the weights, the order of the images, and the choice of images."""
    kept: Path | None = None
    """Measure nothing: write the results of the cells in this folder, such as the
    results/scores of a machine of another kind, which does not take these cells up."""
    twin: bool = True
    """Compare with the infinitely wide network, on 200 points of each test set, where
    there is one (perceptron, strided; squared loss; ntk); wants neural-tangents."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from this folder's subfolders, and from nowhere else: IDX files in
    fashion_mnist and mnist, class folders of images in cifar10."""


def run(config: Config) -> list[Path]:
    """The results folders: of each set of data and network whose cells are done."""
    preset = PRESETS[config.preset]
    cells = grid(config, preset)
    if config.twin and any(map(has_twin, cells)):
        cli.need_neural_tangents()
    benchmarks = {n: load_benchmark(n, config.data_dir) for n in config.benchmarks}
    folders = {n: kept(config, preset, b) for n, b in benchmarks.items()}
    data: dict[str, list[Data]] = {}
    for cell in tqdm([] if config.kept else cells, desc="cells", disable=None):
        if cell.benchmark not in data:  # one at a time
            drawn = draw_all(config, preset, benchmarks[cell.benchmark])
            data = {cell.benchmark: drawn}
        take(folders[cell.benchmark], cell, config, preset, data[cell.benchmark])
    left = []
    for group in dict.fromkeys((c.benchmark, c.network) for c in cells):
        name, network = group
        of_group = [c for c in cells if (c.benchmark, c.network) == group]
        there = [c for c in of_group if path_of(folders[name], c).exists()]
        missing = [c for c in of_group if c not in there]
        if config.kept and there:
            found = gather(config, preset, benchmarks[name], there, folders[name])
            left.append(leave(config, preset, benchmarks[name], found, folders[name]))
        elif missing:
            print(
                f"{name}, {network}: {len(missing)} of {len(of_group)} cells are with "
                f"other processes, such as {missing[0].name}; when they are done, the "
                "same command writes the results"
            )
        else:
            found = gather(config, preset, benchmarks[name], of_group, folders[name])
            left.append(leave(config, preset, benchmarks[name], found, folders[name]))
    return left


def kept(config: Config, preset: Preset, benchmark: Benchmark) -> Path:
    """The folder of one set of data, where the cells are, and what measured them."""
    place = own(config, preset, benchmark)
    if config.kept is not None:
        return from_elsewhere(config.kept, f"kernel_phases-{benchmark.name}", place)
    files.write_json(files.writable(place.path) / MEASURED, place.facts)
    return place.path


def own(config: Config, preset: Preset, benchmark: Benchmark) -> results.Identity:
    return results.place(
        *(config.out, "scores", f"kernel_phases-{benchmark.name}"),
        *(options_of(config, preset), sets_of(benchmark), phase_facts),
    )


def folder_of_twins(config: Config, preset: Preset, benchmark: Benchmark) -> Path:
    """Those of this machine, wherever the cells were measured."""
    place = results.place(
        *(config.out, "scores", f"kernel_twins-{benchmark.name}"),
        *(options_of(config, preset), sets_of(benchmark), phase_twins),
    )
    return files.writable(place.path)


def from_elsewhere(folder: Path, name: str, place: results.Identity) -> Path:
    """The one folder of that name; `InputError` if its options or data are others."""
    found = sorted(folder.glob(f"**/{name}-*"))
    if len(found) != 1:
        raise InputError(
            f"--kept {folder}: expected one folder {name}-DIGEST in there, found "
            f"{len(found)}; name the folder that holds the one to show"
        )
    measured = files.load_json(found[0] / MEASURED, "measure the cells again")
    for what in ("options", "data"):
        one, other = (known(of.get(what)) for of in (measured, place.facts))
        if one != other:
            raise InputError(
                f"--kept {folder}: {found[0].name} was measured with other {what}: "
                f"{one}, and now they are {other}; give the options that it was "
                "measured with"
            )
    return found[0]


def known(facts: Any) -> Any:
    """As JSON has it; of data, what is in it and not where it was."""
    plain = json.loads(json.dumps(files.plain(facts)))
    if isinstance(plain, dict) and all(
        isinstance(of, dict) and "sha256" in of for of in plain.values()
    ):
        return {name: of["sha256"] for name, of in plain.items()}
    return plain


def options_of(config: Config, preset: Preset) -> dict[str, Any]:
    # Of the widths those that are measured count.
    return {
        "preset": preset._replace(widths={})._asdict(),
        "seeds": config.seeds,
        "rate": RATES if config.rate is None else config.rate,
    }


def plan_of(config: Config, preset: Preset, network: str) -> Plan:
    moments = tuple(m for m in preset.moments if m <= preset.steps[network])
    return Plan(config.seeds, moments, preset.starts, preset.batch_size)


def path_of(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.name}.npz"


def grid(config: Config, preset: Preset) -> list[Cell]:
    """All cells, those of one set of data together; `InputError` if there are none."""
    cells = [
        Cell(benchmark, network, loss, parametrisation, width)
        for benchmark, network, loss, parametrisation in itertools.product(
            config.benchmarks, config.networks, config.losses, config.parametrisations
        )
        for width in config.widths or preset.widths[network]
    ]
    if not cells or not config.seeds:
        raise InputError("--benchmarks, --networks, --losses, --seeds …: one or more")
    if any(c.width < 1 for c in cells) or not (config.rate is None or config.rate > 0):
        raise InputError("--widths: 1 or more; --rate: above 0")
    return cells


def sets_of(benchmark: Benchmark) -> dict[str, Any]:
    ood = next(iter(benchmark.ood.values()))
    return {"train": benchmark.train, "test": benchmark.test, "ood": ood}


def draw_all(config: Config, preset: Preset, benchmark: Benchmark) -> list[Data]:
    sizes = {"train": preset.train, "points": preset.points, "noise": preset.noise}
    return [draw(benchmark, seed, **sizes) for seed in config.seeds]


def rate_of(cell: Cell, config: Config) -> float:
    return config.rate if config.rate is not None else RATES[cell.loss][cell.network]


def take(
    folder: Path, cell: Cell, config: Config, preset: Preset, data: list[Data]
) -> None:
    """Measure one cell, unless it is there, or another process is at it."""
    path = path_of(folder, cell)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if not path.exists():
                plan = plan_of(config, preset, cell.network)
                # Convolutions of several networks at once are slow on a CPU.
                at_once = 1 if jax.default_backend() == "cpu" else len(data)
                rate = rate_of(cell, config)
                found = phase_facts.measure(cell, plan, rate, data, at_once)
                if not has_twin(cell):
                    found = {k: v for k, v in found.items() if "points/" not in k}
                files.save_arrays(path, found)
    except Timeout:
        pass


def gather(
    config: Config,
    preset: Preset,
    benchmark: Benchmark,
    cells: list[Cell],
    folder: Path,
) -> dict[Cell, Numbers]:
    """The numbers of all cells, those of infinite width where they are known."""
    out = {cell: files.load_arrays(path_of(folder, cell)) for cell in cells}
    with_twin = {c: out[c] for c in filter(has_twin, cells if config.twin else ())}
    if with_twin:
        some = next(iter(with_twin))
        data = draw_all(config, preset, benchmark)
        twins = phase_twins.compared(
            with_twin,
            plan_of(config, preset, some.network),
            rate_of(some, config),
            data,
            phase_twins.some_points(data[0], preset.twin_points),
            folder_of_twins(config, preset, benchmark),
        )
        out = {cell: {**out[cell], **twins.get(cell, {})} for cell in cells}
    return out


def leave(
    config: Config,
    preset: Preset,
    benchmark: Benchmark,
    found: dict[Cell, Numbers],
    folder: Path,
) -> Path:
    """The results folder of one set of data and network."""
    rates = {cell: rate_of(cell, config) for cell in found}
    network = next(iter(found)).network
    plan = plan_of(config, preset, network)
    measured = files.load_json(folder / MEASURED, "measure the cells again")
    whole = results.place(
        *(config.out, "kernel_phases", f"{benchmark.name}-{network}"),
        {
            **options_of(config, preset),
            "cells": [cell.name for cell in found],
            "twin": config.twin,
            "measured": measured,
        },
        *(sets_of(benchmark), phase_twins),
    )
    return results.leave(
        whole,
        {**phase_tables.facts(plan, rates, found), "measured": measured},
        phase_tables.to_records(plan, found),
        phase_tables.to_sheets(plan, rates, found),
        phase_tables.figures(plan, rates, found),
        phase_tables.to_arrays(found),
    )


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
