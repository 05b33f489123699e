"""Wherever a path is taken, ~ is the user's home, which no shell makes of --out=~/x."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import fssd_jax
from experiments.harness import cli
from fssd_jax import checkpoint, torch_files
from fssd_jax.data import benchmarks, corrupted_sets, imagenet_c, inventory, sources
from fssd_jax.data.needs import NEEDS
from fssd_jax.detectors import msp
from fssd_jax.train import train
from tests.conftest import Smooth

X = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
Y = np.arange(20) % 3


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("results")


def detector(place):
    model = Smooth()
    variables = model.init(jax.random.key(0), X[:1] / np.float32(255))
    fitted = fssd_jax.Fitted("msp", {}, msp.fit())
    fssd_jax.save(f"{place}/a.npz", fitted, variables)
    fssd_jax.load(f"{place}/a.npz", variables)


def training(place):
    settings = {"num_classes": 3, "seed": 0, "epochs": 1, "progress": False}
    train(Smooth(), X, Y, folder=f"{place}/run", **settings)
    checkpoint.trained(f"{place}/run")
    assert checkpoint.recorded(f"{place}/run") == {}


def cache(place):
    imagenet_c.corrupt(X, "contrast", 1, workers=0, cache=place, progress=False)
    assert list(Path(place).expanduser().glob("contrast*"))


def missing(look):
    """What it looks for, which is not there, is in the home."""

    def told(place):
        with pytest.raises(fssd_jax.InputError, match=Path.home().name):
            look(place)

    return told


def option(place):
    seen = []
    assert cli.run_main(Config, seen.append, None, [f"--out={place}/x"]) == 0
    assert seen[0].out == Path.home() / "x"


def checked(place):
    assert str(Path.home()) in inventory.find(NEEDS["B"].needs[0], "test", place)[1][0]


TAKEN = {
    "save": detector,
    "train": training,
    "cache": cache,
    "load": missing(lambda place: sources.load("mnist", "test", place)),
    "in colour": missing(lambda place: sources.load("cifar10", "test", place)),
    "glyphs": missing(lambda place: sources.load("cns_glyphs", "train", place)),
    "genomes": missing(benchmarks.genomes),
    "ImageNet-C": missing(lambda p: corrupted_sets.stream_imagenet_c(p, "fog", 1)),
    "weights": missing(lambda place: torch_files.read(f"{place}/a.pth")),
    "option": option,
    "fssd data": checked,
}


@pytest.mark.parametrize("what", TAKEN)
def test_the_home_is_meant(what, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cli, "start", lambda: None)
    TAKEN[what]("~")


def test_the_variable_may_name_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FSSD_JAX_DATA", "~/data")
    assert sources.fetched_dir() == tmp_path / "data"
