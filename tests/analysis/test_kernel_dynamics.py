import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import ntk
from analysis.kernel_dynamics import KernelRecorder
from analysis.kernel_statistics import permutation_null
from fssd_jax import InputError, make_feature_fn
from tests.analysis.following import Normed, X, Y, flat, start

KEY = jax.random.key(0)


def explicit(feature_fn, layer, x, states):
    """1/dim Σ_d Θ_dd of each state, from the whole Jacobian as a matrix."""

    @jax.jit
    def jacobian(variables):
        def of(params):
            return flat(feature_fn, {**variables, "params": params}, x)[layer]

        leaves = jax.tree.leaves(jax.jacrev(of)(variables["params"]))
        return jnp.concatenate([a.reshape(*a.shape[:2], -1) for a in leaves], 2)

    for state in states:
        j = np.asarray(jacobian(state))
        yield np.einsum("idp,jdp->ij", j, j) / j.shape[1]


def test_records_are_of_the_kernels_along_a_loop():
    model = Normed()
    feature_fn = make_feature_fn(model)
    recorder = KernelRecorder(
        *(feature_fn, X, [0, 2, 4], KEY),
        y=Y,
        keep=["logits"],
        batch_size=8,
        permutations=20,
    )
    moved = jax.jit(lambda v, t: jax.tree.map(lambda a: a + t * jnp.cos(30 * a), v))
    run = [moved(start(model), t) for t in np.linspace(0, 0.5, 5)]
    for step, variables in enumerate(run):
        recorder(step, variables)
    assert [record.step for record in recorder.records] == [0, 2, 4]
    states = run[0], run[2], run[4]
    n, h = len(X), np.eye(len(X)) - 1 / len(X)
    labels = (Y[:, None] == Y[None]).astype(float)
    for layer in ("hidden", "logits"):
        kernels = list(explicit(feature_fn, layer, X, states))
        for kernel, record in zip(kernels, recorder.records, strict=True):
            found = record.statistics[layer]
            gap, first = kernel - kernels[0], kernels[0]
            norms = [np.linalg.norm(k) for k in (gap, kernel, first)]
            assert found.drift == pytest.approx(norms[0] / norms[2], rel=1e-3, abs=1e-6)
            cosine = np.trace(kernel @ first.T) / norms[1] / norms[2]
            assert found.distance == pytest.approx(1 - cosine, rel=1e-2, abs=1e-6)
            assert found.trace_mean == pytest.approx(np.trace(kernel) / n, rel=1e-4)
            values = np.linalg.svd(kernel, compute_uv=False)
            p = values / values.sum()
            assert found.effective_rank == pytest.approx(np.prod(p**-p), rel=1e-3)
            assert found.stable_rank == pytest.approx(1 / p[0], rel=1e-3)
            a, b = h @ kernel @ h, h @ labels @ h
            sizes = np.linalg.norm(a) * np.linalg.norm(b)
            assert found.alignment == pytest.approx((a * b).sum() / sizes, rel=1e-3)
            floor = np.trace(a) * np.trace(b) / (n - 1) / sizes
            assert found.alignment_floor == pytest.approx(floor, rel=1e-3)
            null = permutation_null(kernel, Y, KEY)
            debiased = found.debiased_alignment
            assert debiased.value == pytest.approx(null.value, rel=1e-2, abs=1e-4)
            assert debiased.count == 20
            if layer == "logits":
                kept = record.kernels["logits"]
                np.testing.assert_allclose(kept, kernel, rtol=1e-3, atol=1e-4)
        assert recorder.records[2].statistics[layer].drift > 0.01
    assert list(recorder.records[0].kernels) == ["logits"]
    assert "debiased_alignment" in repr(recorder.records[0].statistics["logits"])
    assert "step: 2" in repr(recorder.records[1])


def test_directions_and_permutations_are_the_same_at_every_step(smooth):
    """So a network that rests has kernels that rest, even if they are estimates."""
    feature_fn, variables, _, x = smooth
    recorder = KernelRecorder(
        *(feature_fn, x, [1, 2], KEY),
        y=np.arange(6) % 2,
        layers=["second", "first"],
        directions=2,
        keep=["second"],
    )
    for step in range(3):  # step 0 is not looked at, but is where kernels begin
        recorder(step, variables)
    one, two = (record.statistics for record in recorder.records)
    assert list(one) == ["second", "first"]
    assert one == two
    for found in one.values():
        assert found.drift == 0
        assert found.distance == 0
    (exact,) = explicit(feature_fn, "second", np.asarray(x), [variables])
    estimate = recorder.records[0].kernels["second"]
    assert 1e-3 < np.abs(estimate - exact).max() / exact.max() < 2


@pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None,
    reason="neural-tangents, the extra `ntk`, is not there: it wants JAX below 0.11",
)
def test_exact_kernels_of_any_width(smooth):
    feature_fn, variables, _, x = smooth
    recorder = KernelRecorder(
        feature_fn, x, [0], KEY, directions=None, layers=["first"], keep=["first"]
    )
    recorder(0, variables)
    exact = ntk.tangent_kernel(feature_fn, variables, "first", x, direct=True)
    np.testing.assert_allclose(
        recorder.records[0].kernels["first"], exact, rtol=1e-4, atol=1e-5
    )
    assert recorder.records[0].statistics["first"].alignment is None


def test_a_dead_layer_does_not_end_a_run(smooth):
    """Its kernel is 0, so that it has neither shape nor rank nor alignment."""
    feature_fn, variables, _, x = smooth

    def dead(variables, x):
        found = feature_fn(variables, x)
        return found | {"first": 0 * found["first"]}

    recorder = KernelRecorder(
        dead, x, [0], KEY, y=np.arange(6) % 2, layers=["first"], directions=8
    )
    recorder(0, variables)
    found = recorder.records[0].statistics["first"]
    assert found.trace_mean == 0
    assert np.isnan(found[1:7]).all()
    assert np.isnan(found.debiased_alignment[:4]).all()


def test_labels_may_be_a_kernel(smooth):
    feature_fn, variables, _, x = smooth
    y = np.arange(6) % 2
    kernel = (y[:, None] == y[None]).astype(np.float32)
    found = []
    for labels in (y, jnp.asarray(kernel)):
        recorder = KernelRecorder(feature_fn, x, [0], KEY, y=labels, layers=["logits"])
        recorder(0, variables)
        found.append(recorder.records[0].statistics)
    assert found[0] == found[1]


def test_errors_say_what_to_do(smooth):
    feature_fn, variables, _, x = smooth
    recorder = KernelRecorder(feature_fn, x, [0, 3], KEY)
    with pytest.raises(InputError, match=r"first called at step 3.*at every step"):
        recorder(3, variables)
    with pytest.raises(InputError, match=r"'fc1'.*'first', 'second', 'logits'"):
        KernelRecorder(feature_fn, x, [0], KEY, layers=["fc1"])(0, variables)
    kept = KernelRecorder(feature_fn, x, [0], KEY, layers=["first"], keep=["logits"])
    with pytest.raises(InputError, match=r"'logits'.*\['first'\]"):
        kept(0, variables)
    for y in (np.zeros(5, int), np.zeros(6), np.zeros((6, 3))):
        with pytest.raises(InputError, match=r"6 images, or a kernel \(6, 6\)"):
            KernelRecorder(feature_fn, x, [0], KEY, y=y)
    with pytest.raises(InputError, match="four or more"):
        KernelRecorder(feature_fn, x[:3], [0], KEY, y=np.arange(3))
    with pytest.raises(InputError, match="directions"):
        KernelRecorder(feature_fn, x, [0], KEY, directions=0)
