"""Figure 2: features and their moving speed (Eq. 3) while a LeNet is trained.

  python -m experiments.figure2

MNIST in-distribution, FashionMNIST OoD, uniform noise for F*. At log-spaced steps: the
distance to F*, the displacement from initialisation, and the speed ‖dF/dt‖ of every
probe image, in every layer; the last layer in one fixed basis of principal components.
Leaves OUT/figure2/BENCHMARK-SEED-DIGEST/ with the three pictures, metrics.json and
dynamics.npz, the data behind them. A killed run begins anew: it takes minutes.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import fssd_jax
from analysis import dynamics_plots, pca
from analysis.dynamics import NOISE, Record, Recorder, log_steps, make_loss_fn
from experiments import common, pages, tables
from experiments.figure3 import draw
from fssd_jax import metrics, train
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import Benchmark, load_benchmark
from fssd_jax.models import LeNet

_NOISE, _IND, _OOD, _GRADIENT = range(400, 404)  # what a key is for
QUANTITIES = ("distance", "displacement", "speed")
LAYER = "logits"  # the last one: of the scatter plot


@dataclasses.dataclass(frozen=True)
class Config:
    benchmark: Literal["mnist", "fmnist", "digits"] = "mnist"
    """mnist: MNIST in-distribution, FashionMNIST OoD, as in the paper's figure."""
    epochs: int = 3
    """Of the released recipe (Adadelta). The paper does not say how many it shows."""
    seed: int = 0
    """Of the weights and the order of the images."""
    probes: int = 500
    """Images of each probe set, drawn once."""
    gradient: int = 2000
    """Training images, drawn once, of which −∇L of Eq. (3) is taken; 0: those of the
    step itself."""
    moments: int = 24
    """Log-spaced steps at which to look."""
    out: Path = Path("results")
    """Where results go."""
    data_dir: Path | None = None
    """Take the data from IDX files in this folder's subfolders fashion_mnist and
    mnist, and from nowhere else."""


def run(config: Config) -> dict[str, Any]:
    if min(config.epochs, config.probes, config.moments) < 2:
        raise InputError("--epochs, --probes and --moments: 2 or more each")
    benchmark = load_benchmark(config.benchmark, config.data_dir)
    records = record(config, benchmark)
    layers = list(LeNet.feature_layers)
    facts = {
        "benchmark": benchmark.name,
        **{f: getattr(config, f) for f in ("epochs", "seed", "probes", "gradient")},
        "data": [d.sha256 for d in (benchmark.train, benchmark.test)],
        "steps": [r.step for r in records],
        "layers": {layer: summary(records, k) for k, layer in enumerate(layers)},
        "versions": common.versions(),
        "device": common.device(),
    }
    own = ("fssd_jax/**/*.py", "analysis/dynamics.py", "experiments/figure2.py")
    options = dataclasses.asdict(config)
    digest = common.config_digest([options, common.code_digest(own)])
    path = common.writable(config.out / "figure2") / f"{benchmark.name}-{config.seed}"
    path = path.with_name(f"{path.name}-{digest}")
    shown = spread_out(records, 5)
    with common.results_folder(path) as target:
        np.savez_compressed(target / "dynamics.npz", **arrays(records))  # pyright: ignore[reportArgumentType]
        last = {r.step: _of_layer(r, "speed", -1) for r in shown}
        steps, of_layers = facts["steps"], facts["layers"]
        figures = {
            "figure2a": scatter(records, shown),
            "figure2b": dynamics_plots.speeds(last, LAYER),
            "dynamics": dynamics_plots.over_time(steps, of_layers, QUANTITIES),
        }
        sheet = to_sheet(facts, [r.step for r in shown])
        pages.leave(target, options, facts, sheet, figures)
    print(f"results: {path}")
    return facts


