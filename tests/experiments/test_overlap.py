"""No set stands in for another: outliers of a benchmark, and sets that are brought."""

import re

import numpy as np
import pytest

from experiments.comparison.chosen import outliers_for
from experiments.comparison.overlap import identities, tell_shared
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import digits
from fssd_jax.data.sources import ArrayDataset


def saved(path, x):
    np.savez(path, x=x)
    return str(path)


@pytest.mark.parametrize("of", ["train", "test", "digits_near", "digits_far"])
def test_an_image_of_any_set_is_refused(of, tmp_path):
    benchmark = digits()
    own = {"train": benchmark.train, "test": benchmark.test, **benchmark.ood}[of]
    shape = 20, *own.x.shape[1:]
    others = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    some = own.x[3:5]
    if some.dtype != np.uint8:  # as they would be kept in image files
        some = (255 * some).round().astype(np.uint8)
    path = saved(tmp_path / "others.npz", others)
    found, _ = outliers_for(benchmark, path, None)
    assert found is not None
    assert len(found.x) == 20
    path = saved(tmp_path / "some.npz", np.concatenate([others, some]))
    told = f"2 of its 22 images are images of digits, too, in {own.name}/{own.split}"
    with pytest.raises(InputError, match=re.escape(told)):
        outliers_for(benchmark, path, None)


def of_rows(x, name="x"):
    return ArrayDataset(x, np.zeros(len(x), np.int32), name, "all", name, name)


@pytest.mark.parametrize("shape", [(6, 6, 1), (7,)])  # images, and features
def test_sets_that_share_some_rows_are_told_and_all_refused(shape):
    rng = np.random.default_rng(0)
    x = rng.random((30, *shape)).astype(np.float32)
    if len(shape) == 1:
        x = 100 * x - 50
    names = {"ind": "a.npz", "ood": "b.npz", "train": "c.npz"}

    def told(*parts):
        sets = zip(names, (of_rows(x[part]) for part in parts), strict=True)
        tell_shared(dict(sets), names)

    told(slice(10), slice(10, 20), slice(20, 30))  # a warning would be an error
    message = r"a\.npz and c\.npz have 3 rows in common, of 10 and 13"
    with pytest.warns(UserWarning, match=message):
        told(slice(10), slice(10, 20), [*range(20, 30), 0, 4, 9])
    for part in (slice(2, 8), slice(12)):
        with pytest.raises(InputError, match=r"a\.npz and b\.npz hold the same"):
            told(slice(10), part, slice(20, 30))


def test_the_same_image_in_bytes_and_floats_is_one():
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    assert identities(x) == identities(x / np.float32(255))
