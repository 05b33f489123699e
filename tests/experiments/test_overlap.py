"""Outliers to train on are no images of the benchmark, wherever they come from."""

import re

import numpy as np
import pytest

from experiments.comparison.chosen import outliers_for
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import digits


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
