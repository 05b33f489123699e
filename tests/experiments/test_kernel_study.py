"""What decides the numbers of a kernel study is neither its tables nor its pictures."""

import jax
import numpy as np
import pytest

import fssd_jax
from experiments.harness.keys import Use
from experiments.harness.provenance import import_closure
from experiments.kernel_study.setting import draw
from fssd_jax.data.benchmarks import load_benchmark

MEASURING = ("forms", "infinite", "movement", "tangent", "untrained")
WORDING = {
    *("experiments.harness.results", "experiments.harness.sheets"),
    *("analysis.plots", "analysis.kernel_plots", "analysis.dynamics_plots"),
    *("analysis.style", "analysis.auroc_plots"),
    *("experiments.harness.records", "experiments.kernel_study.records"),
}


@pytest.mark.parametrize("module", MEASURING)
def test_a_reworded_table_changes_no_digest(module):
    found = set(import_closure(f"experiments.kernel_study.{module}"))
    assert "fssd_jax.data.benchmarks" in found
    assert not found & WORDING
    ours = {name for name in found if name.startswith("experiments.")}
    assert all(name.split(".")[1] in ("harness", "kernel_study") for name in ours)


def test_draws_are_those_of_their_keys():
    """Bit by bit: every stored result was drawn by these."""
    benchmark = load_benchmark("digits")
    data = draw(benchmark, 3, train=10, points=7, noise=4)
    key = jax.random.key(3)
    count = len(benchmark.train.x)
    order = jax.random.permutation(jax.random.fold_in(key, 202), count)
    expected = benchmark.train.y[np.sort(np.asarray(order)[:10])]
    np.testing.assert_array_equal(data.y, expected)
    noise = fssd_jax.uniform_noise(jax.random.fold_in(key, 200), 4, data.x.shape[1:])
    np.testing.assert_array_equal(data.noise, noise)
    assert len(data.points) == 14
    kernel = [use for use in Use if use.name.startswith("KERNEL")]
    assert sorted(kernel) == [200, 201, 202, 203, 204]
