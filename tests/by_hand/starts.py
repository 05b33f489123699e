"""What f_0 does: how much of movement is its undoing, and training from less of it.

python -m tests.by_hand.starts --networks perceptron --widths 32 512 --out FILE.json

Trains the networks of `kernel_phases`' small preset, each as f_θ − (1 − α)f_0: α = 1 is
the network itself, 0 begins at 0. Of its outputs g at the end, over both test sets:
  undone   ‖g_T‖/‖g_T − g_0‖, the error of "g_T = 0", which no kernel is needed for
  AUROC    of FSSD, ‖g_T(x) − g*_T‖
FILE.json has "runs", of which those that are there are not run again, and their flat
records; FILE.md is their table, mean and half of the 95 % interval over five seeds.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import fssd_jax
from analysis.ntk_networks import stable_rate
from experiments.harness.provenance import device, versions
from experiments.harness.records import record
from experiments.harness.results import as_json
from experiments.kernel_phases import Config
from experiments.kernel_study import phases
from experiments.kernel_study.phase_facts import Cell, aurocs, network_of, ratio
from experiments.kernel_study.phase_presets import PRESETS, RATES
from experiments.kernel_study.phase_tables import mean_and_interval
from experiments.kernel_study.setting import LOSSES, draw
from fssd_jax.convolutions import convolve_by_eigen
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.features import make_init_fn

PRESET = PRESETS["small"]
COUNTS = {"train": PRESET.train, "points": PRESET.points, "noise": PRESET.noise}
# What is measured → what its record is, besides.
QUANTITIES: dict[str, dict] = {
    "undone": {"quantity": "relative error", "method": "undone", "set": "both"},
    "AUROC": {"quantity": "AUROC", "method": "network"},
    "accuracy in training": {"quantity": "accuracy", "set": "training"},
    "accuracy": {"quantity": "accuracy", "set": "test"},
}


def measured(cell: Cell, benchmark, data, seed: int, scales) -> dict[float, list]:
    """Scale → `QUANTITIES`, of one seed's network."""
    model = network_of(cell, benchmark)
    rate = stable_rate(model, RATES[cell.loss][cell.network])
    loss, logits = LOSSES[cell.loss], jax.jit(fssd_jax.make_logit_fn(model))
    first = make_init_fn(model)(jax.random.key(seed), data.x[:1])
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    steps = PRESET.steps[cell.network]
    order = phases.orders((seed,), len(x), PRESET.batch_size, steps)[:, 0]

    @jax.jit
    def step(now, numbers, less, before):
        def of(params):
            out = logits({**now, "params": params}, x[numbers])
            return loss(out - less * before[numbers], y[numbers])

        gradient = jax.grad(of)(now["params"])
        down = jax.tree.map(lambda p, g: p - rate * g, now["params"], gradient)
        return {**now, "params": down}

    images = {"x": data.x, "points": data.points, "noise": data.noise}
    begun = {k: outputs(logits, first, v) for k, v in images.items()}
    out = {}
    for scale in scales:
        now = first
        for numbers in tqdm(order, desc=f"{cell.name}-{seed}, {scale:g}", disable=None):
            now = step(now, numbers, 1 - scale, jnp.asarray(begun["x"]))
        ended = {
            k: outputs(logits, now, v) - (1 - scale) * begun[k]
            for k, v in images.items()
        }
        end, start = ended["points"], scale * begun["points"]
        sizes = (np.linalg.norm(v, axis=-1) for v in (end, end - start))
        undone = ratio(*(v[None, :, None] for v in sizes))
        fssd = np.linalg.norm(end - ended["noise"].mean(0), axis=-1)
        half = len(end) // 2
        right = (
            (ended["x"].argmax(-1) == data.y).mean(),
            (end[:half].argmax(-1) == data.labels).mean(),
        )
        found = undone[0, 0], aurocs(fssd[None, :, None])[0, 0], *right
        out[scale] = [float(v) for v in found]
    return out


def outputs(logits, variables, x) -> np.ndarray:
    parts = [x[i : i + phases.POINTS] for i in range(0, len(x), phases.POINTS)]
    return np.concatenate([logits(variables, part) for part in parts])


def written(runs: dict[str, dict[str, float]], path: Path) -> str:
    """Keep them; return their table."""
    rows, of_cells = [], {}
    for name, of in runs.items():
        whole, seed, scale = name.split(", ")
        cell = Cell(*whole.split("-"))
        of_cells.setdefault((whole, scale), []).append(of)
        for key, kind in QUANTITIES.items():
            at = {"condition": f"{cell.loss}, {cell.parametrisation}, {scale}"}
            at |= {"benchmark": cell.benchmark, "network": cell.network}
            at |= {"width": int(cell.width), "seed": int(seed.split()[1])}
            layer = {"layer": "logits"} if "method" in kind else {}
            steps = PRESET.steps[cell.network]
            rows.append(record(value=of[key], step=steps, **layer, **kind, **at))
    facts = {"versions": versions(), "device": device(), "runs": runs}
    path.write_text(as_json(facts, rows))
    table = ["", f"| cell | α | {' | '.join(QUANTITIES)} |", f"| --- |{' ---: |' * 5}"]
    for (whole, scale), found in of_cells.items():
        columns = [told([of[name] for of in found]) for name in QUANTITIES]
        table.append(f"| {whole} | {scale[4:]} | {' | '.join(columns)} |")
    title, _, about = (__doc__ or "").partition("\n")
    text = "\n".join([f"### {title}", *table, "", *about.strip().split("\n\n")[1:2]])
    path.with_suffix(".md").write_text(f"{text}\n")
    return text


def told(of_seeds) -> str:
    mean, low, _ = mean_and_interval(np.array(of_seeds))
    return f"{mean:.3g}" if low is None else f"{mean:.3g} ± {mean - low:.2g}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", default="fmnist")
    parser.add_argument("--networks", nargs="+", default=["perceptron"])
    parser.add_argument("--losses", nargs="+", default=["squared"], choices=LOSSES)
    parser.add_argument("--parametrisations", nargs="+", default=["ntk"])
    parser.add_argument("--widths", nargs="+", type=int, help="by default all")
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0], help="α")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    convolve_by_eigen()
    benchmark = load_benchmark(options.benchmark, options.data_dir)
    seeds = Config().seeds
    data = {seed: draw(benchmark, seed, **COUNTS) for seed in seeds}
    runs = json.loads(options.out.read_text())["runs"] if options.out.exists() else {}
    for network, loss, kind in itertools.product(
        options.networks, options.losses, options.parametrisations
    ):
        for width in options.widths or PRESET.widths[network]:
            cell = Cell(options.benchmark, network, loss, kind, width)
            for seed in seeds:
                names = {
                    s: f"{cell.name}, seed {seed}, α = {s:g}" for s in options.scales
                }
                left = [s for s, name in names.items() if name not in runs]
                found = measured(cell, benchmark, data[seed], seed, left)
                runs |= {
                    names[s]: dict(zip(QUANTITIES, v, strict=True))
                    for s, v in found.items()
                }
                written(runs, options.out)
    print(written(runs, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
