"""What decides the numbers of a kernel study is neither its tables nor its pictures."""

from collections import OrderedDict

import jax
import numpy as np
import pytest

import fssd_jax
from experiments.harness.keys import Use
from experiments.harness.provenance import import_closure
from experiments.kernel_study import untrained
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


def test_the_plane_of_a_picture_tells_what_it_does_not_show():
    """Of noise that spreads across the plane, and of all sets together."""
    rng = np.random.default_rng(0)
    images, noise = (0.09, 0.04, 0, 0), (0, 0.001, 0.01, 0.01)  # deviations
    axes = {"in-distribution": images, "OoD": images, "noise": noise}
    probes = {
        name: (0.5 + rng.normal(size=(50, 4)) * of).astype(np.float32)
        for name, of in axes.items()
    }
    feature_fn = lambda variables, x: OrderedDict(layer=0.1 * x)  # noqa: E731
    star = fssd_jax.estimate_singularity(feature_fn, {}, probes["noise"])
    panel = untrained.coordinates(feature_fn, {}, star, probes)["layer"]
    features = {name: 0.1 * x.astype(np.float64) for name, x in probes.items()}
    whole = np.concatenate([*features.values()])
    values, vectors = np.linalg.eigh(np.cov(whole.T))
    assert panel.share == pytest.approx(values[-2:].sum() / values.sum(), rel=1e-4)
    away = features["noise"] - features["noise"].mean(0)
    seen = (away @ vectors[:, -2:]) ** 2
    assert panel.of_noise == pytest.approx(seen.sum() / (away**2).sum(), rel=1e-3)
    assert panel.of_noise < 0.05 < 0.9 < panel.share
    np.testing.assert_allclose(
        panel.star, panel.points["noise"].mean(0), rtol=1e-4, atol=1e-4
    )
