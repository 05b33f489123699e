"""Beside other libraries: what is compared, and what is told of what is not."""

import json

import numpy as np
import pytest

from benchmarks import libraries, ours

NETWORK = "LeNet"


class Here:
    """A `timed.Worker` without a process; a library's scores are told by the test."""

    theirs = staticmethod(lambda expected: -np.ravel(expected))

    def __init__(self, module, threads):
        self.module = module

    def prepare(self, label, *args, batch):
        of_ours = self.module == "benchmarks.ours"
        method, network, count = args if of_ours else args[1:]
        found = ours.prepare(method, network, count, batch)()
        return found if of_ours else self.theirs(found)

    def seconds(self, label):
        return 1.0 if self.module == "benchmarks.ours" else 1.5

    def close(self):
        pass


def run(folder, monkeypatch, installed, *args):
    monkeypatch.setattr(libraries, "Worker", Here)
    monkeypatch.setattr(libraries, "find_spec", lambda name: name in installed)
    monkeypatch.setattr(libraries.provenance, "version", lambda name: "1")
    few = ["--tiny", "--networks", NETWORK, "--out", str(folder), *args]
    assert libraries.main(few) == 0
    kept = folder / "benchmarks"
    found = json.loads((kept / "libraries.json").read_text())
    return found, (kept / "libraries.md").read_text()


def test_ratios_and_ranks(tmp_path, monkeypatch, capsys):
    both = "pytorch_ood", "oodeel"
    methods = "--methods", "one layer", "one layer, step", "vim"
    found, told = run(tmp_path, monkeypatch, both, *methods)
    of = found["tasks"][NETWORK]
    assert of["vim"]["rank_correlation"] == pytest.approx(
        {"pytorch-ood": 1.0, "oodeel": 1.0}
    )
    assert of["vim"]["seconds"] == {"ours": [1], "pytorch-ood": [1.5], "oodeel": [1.5]}
    assert list(of["one layer, step"]["seconds"]) == ["ours", "pytorch-ood"]
    assert told.count("1.50 [1.50, 1.50]") == 5
    assert "vim" in capsys.readouterr().out


def test_what_scores_otherwise_is_not_compared(tmp_path, monkeypatch):
    """In our own sense, for one: higher for in-distribution."""
    monkeypatch.setattr(Here, "theirs", staticmethod(np.ravel))
    found, told = run(tmp_path, monkeypatch, ("oodeel",), "--methods", "odin")
    of = found["tasks"][NETWORK]["odin"]
    assert of["rank_correlation"] == pytest.approx({"oodeel": -1.0})
    assert list(of["seconds"]) == ["ours"]
    assert found["not_installed"] == ["pytorch-ood"]
    assert libraries.OTHER in told
    assert "Not run, not installed: pytorch-ood." in told


def test_mistakes_are_one_line(tmp_path, capsys):
    for args in (
        *(["--methods", "best"], ["--libraries", "numpy"]),
        *(["--rounds", "0"], ["--threads", "0"]),
    ):
        assert libraries.main([*args, "--out", str(tmp_path)]) == 1
        assert args[0] in capsys.readouterr().err


@pytest.mark.peers
@pytest.mark.usefixtures("operators")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("library", list(libraries.LIBRARIES))
@pytest.mark.parametrize("method", list(libraries.METHODS))
def test_theirs_are_in_our_order(library, method):
    """Where they are installed; ODIN has nothing to fit, so few images are enough."""
    pytest.importorskip(libraries.LIBRARIES[library])
    peers = pytest.importorskip("benchmarks.torch_libraries")
    if method not in peers.LIBRARIES[library]:
        pytest.skip("a method that it does not have")
    scores = np.ravel(peers.prepare(library, method, NETWORK, 96, 32)())
    assert scores.shape == (96,)
    if method == "odin":
        expected = np.ravel(ours.prepare(method, NETWORK, 96, 32)())
        assert np.asarray(libraries.spearmanr(expected, -scores))[0] > 0.999
