import json
import os

import jax
import numpy as np
import pytest

import fssd_jax
from benchmarks import kernel, watched
from fssd_jax.models import LeNet


def test_all_methods_compute_the_same():
    pytest.importorskip("analysis.neural_tangents_compat")
    rng = np.random.default_rng(0)
    x, tested = rng.uniform(size=(2, 3, 28, 28, 1)).astype(np.float32)
    nu = rng.normal(size=(3, kernel.DIM)).astype(np.float32)
    variables = LeNet().init(jax.random.key(0), x)
    args = fssd_jax.make_feature_fn(LeNet(), [kernel.LAYER]), variables, nu, x, tested
    found = kernel.kernel_free(*args)
    assert found.shape == (3, kernel.DIM)
    scale = np.abs(found).max()
    for size in (3, 2):  # whole, and in blocks that do not divide it
        expected = kernel.explicit(*args, size=size)
        np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_main(tmp_path, monkeypatch):
    runs = iter([{"seconds": 1.0, "peak_gib": 1.0}] + [{"stopped": "memory"}] * 9)
    monkeypatch.setattr(kernel, "measure", lambda *args: next(runs))
    assert kernel.main(["--tiny", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmarks" / "kernel.json").read_text())
    assert list(found["runs"]["explicit"]) == ["2"]  # not tried again after its end
    told = (tmp_path / "benchmarks" / "kernel.md").read_text()
    assert "1.00 s, 1.0 GiB" in told
    assert "> 16 GiB" in told
    assert "not run" in told


def test_a_process_is_measured_and_stopped(monkeypatch):
    config = kernel.Config()
    monkeypatch.setattr(kernel, "WORKER", "print('{\"seconds\": 2}')")
    assert kernel.measure("kernel-free", 1, config)["seconds"] == 2
    greedy = "x = bytearray(300 * 2**20); import time; time.sleep(60)"
    monkeypatch.setattr(kernel, "WORKER", greedy)
    limited = kernel.Config(memory=0.2)
    assert kernel.measure("explicit", 1, limited)["stopped"] == watched.OVER
    short = kernel.Config(seconds=0.5)
    assert kernel.measure("explicit", 1, short)["stopped"] == watched.LATE
    monkeypatch.setattr(kernel, "WORKER", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="explicit', 1"):
        kernel.measure("explicit", 1, config)
    assert watched.resident(os.getpid()) > 0.1
    assert watched.resident(2**22 + 1) == 0
