"""What suits a machine changes no result; a run killed within an epoch goes on."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import table2
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, make_setting, prepare
from experiments.harness import weights
from experiments.harness.machine import Machine, reading_all
from fssd_jax import checkpoint
from fssd_jax.data import decoded
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.feed import Feeds
from fssd_jax.train import train
from tests import large_files
from tests.experiments.conftest import near_only
from tests.image_folders import SVHN, drawn, write

ALL = Machine(1, worker_processes=True, shard_optimiser=True, save_every_steps=1)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    large_files.celeb_a(root, per_person=80)
    return root


def test_how_a_machine_is_used_changes_no_number(faces, tmp_path, monkeypatch):
    seen, threads, pool = [], set(), decoded.ThreadPoolExecutor

    def spied(model, x, *args, **how):
        told = how["save_every_steps"], how["shard_optimiser"]
        seen.append((x.workers, x.processes, *told))
        return train(model, x, *args, **how)

    def counted(count):
        threads.add(count)
        return pool(count)

    monkeypatch.setattr(weights.train, "train", spied)
    monkeypatch.setattr(decoded, "ThreadPoolExecutor", counted)
    found, kept = [], []
    for name, machine in {"two": Machine(2), "all": ALL}.items():
        benchmark = reading_all(machine, load_benchmark("celeba", faces))
        out = tmp_path / name
        own = prepare(
            benchmark, 0, Options(tiny=True, train_size=32, out=out), machine=machine
        )
        s = make_setting(own, "celeba", PROTOCOLS["paper"], tiny=True)
        found.append((own.network.variables, own.accuracy, s.val_ood, s.test_ood[:4]))
        kept.append([p.name for p in (out / "weights").iterdir() if p.is_dir()])
    assert seen == [(2, False, 1000, False), (1, True, 1, True)]
    assert threads == {1, 2}
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 1


def test_what_table2_is_told_arrives_and_names_no_result(faces, tmp_path, monkeypatch):
    places = []

    class Told(Exception):
        pass

    def prepared(benchmark, seed, options, *chosen, machine):
        of = table2.Chosen(*chosen)
        at = table2.place(options, benchmark, of, "celeba", 0, None)
        places.append((at.path, at.facts))
        raise Told(benchmark.test.x.workers, benchmark.train.x.processes, machine)

    monkeypatch.setattr(table2, "prepare", prepared)
    config = table2.Config(benchmark="celeba", tiny=True, data_dir=faces, out=tmp_path)
    config = dataclasses.replace(config, methods=("outlier_exposure",))
    for given in ({}, dataclasses.asdict(ALL)):
        own = dataclasses.replace(config, **given)
        with pytest.raises(Told) as told:
            table2.run(own)
        assert told.value.args[:2] == (own.workers, own.worker_processes)
        assert told.value.args[2].save_every_steps == own.save_every_steps
    assert places[0] == places[1]


def test_every_set_of_a_benchmark_is_read_so(faces):
    own = load_benchmark("celeba", faces)
    found = reading_all(Machine(5, True), own._replace(held={"test": own.test}))
    held = found.held or {}
    assert list(held) == ["test"]
    for data in (found.train, found.test, *found.ood.values(), *held.values()):
        part = data.select(slice(4))
        assert (part.x.workers, part.x.processes) == (5, True)
    assert found.train.x.digest(found.train.y) == own.train.sha256
    digits = near_only("digits")
    assert reading_all(Machine(5), digits).train.x is digits.train.x


def test_without_workers_nothing_is_read_ahead(faces):
    x = load_benchmark("celeba", faces).test.x
    alone = reading_all(Machine(0), load_benchmark("celeba", faces)).test.x
    np.testing.assert_array_equal(alone[:5], x[:5])


def test_a_run_killed_within_an_epoch_goes_on(tmp_path, monkeypatch):
    """Of two steps, 128 images: the second alone is made again."""
    monkeypatch.setattr(table2, "load_benchmark", near_only)
    save, batches, starts = checkpoint.keep, Feeds.batches, []

    def killed(folder, progress):
        save(folder, progress)
        assert (progress.epoch, progress.step) == (0, 1)
        raise KeyboardInterrupt

    def spied(self, epoch, start):
        starts.append((epoch, start))
        return batches(self, epoch, start)

    monkeypatch.setattr(Feeds, "batches", spied)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep", killed)
        args = ["--tiny", "--save-every-steps", "1", "--out", str(tmp_path / "killed")]
        assert table2.main(args) == 130
    found = [
        prepare(near_only("digits"), 0, Options(tiny=True, out=tmp_path / name)).network
        for name in ("killed", "whole")
    ]
    assert starts == [(0, 0), (0, 1), (0, 0)]
    jax.tree.map(np.testing.assert_array_equal, *(of.variables for of in found))
    np.testing.assert_array_equal(found[0].history, found[1].history)


def test_other_experiments_save_within_long_epochs_too(tmp_path):
    training = prepare(
        near_only("digits"), 0, Options(tiny=True, out=tmp_path)
    ).training
    assert training.machine == Machine()
    assert training.machine.save_every_steps == 1000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workers", "-1"], "--workers: expected 0 or more, got -1"),
        (["--save-every-steps", "0"], "--save-every-steps: expected 1 or more, got 0"),
        (["--workers", "0", "--worker-processes"], "--worker-processes: needs --work"),
        (["--dtype", "bfloat16"], "--dtype bfloat16: lenet computes in float32 only"),
        (["--benchmark", "all", "--dtype", "bfloat16"], "--dtype: of one benchmark"),
    ],
)
def test_what_could_not_work_is_refused(args, message, tmp_path, capsys):
    assert table2.main([*args, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_network_may_compute_in_bfloat16(tmp_path, monkeypatch):
    """Which decides its results; its parameters stay float32."""

    def near(name, data_dir):
        benchmark = load_benchmark(name, data_dir)
        return benchmark._replace(ood={name: benchmark.ood[name]})

    write(tmp_path / "cifar10" / "train", *drawn(1, 8))
    write(tmp_path / "cifar10" / "test", *drawn(2, 20))
    write(tmp_path / "svhn_cropped" / "test", *drawn(3, 9), SVHN)
    args = ["--benchmark", "cifar6", "--tiny", "--methods", "fssd", "msp"]
    args += ["--data-dir", str(tmp_path), "--out", str(tmp_path)]
    args += ["--dtype", "bfloat16"]
    monkeypatch.setattr(table2, "load_benchmark", near)
    assert table2.main(args) == 0
    (path,) = tmp_path.glob("table2/*/metrics.json")
    told = json.loads(path.read_text())
    assert not told["failed"]
    assert "bfloat16" in told["model"]["name"]
    (kept,) = (tmp_path / "weights").glob("*/")
    variables, _ = checkpoint.trained(kept)
    assert {a.dtype.name for a in jax.tree.leaves(variables)} == {"float32"}
    config = table2.Config(benchmark="cifar6", tiny=True, out=tmp_path)
    benchmark = near("cifar6", tmp_path)
    paths = []
    for dtype in ("bfloat16", "float32"):
        own = dataclasses.replace(config, dtype=dtype)
        chosen = table2.chosen_network(own, benchmark)
        at = table2.place(own, benchmark, chosen, "cifar6", 0, None)
        paths.append(at.path)
    assert paths[0] != paths[1]
