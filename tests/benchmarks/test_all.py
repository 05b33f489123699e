"""The whole script at tiny sizes, its workers in this process."""

import importlib
import json
import re
from functools import partial

import numpy as np
import pytest

from benchmarks import all, other_peers, ours, results, tables, tasks
from benchmarks.gates import NOT_RUN, TORCH
from benchmarks.timed import check_equal


class Here:
    """A `timed.Worker` without a process, whose seconds are told."""

    def __init__(self, module, threads):
        self.module, self.prepared = module, []

    def prepare(self, label, task, *args, **setting):
        self.prepared.append((label, task, setting))
        # Whether or not PyTorch is installed, here we stand for it.
        return ours.prepare(task, *args, batch=setting.get("batch", 64))()

    def seconds(self, label):
        return 1.0 if self.module == "benchmarks.ours" else 1.1

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(all, "Worker", Here)
    monkeypatch.setattr(all, "imported", lambda module, rounds: [0.2] * rounds)

    def install(torch: bool):
        found = importlib.util.find_spec("json") if torch else None
        monkeypatch.setattr(all, "find_spec", lambda name: found)
        monkeypatch.setattr(all, "_torch_version", lambda: "2" if torch else NOT_RUN)

    return install


def run(folder, capsys, *args):
    status = all.main([*args, "--networks", "LeNet", "--out", str(folder)])
    found = json.loads((folder / "benchmarks" / "all.json").read_text())
    told = (folder / "benchmarks" / "all.md").read_text()
    captured = capsys.readouterr()
    last = (captured.err if status else captured.out).strip().splitlines()[-1]
    return status, found, told, last


def test_tiny(tmp_path, capsys, here):
    here(torch=False)
    of_none = "fit", "metrics", "import", "first use"
    names = "plain", "one", "training", "mahalanobis", *of_none
    status, found, told, last = run(tmp_path, capsys, "--tiny", "--tasks", *names)
    assert status == 0
    assert list(found["tasks"]["LeNet"]) == list(names[:4])
    assert list(found["tasks"][""]) == list(names[4:])
    assert found["gates"] == []
    assert last == "gates were not looked at"
    assert f"| PyTorch | {NOT_RUN} |" in told
    for task, images in (("plain", 64), ("training", 128)):
        work = found["work"]["LeNet"][task]
        assert 1 < work["counted"] / work["needed"] < 1.05
        assert work["gflops"] == pytest.approx(work["needed"] * images / 1e9)
    assert "| LeNet: training |" in told
    assert found["size"] == "tiny"
    assert found["seconds"] > 0
    assert found["commit"] == results.commit()
    assert f"by the code of commit {found['commit'] or 'unknown'}" in told


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(all.COUNTS, "LeNet", {"plain": 32})
    monkeypatch.setattr(all, "BATCHES", (4, 8))
    monkeypatch.setattr(all, "worked", lambda network, of: {})


@pytest.mark.usefixtures("few")
def test_a_missed_gate_is_the_last_line(tmp_path, capsys, here):
    here(torch=True)
    status, found, told, last = run(tmp_path, capsys, "--quick", "--tasks", "plain")
    assert status == 1
    assert last == (
        "error: missed: LeNet, plain scoring: 1.10 × PyTorch, at least 1.15"
    )
    assert found["gates"][0]["passed"] is False
    assert found["size"] == "quick"
    assert "1.10 [1.10, 1.10] | ≥ 1.15: missed |" in told
    of = found["tasks"]["LeNet"]["plain"]
    assert of["images"] == 8
    assert {k: len(s) for k, s in of["seconds"].items()} == {"ours": 3, TORCH: 3}
    assert set(of["settings"][TORCH]) == {"batch", "channels_last"}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("strict", [False, True])
def test_without_pytorch_it_is_no_pass(tmp_path, capsys, here, strict):
    here(torch=False)
    more = ["--strict"] if strict else []
    args = "--quick", "--tasks", "plain", "import", *more
    status, found, _, last = run(tmp_path, capsys, *args)
    assert status == strict
    assert last.removeprefix("error: ") == (
        "gates passed: 1; not run, which is no pass: 1 (pip install torch)"
    )
    assert [gate["passed"] for gate in found["gates"]] == [None, True]


