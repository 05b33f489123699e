"""Figures 1, 4, 5 and 6 of the paper's large sets: small ones of the real layouts.

pytest -m slow tests/experiments/test_large_figures.py
"""

import jax
import numpy as np
import pytest

from experiments import figure1, figure4, figure5, figure6
from experiments.comparison import figure_settings, shifted
from experiments.comparison.figure_settings import TINY, drawn
from experiments.comparison.shifted import Stacked
from experiments.harness.machine import reading_all
from fssd_jax.checks import InputError
from fssd_jax.data import imagenet, imagenet_c
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.imagenet import DOGS
from tests import image_folders, large_files
from tests.experiments.test_figures import the_only
from tests.experiments.test_trained_figures import by_sklearn

SYNSETS = (*DOGS[:2], "n01440764", "n02114367")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    large_files.imagenet(root, (40, 20), SYNSETS)
    large_files.ms1m(root, (12, 20))
    large_files.jpegs(root / "ijb_c" / "test", 40, (130, 120), 0)
    for i, split in enumerate(("train", "test")):
        image_folders.write(root / "cifar10" / split, *image_folders.drawn(i, 8))
        svhn = image_folders.drawn(i + 2, 8)
        image_folders.write(root / "svhn_cropped" / split, *svhn, image_folders.SVHN)
    return root


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(shifted, "RIVALS", ("pixel_stats", "brightness"))
    monkeypatch.setattr(imagenet, "DOGS", DOGS[:2])
    monkeypatch.setattr(imagenet, "PER_BREED", (8, 30))


def made(script, data, out, *args):
    name = script.__name__.rpartition(".")[2]
    common = ["--preset", "tiny", "--data-dir", str(data), "--out", str(out)]
    assert script.main([*common, *args]) == 0
    path, facts, arrays = the_only(out / name)
    assert (path / f"{name}.png").stat().st_size > 1000
    return facts, arrays


@pytest.mark.slow
def test_figure1_is_of_faces_against_imagenet(data, tmp_path, monkeypatch):
    seen = []

    def watched(*args, **kwargs):
        found = figure_settings.ready(*args, **kwargs)
        seen.append(found.setting)
        return found

    monkeypatch.setattr(figure1, "ready", watched)
    of = ["--benchmark", "ms1m", "--pair", "ms1m_imagenet", "--workers", "1"]
    facts, arrays = made(figure1, data, tmp_path, *of)
    (s,) = seen
    assert isinstance(s.test_ind, Decoded)
    assert isinstance(s.test_ood, Decoded)
    assert (s.test_ind.workers, s.test_ood.workers) == (1, 1)
    assert s.test_ood.shape == (16, 112, 112, 3)
    files = [str(s.test_ood.source.files[i]) for i in s.test_ood.numbers]
    assert all("imagenet2012/val" in file for file in files)
    sets = ("in-distribution", "OoD")
    assert facts["auroc"]["fssd"] == by_sklearn(*(arrays[f"fssd/{k}"] for k in sets))


