"""The stored outputs of PyTorch: up to date, small, and telling differences."""

import numpy as np
import pytest

from tests.fssd_jax import references

PARTS = [*references.NETWORKS, "training", "lstm", "sgd"]


def test_they_are_small_and_complete():
    found = {path.stem: path.stat().st_size for path in references.FOLDER.iterdir()}
    assert found.keys() == {*PARTS, "corruptions"}  # make_corruptions.py
    assert sum(found.values()) < 300_000


@pytest.mark.peers
@pytest.mark.parametrize("part", PARTS)
def test_pytorch_makes_them_anew(part):
    stored, made = references.read(part), references.make(part)
    # Training divides by small standard deviations: another processor rounds otherwise.
    limit = 1e-4 if part == "training" else 1e-5
    assert stored.keys() == made.keys()
    for name, a in made.items():
        if a.dtype.kind == "f":
            gap = np.linalg.norm(stored[name] - a)
            assert gap < limit * np.linalg.norm(a), name
        else:
            np.testing.assert_array_equal(stored[name], a, name)


@pytest.mark.parametrize("size", [7, 300, 40_000])
def test_a_digest_tells_how_far_arrays_are_apart(size):
    rng = np.random.default_rng(0)
    a, gap = rng.normal(size=(2, size))
    expected = references.digest(a)
    assert len(expected) == min(size, 256)
    # Of all numbers, of a tenth, and of a single one: the estimate is within 5 σ.
    for share in (1, 10, size):
        here = np.arange(size) % share == 0
        true = np.linalg.norm(gap * here) / np.linalg.norm(a)
        assert references.error(a + gap * here, expected) == pytest.approx(
            true, rel=0.3
        )
    swapped = a.copy()
    swapped[:2] = a[1::-1]
    assert references.error(swapped, expected) > 0.1 * size**-0.5
