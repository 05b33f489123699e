import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import scoring
from fssd_jax import fssd
from fssd_jax.models import lenet


def test_both_versions_compute_the_same(smooth):
    feature_fn, variables, singularity, x = smooth
    epsilons = jnp.asarray([0.0, 0.1])
    swept = fssd.sweep(feature_fn, variables, singularity, x, epsilons)
    for epsilon, row in zip(epsilons, swept, strict=True):
        recompute = jax.jit(scoring.recomputed, static_argnums=0)
        found = recompute(feature_fn, variables, singularity, x, epsilon)
        np.testing.assert_allclose(row, found, rtol=1e-5)


def test_main(tmp_path, monkeypatch):
    # In this process, because each of its own would compile anew; so without mallopt.
    monkeypatch.setattr(scoring, "_spawn", scoring.work)
    monkeypatch.setattr(scoring, "keep_memory", lambda: None)
    monkeypatch.setattr(scoring, "EPSILONS", (0.0, 0.1))
    for patched in ("max_pool_2x2", "convolve_in_parts"):  # put back later
        monkeypatch.setattr(lenet, patched, getattr(lenet, patched))
    assert scoring.main(["--tiny", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmarks" / "scoring.json").read_text())
    assert list(found["tasks"]) == list(scoring.TASKS)
    assert "times faster" in (tmp_path / "benchmarks" / "scoring.md").read_text()