def test_figure1_tells_what_it_lacks(data, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("ms1m", "ijb_c"):
        (tmp_path / "data" / name).symlink_to(data / name)
    config = figure1.Config(
        benchmark="ms1m",
        pair="ms1m_imagenet",
        data_dir=tmp_path / "data",
        out=tmp_path,
    )
    with pytest.raises(InputError, match=r"ms1m_imagenet: not here: imagenet2012/val"):
        figure1.run(config)


@pytest.mark.slow
def test_figure4_of_dogs(data, tmp_path):
    of = ["--benchmark", "dogs", "--methods", "msp", "fssd_clean"]
    facts, arrays = made(figure4, data, tmp_path, *of)
    assert not facts["failed"]
    for row, of_kinds in facts["auroc"].items():
        inside, outside = arrays[f"{row}/in-distribution"], arrays[f"{row}/corrupted"]
        found = [[by_sklearn(inside, x) for x in of_kind] for of_kind in outside]
        assert of_kinds == found


@pytest.mark.slow
def test_figure5_of_dogs(data, tmp_path):
    """No noise scores what the images themselves do, and much noise another thing."""
    of = ["--benchmark", "dogs", "--methods", "msp", "fssd_clean"]
    facts, arrays = made(figure5, data, tmp_path, *of, "--gaussian", "0", "0.5")
    assert facts["benchmark"] == "dogs"
    assert facts["cells"][:2] == [["gaussian_noise", 0.0], ["gaussian_noise", 0.5]]
    assert not facts["failed"]
    for row, of_row in facts["auroc"].items():
        for k, value in enumerate(of_row):
            pair = (arrays[f"{row}/{name}"][k] for name in ("in-distribution", "OoD"))
            assert value == by_sklearn(*pair)
    for name in ("in-distribution", "OoD"):
        scores = arrays[f"msp/{name}"]
        np.testing.assert_array_equal(scores[0], scores[2])  # impulses of no image
        assert np.abs(scores[1] - scores[0]).max() > 1e-3


@pytest.mark.slow
def test_figure6_is_of_two_networks(data, tmp_path):
    facts, arrays = made(figure6, data, tmp_path, "--benchmark", "dogs")
    assert facts["pairs"] == {"near": "dogs", "far": "cifar10"}
    assert facts["networks"]["dogs"]["network"] == "resnet34"
    assert facts["networks"]["cifar10"]["network"] == "cifar_resnet34"
    for pair, layers in facts["layers"].items():
        for k, (_, of) in enumerate(layers.items()):
            sets = ("in-distribution", "OoD")
            d = (arrays[f"{pair}/trained/{name}"][:, k] for name in sets)
            assert of["trained"] == by_sklearn(*d)


def test_figure6_has_two_networks_for_dogs(data, tmp_path):
    config = figure6.Config(benchmark="dogs", data_dir=data, out=tmp_path)
    benchmarks, pairs = figure6.near_and_far(config)
    assert pairs == {"near": "dogs", "far": "cifar10"}
    assert benchmarks["dogs"].ood["dogs"].name == "imagenet_non_dogs"
    assert benchmarks["cifar10"].ood["cifar10"].name == "svhn_cropped"
    argv = ["--benchmark", "dogs", "--data-dir", str(data), "--width", "8"]
    assert figure6.main([*argv, "--out", str(tmp_path)]) == 1


def test_what_is_drawn_of_decoded_images_is_not_decoded(data):
    dogs = load_benchmark("dogs", data)
    x = dogs.test.x
    part = drawn(x, 5, jax.random.key(3))
    assert isinstance(part, Decoded)
    expected = drawn(np.asarray(x), 5, jax.random.key(3))
    np.testing.assert_array_equal(part[:], expected)
    config = figure5.Config(workers=3, worker_processes=True, dtype="bfloat16")
    model = figure_settings.chosen_for(dogs, config, TINY).network.build(dogs, None)
    assert model.dtype == "bfloat16"
    held = reading_all(config, dogs).ood["dogs"].x
    assert (held.workers, held.processes) == (3, True)


def test_corruptions_of_decoded_images_are_those_of_arrays(data, tmp_path):
    x = load_benchmark("dogs", data).test.x.part(slice(6))
    how = {"seed": 2, "workers": 0, "cache": tmp_path}
    found = imagenet_c.noisy(x, "gaussian_noise", 0.1, **how)
    again = imagenet_c.noisy(np.asarray(x), "gaussian_noise", 0.1, seed=2, workers=0)
    np.testing.assert_array_equal(found, again)
    assert len([*tmp_path.glob("*.npy")]) == 1
    # The same images are found again, whichever way they are given.
    imagenet_c.noisy(np.asarray(x), "gaussian_noise", 0.1, **how)
    assert len([*tmp_path.glob("*.npy")]) == 1


def test_sets_behind_each_other_are_one_array(data):
    x = load_benchmark("dogs", data).test.x.part(slice(7))
    sets = [x, 255 - np.asarray(x), np.asarray(x) // 2]
    whole = np.concatenate([np.asarray(of) for of in sets])
    stacked = Stacked(sets)
    assert (stacked.shape, stacked.dtype) == (whole.shape, whole.dtype)
    assert (stacked.ndim, stacked.size, len(stacked)) == (4, whole.size, 21)
    mask = np.arange(21) % 4 == 1
    few = (slice(5, 16), slice(None, None, 5), slice(20, 99), slice(0, 0))
    for chosen in (*few, 8, -1, [20, 0, 7, 7], mask):
        np.testing.assert_array_equal(stacked[chosen], whole[chosen])
    np.testing.assert_array_equal(np.asarray(stacked), whole)
    with pytest.raises(IndexError):
        stacked[21]