def record(config: Config, benchmark: Benchmark) -> list[Record]:
    """Train, with the recorder along."""
    ood = next(iter(benchmark.ood.values()))
    shape = benchmark.train.x.shape[1:]
    key = jax.random.key(_NOISE)
    probes = {
        "in-distribution": draw(benchmark.test.x, config.probes, _IND),
        "OoD": draw(ood.x, config.probes, _OOD),
        NOISE: np.asarray(fssd_jax.uniform_noise(key, config.probes, shape)),
    }
    data = None
    if config.gradient:
        order = jax.random.permutation(
            jax.random.key(_GRADIENT), len(benchmark.train.x)
        )
        part = benchmark.train.select(np.sort(np.asarray(order)[: config.gradient]))
        data = part.x, part.y
    model = LeNet(benchmark.num_classes, benchmark.mean, benchmark.std)
    batch_size = min(64, len(benchmark.train.x))
    total = config.epochs * (len(benchmark.train.x) // batch_size)
    recorder = Recorder(
        fssd_jax.make_feature_fn(model),
        make_loss_fn(model),
        probes,
        log_steps(total, config.moments),
        data=data,
        keep=[LAYER],
    )
    trained = train.train(
        model,
        benchmark.train.x,
        benchmark.train.y,
        num_classes=benchmark.num_classes,
        seed=config.seed,
        epochs=config.epochs,
        batch_size=batch_size,
        on_step=recorder,
    )
    x, y = data or (benchmark.train.x[:batch_size], benchmark.train.y[:batch_size])
    recorder(total, trained.variables, None, x, y)
    return recorder.records


def _of_layer(record: Record, quantity: str, k: int) -> dict[str, np.ndarray]:
    return {name: of[quantity][:, k] for name, of in record.movements.items()}


def summary(records: list[Record], k: int) -> dict[str, Any]:
    """quantity → set → quartiles at each moment, and the AUROC of the quantity.

    "moved" is by the step that the optimiser took, which the end does not have.
    """
    found: dict[str, Any] = {}
    for quantity in (*QUANTITIES, "moved"):
        of_steps = [
            _of_layer(r, quantity, k)
            for r in (records[:-1] if quantity == "moved" else records)
        ]
        found[quantity] = {
            name: np.percentile([of[name] for of in of_steps], [25, 50, 75], axis=1).T
            for name in of_steps[0]
        }
        found[quantity]["auroc"] = [
            metrics.auroc(of["in-distribution"], of["OoD"]) for of in of_steps
        ]
    return found


def to_sheet(facts: dict[str, Any], shown: list[int]) -> tables.Sheet:
    """Medians and AUROC of each quantity at the steps shown."""
    rows, at = [], [facts["steps"].index(step) for step in shown]
    for layer, of in facts["layers"].items():
        for quantity in QUANTITIES:
            for name in ("in-distribution", "OoD", NOISE):
                medians = [f"{of[quantity][name][i][1]:.3g}" for i in at]
                rows.append([layer, quantity, f"median, {name}", *medians])
            found = [f"{100 * of[quantity]['auroc'][i]:.1f}" for i in at]
            rows.append([layer, quantity, "AUROC", *found])
    return tables.Sheet(
        f"{facts['benchmark']}, seed {facts['seed']}: who moves, and how fast (Eq. 3)",
        ["layer", "quantity", "of", *(f"step {step:,}" for step in shown)],
        rows,
        [f"{facts['probes']} images of each set; AUROC in %, in-distribution first."],
    )


def spread_out(records: list[Record], count: int) -> list[Record]:
    """The first, the last, and some between, about evenly among the moments."""
    chosen = np.linspace(0, len(records) - 1, min(count, len(records)))
    return [records[i] for i in np.rint(chosen).astype(int)]


def scatter(records: list[Record], shown: list[Record]):
    """The last layer at some moments, in the basis of the end."""
    ends = records[-1].features
    basis = pca.fit(np.concatenate([ends[name][LAYER] for name in ends]))
    panels = {
        f"step {r.step:,}": (
            {name: pca.project(basis, of[LAYER]) for name, of in r.features.items()},
            pca.project(basis, np.asarray(r.singularity.center[LAYER])[None])[0],
        )
        for r in shown
    }
    return dynamics_plots.moments(panels, basis.share)


def arrays(records: list[Record]) -> dict[str, np.ndarray]:
    """All numbers behind the pictures: "quantity/set" → [moment, image, layer]."""
    found = {"steps": np.array([r.step for r in records])}
    for name in records[0].movements:
        for quantity in QUANTITIES:
            found[f"{quantity}/{name}"] = np.stack(
                [r.movements[name][quantity] for r in records]
            )
        for quantity in records[0].movements[name].keys() - set(QUANTITIES):
            found[f"{quantity}/{name}"] = np.stack(
                [r.movements[name][quantity] for r in records[:-1]]
            )
        found[f"{LAYER}/{name}"] = np.stack([r.features[name][LAYER] for r in records])
    return {name: a.astype(np.float32) for name, a in found.items()}


def main(args: list[str] | None = None) -> int:
    return common.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
