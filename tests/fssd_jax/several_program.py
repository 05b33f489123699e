"""What the tests of several processes run in each: trainings, fits and scores."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

import fssd_jax
from experiments.harness import cli
from fssd_jax import checkpoint, map_batches, processes
from fssd_jax.data.records import Pairs, Records
from fssd_jax.detectors import fssd, knn, mc_dropout
from fssd_jax.features import make_stochastic_logit_fn
from fssd_jax.labelled import moments_of_classes
from fssd_jax.train import train

RNG = np.random.default_rng(0)
# Of the last batch of 16 two of four processes have no row.
X, Y = RNG.random((37, 8, 8, 1), np.float32), np.arange(37) % 3
OOD = RNG.random((21, 8, 8, 1), np.float32) ** 3
HEARTBEAT = 10  # seconds, for the tests not to wait for half a minute
STEPS = {"num_classes": 3, "seed": 1, "epochs": 3, "batch_size": 16, "progress": False}


@dataclasses.dataclass(frozen=True)
class Config(cli.Together):
    """What is run."""

    out: Path = Path()
    what: str = "numbers"
    dies: int = -1
    """Of the process that is killed within the second epoch."""


class Net(nn.Module):
    """A convolution, BatchNorm and dropout."""

    dropped: bool = False  # always, for MC dropout

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        still = not (train or self.dropped)
        x = nn.Dropout(0.3, deterministic=still)(x.reshape(len(x), -1))
        return nn.Dense(3, name="logits")(nn.relu(nn.Dense(128, name="h")(x)))


class Counted:
    """A source that remembers what was read, and kills its process at a record."""

    def __init__(self, times: int = 1, dies: bool = False):
        self.reads: list[int] = []
        self.times, self.dies = times, dies

    def __len__(self) -> int:
        return len(X) * self.times

    def __getitem__(self, number: int):
        self.reads.append(number)
        # In the second of three epochs, of which a process reads 72 records.
        if self.dies and len(self.reads) > 130:
            os.kill(os.getpid(), signal.SIGKILL)
        return X[number % len(X)], Y[number % len(X)]


def trained(x, y=None, **options):
    recipe = lambda *_: optax.sgd(0.02, momentum=0.9)  # noqa: E731
    return train(Net(), x, y, recipe=recipe, **STEPS, **options)


def pooled(feature_fn, variables, _, x):
    return feature_fn(variables, x)


def numbers(out: Path) -> dict[str, np.ndarray]:
    """Of all that several processes share, by name."""
    told: dict[str, np.ndarray] = {}
    plain = trained(X, Y, folder=out / "plain", snapshots=[2])
    outliers = Records(Pairs(OOD, Y[:21]), workers=0)
    more = {"shard_optimiser": True, "folder": out / "sharded"}
    exposed = trained(Records(Pairs(X, Y), workers=2), outliers=outliers, **more)
    for name, run in {"plain": plain, "exposed": exposed}.items():
        told[f"{name}, history"] = run.history
        for path, leaf in jax.tree.leaves_with_path(run.variables):
            told[f"{name}, {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    told["snapshot"] = np.asarray(plain.snapshots[2]["params"]["h"]["kernel"])

    variables = plain.initial  # whose scores do not depend on the training's rounding
    feature_fn = fssd_jax.make_feature_fn(Net(), ["h", "logits"])
    noise = fssd_jax.uniform_noise(jax.random.key(0), 50, X.shape[1:])
    epsilons = (0.0, 0.01)
    fitted = fssd.fit(feature_fn, variables, noise, X, OOD, epsilons=epsilons)
    of = feature_fn, variables
    of_classes = pooled, *of, Records(Pairs(X, Y)), None, 3
    for layer, moments in moments_of_classes(*of_classes, batch_size=16).items():
        told |= {f"class means, {layer}": moments.mean, f"{layer}": moments.scatter}
    states = {
        "fssd": (fssd, fitted),
        "fssd, step": (fssd, fitted._replace(epsilon=np.float32(0.01))),
        "noise": (fssd, fssd.fit(*of, noise)),
        "knn": (knn, knn.fit(*of, X, "h", k=4)),
    }
    for name, (method, state) in states.items():
        scores = map_batches(method.score, *of, state, X, batch_size=16)
        told[f"scores, {name}"] = scores
    of_records = *of, fitted, Records(Pairs(X, Y), workers=0)
    told["scores, records"] = map_batches(fssd.score, *of_records, batch_size=16)
    of_stream = *of, fitted, iter([X[:5], X[5:]])
    told["scores, stream"] = map_batches(fssd.score, *of_stream, batch_size=16)
    dropped = make_stochastic_logit_fn(Net(dropped=True))
    passes = mc_dropout.fit(jax.random.key(1), 3)
    of_dropout = mc_dropout.score, dropped, variables, passes, X
    told["scores, dropout"] = map_batches(*of_dropout, batch_size=16)

    source = Counted()
    map_batches(fssd.score, *of, fitted, Records(source, workers=0), batch_size=16)
    told["records read"] = np.unique(source.reads)
    return told


def run(config: Config) -> None:
    if config.what == "differ":
        processes.check_same("numbers of processes", str(config.process_id))
    if config.what == "numbers":
        told = numbers(config.out)
        final, first = checkpoint.trained(config.out / "plain")
        told["read back"] = np.asarray(final["params"]["h"]["kernel"])
        assert len(jax.tree.leaves(first)) == len(jax.tree.leaves(final))
    else:
        dies = config.process_id == config.dies
        source = Records(Counted(4, dies), workers=0)
        kept = {"folder": config.out / "killed", "save_every_steps": 1}
        found = trained(source, **kept)
        told = {"kernel": np.asarray(found.variables["params"]["h"]["kernel"])}
    np.savez(config.out / f"{config.process_id}.npz", **told)
    assert processes.agreed(lambda: config.process_id) == 0


if __name__ == "__main__":
    processes.HEARTBEAT = HEARTBEAT
    sys.exit(cli.run_main(Config, run, __doc__, None))