@pytest.mark.usefixtures("few")
def test_a_peer_that_computes_something_else_is_not_timed(tmp_path, here, monkeypatch):
    here(torch=True)

    def prepare(self, *args, **setting):
        return Here.prepare(self, *args, **setting) * (1 + 2e-4 * self.is_peer)

    class Wrong(Here):
        @property
        def is_peer(self):
            return self.module == "benchmarks.torch_peers"

    Wrong.prepare = prepare
    monkeypatch.setattr(all, "Worker", Wrong)
    args = ["--quick", "--tasks", "plain", "--networks", "LeNet"]
    with pytest.raises(AssertionError, match="LeNet, plain, PyTorch: differs"):
        all.main([*args, "--out", str(tmp_path)])


def test_unknown_names_are_one_line(tmp_path, capsys):
    for option in ("--tasks", "--networks"):
        assert all.main([option, "none", "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {option}: ['none']; choose")
    for option in ("--threads", "--rounds"):
        assert all.main([option, "0", "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(f"error: {option}: 1 ")


@pytest.mark.parametrize("module", tasks.IMPORTED.values())
def test_import_takes_what_it_takes_beyond_jax(monkeypatch, module):
    order = []
    monkeypatch.setattr(all.subprocess, "run", lambda a, check: order.append(a[-1]))
    found = all.imported(module, 2)
    assert len(found) == 2
    assert np.all(np.abs(found) < 1)
    assert order.count("import jax") == order.count(f"import jax, {module}") == 3


def test_a_slow_first_use_of_a_detector_misses_its_gate(tmp_path, capsys, here):
    """The package alone imports nothing, and tells nothing."""
    here(torch=True)
    slow = {"fssd_jax": 0.0, "fssd_jax.detectors.fssd": 2.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all, "imported", lambda module, rounds: [slow[module]] * rounds)
        args = "--quick", "--tasks", *tasks.IMPORTED
        status, found, _, last = run(tmp_path, capsys, *args)
    assert status == 1
    assert [gate["passed"] for gate in found["gates"]] == [True, False]
    assert "import of a detector beyond JAX's: 2.00 s, at most 1.5" in last


def test_the_commit_is_told_where_there_is_git(tmp_path, monkeypatch):
    found = results.commit()
    assert found is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", found)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert results.commit() is None


def test_sheets_name_every_task():
    assert set(tables.WHAT) == set(tasks.PEERS)


@pytest.mark.parametrize(("task", "count"), [("regression", 300), ("kernel", 3)])
def test_other_peers_compute_our_numbers(task, count):
    if task == "kernel":
        pytest.importorskip("analysis.neural_tangents_compat")
    found = other_peers.prepare(task, "", count)()
    check_equal(task, ours.prepare(task, "", count)(), found)


class Answering:
    """A worker whose numbers are given."""

    def __init__(self, numbers):
        self.numbers = numbers

    def prepare(self, *asked, **settings):
        return self.numbers

    def seconds(self, task):
        return 1.0


@pytest.mark.parametrize(("task", "few"), [("plain", False), ("one", True)])
def test_behind_an_input_step_alone_few_scores_may_be_others(task, few, monkeypatch):
    numbers = np.ones((100, 3))
    theirs = numbers.copy()
    theirs[:4, 2] += 0.01  # where a derivative is all but 0
    workers = {"benchmarks.ours": Answering(numbers)}
    monkeypatch.setattr(
        all, "Worker", lambda module, _: workers.get(module, Answering(theirs))
    )
    contenders = all.Contenders(1)
    contenders.theirs = Answering(theirs)  # whether or not PyTorch is installed
    compared = partial(all.compared, contenders, "LeNet", task, 100, 1, True)
    if few:
        assert compared()["images"] == 100
        theirs[:6, 2] = 1.01
    with pytest.raises(AssertionError, match="ours"):
        compared()
