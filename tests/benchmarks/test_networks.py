"""The paper's networks, narrow: each step runs, and lowers for accelerators."""

import json

import jax
import pytest
from jax import export

from benchmarks import networks
from benchmarks.networks import CASES, STEPS


@pytest.fixture
def accelerator(monkeypatch):
    """Where the code asks, it is on no CPU."""
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    yield
    jax.clear_caches()


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.usefixtures("accelerator")
def test_every_step_lowers_for_accelerators(name):
    """At full size, for which no array is needed."""
    case = CASES[name]
    model = case.build()
    variables, center, x, y, seed = networks.shapes(model, case.shape, case.batch)
    for which, step in networks.steps(case, model).items():
        lowered = export.export(jax.jit(step), platforms=["cuda", "tpu"])(
            variables, center, x, y, seed
        )
        assert lowered.platforms == ("cuda", "tpu")
        if which == "scoring":
            assert lowered.out_avals[0].shape == (case.batch, len(model.feature_layers))
        if which == "training":
            shapes = [a.shape for a in lowered.out_avals]
            assert all(a.shape in shapes for a in jax.tree.leaves(variables))


def test_main(tmp_path, monkeypatch):
    def in_process(worker, arguments, memory, seconds):
        if arguments[1] == "step":
            return {"stopped": "memory", "peak_gib": memory}
        return {**networks.work(*arguments), "peak_gib": 1.0}

    monkeypatch.setattr(networks, "watched", in_process)
    args = ["--tiny", "--networks", "LeNet", "--out", str(tmp_path)]
    assert networks.main(args) == 0
    found = json.loads((tmp_path / "benchmarks" / "networks.json").read_text())
    assert list(found["runs"]["LeNet"]) == list(STEPS)
    assert found["runs"]["LeNet"]["training"]["parameters"] == 1_199_882
    told = (tmp_path / "benchmarks" / "networks.md").read_text()
    assert "> 16 GiB" in told
    assert "ms, 1.0 GiB" in told
