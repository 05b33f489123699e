"""Whether the rates of `kernel_phases` are below what linear dynamics bear.

python -m tests.by_hand.largest_rates

2/λ of each width of the small preset, of the networks that its seeds begin with, beside
η; exit status 1 if one is above.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import jax
import numpy as np

from analysis.linearised import largest_rate
from analysis.ntk_networks import stable_rate
from experiments.kernel_phases import Config
from experiments.kernel_study.phase_facts import Cell, network_of
from experiments.kernel_study.phase_presets import PRESETS, RATES
from experiments.kernel_study.setting import draw
from fssd_jax.data.benchmarks import load_benchmark


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmark", default="fmnist")
    parser.add_argument("--networks", nargs="+", default=["perceptron"])
    parser.add_argument("--parametrisations", nargs="+", default=["ntk"])
    parser.add_argument("--widths", nargs="+", type=int, help="by default all")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    preset, failed = PRESETS["small"], False
    benchmark = load_benchmark(options.benchmark, options.data_dir)
    counts = {"train": preset.train, "points": 2, "noise": 2}
    seeds = Config().seeds
    x = [draw(benchmark, seed, **counts).x for seed in seeds]
    print("| network | width | 2/λ | η |\n| --- | ---: | ---: | ---: |")
    for network, kind in product(options.networks, options.parametrisations):
        for width in options.widths or preset.widths[network]:
            model = network_of(
                Cell(options.benchmark, network, "squared", kind, width), benchmark
            )
            found = [
                largest_rate(model, model.init(jax.random.key(seed), of[:1]), of)
                for seed, of in zip(seeds, x, strict=True)
            ]
            rate = stable_rate(model, RATES["squared"][network])
            failed |= rate > min(found)
            told = f"{np.min(found):.2f} to {np.max(found):.2f}"
            print(f"| {network}, {kind} | {width} | {told} | {rate} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
