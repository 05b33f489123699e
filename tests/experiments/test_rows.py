"""Scores of methods on disk: whole, or an error that says what to do."""

import numpy as np
import pytest

from experiments.comparison import rows
from experiments.comparison.rows import LayerScores, Scored
from fssd_jax import InputError


def example():
    rng = np.random.default_rng(1)
    d = [rng.normal(size=(n, 2)).astype(np.float32) for n in (5, 4, 5, 4)]
    layers = LayerScores(
        ["a|b", "c"], [3, 4], np.ones(2), np.ones(2), 0.1, np.zeros(0), np.zeros(0), *d
    )
    return {
        "one": Scored(d[0][:, 0], d[1][:, 0], note="ε = 0.1", layers=layers),
        "two, of|two": Scored(d[0][:, 1], d[1][:, 1], seconds=0.5),
    }


def test_scores_survive_the_disk(tmp_path):
    rows.save(tmp_path / "a.npz", example())
    found = rows.load(tmp_path / "a.npz")
    assert list(found) == list(example())
    for name, row in example().items():
        for field, value in row._asdict().items():
            if field != "layers":
                np.testing.assert_array_equal(getattr(found[name], field), value)
    expected, layers = example()["one"].layers, found["one"].layers
    assert expected is not None
    assert layers is not None
    for a, b in zip(layers, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_damaged_scores_are_an_error_that_says_what_to_do(tmp_path):
    rows.save(tmp_path / "a.npz", example())
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no scores"):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="delete it, and what it held is comp"):
            rows.load(tmp_path / "a.npz")
