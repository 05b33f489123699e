"""Nothing is fitted on the images that are tested, by any method, nor a threshold."""

import jax
import numpy as np
import pytest

from experiments.comparison import brought
from experiments.comparison.controls import CONTROLS
from experiments.comparison.methods import METHODS
from experiments.comparison.variants import VARIANTS
from fssd_jax.data.benchmarks import split_validation
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset

ALL = METHODS | VARIANTS | CONTROLS
ASKING = [name for name, method in ALL.items() if method.ask is not None]


@pytest.mark.parametrize("name", ASKING)
def test_what_a_method_asks_does_not_depend_on_the_test_images(name, setting):
    """Neither the fitted states, nor what is made of the answers."""
    s = setting.under_clean()
    other = s._replace(test_ind=1 - s.test_ind[:30], test_ood=s.test_ind[30:50])
    rng = np.random.default_rng(0)
    found = []
    for ask in ALL[name].ask(s):
        q = ask.question
        shape = jax.eval_shape(
            lambda x, q=q: q.score(q.apply_fn, s.variables, q.state, x),
            as_input(s.test_ind[:1]),
        ).shape[1:]
        answers = [rng.uniform(1, 2, (7, *shape)).astype(np.float32) for _ in range(2)]
        found.append((ask, answers))
    assert found or name == "no_step"  # which is `clean` itself
    again = ALL[name].ask(other)
    for (ask, answers), twin in zip(found, again, strict=True):
        states = ask.question.state, twin.question.state
        jax.tree.map(np.testing.assert_array_equal, *states)
        rows, of_twin = ask.to_rows(*answers), twin.to_rows(*answers)
        assert list(rows) == list(of_twin)
        for row, twin_row in zip(rows.values(), of_twin.values(), strict=True):
            np.testing.assert_array_equal(row.ind, twin_row.ind)
            np.testing.assert_array_equal(row.ood, twin_row.ood)


def numbered(count, start=0):
    x = (start + np.arange(count, dtype=np.float32))[:, None, None, None]
    return ArrayDataset(x, np.arange(count) % 3, "numbered", "test", "here", "0")


def test_the_parts_of_what_somebody_brought_share_no_image():
    noise = np.zeros((5, 1, 1, 1), np.float32)
    images, shown = brought.split(
        numbered(300), numbered(50, 1000), validation=60, noise=noise, seed=3
    )
    numbers = [
        part.ravel().astype(int)
        for part in (images.validation, images.calibration, images.ind)
    ]
    assert [len(n) for n in numbers] == [30, 30, 240]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(300))
    np.testing.assert_array_equal(shown["in-distribution"].x, images.ind)
    np.testing.assert_array_equal(shown["in-distribution"].y, numbers[2] % 3)
    np.testing.assert_array_equal(shown["OoD"].x, images.ood)
    # Drawn, not cut off.
    assert all(n.max() > 200 and n.min() < 100 for n in numbers)


def test_validation_and_test_images_are_apart():
    parts = split_validation(numbered(300), 60, jax.random.key(0))
    numbers = [part.x.ravel().astype(int) for part in parts]
    assert [len(n) for n in numbers] == [60, 240]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(300))


def test_only_calibration_images_choose_the_threshold(setting, tmp_path, monkeypatch):
    """And only validation images the weights, as told by the distances themselves."""
    s = setting.under_clean()._replace(val_ood=None, training=None, train=None)
    result = {"failed": {}}
    monkeypatch.setattr(brought.report, "measure", lambda *_, **__: (None, result))
    rng = np.random.default_rng(0)
    calibration = rng.uniform(size=(40, *s.test_ind.shape[1:])).astype(np.float32)
    images = brought.Images(s.val_ind, calibration, s.test_ind, s.test_ood, s.noise)
    b = brought.Brought("", s, images, np.zeros(0), {}, {})
    fitted = brought.measure(b, tmp_path, "").fitted

    def distances(x):
        features = s.feature_fn(s.variables, np.float32(x))
        centers = fitted.state.singularity.center
        return np.stack(
            [
                np.linalg.norm(
                    np.asarray(f).reshape(len(x), -1) - np.asarray(centers[k]), axis=1
                )
                for k, f in features.items()
            ],
            axis=1,
        )

    weights = jax.tree.map(np.asarray, fitted.state.ensemble)
    d = np.log(distances(s.val_ind))
    np.testing.assert_allclose(weights.center, d.mean(0), rtol=1e-4)
    np.testing.assert_allclose(weights.scale, d.std(0), rtol=1e-3)
    standard = (np.log(distances(calibration)) - weights.center) / weights.scale
    scores = np.sort(standard @ weights.alpha)
    # ⌊41 · 0.05⌋ = 2: the second smallest.
    assert fitted.config["threshold"] == pytest.approx(scores[1], rel=1e-3)
