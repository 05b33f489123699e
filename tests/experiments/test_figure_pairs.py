"""Figures of a trained network: against which OoD set, and of other images."""

import numpy as np
import pytest

from experiments import figure1, figure5
from experiments.comparison import shifted
from experiments.comparison.figure_settings import TINY, FigureOptions, pair_of, ready
from fssd_jax import InputError
from fssd_jax.data import sources
from fssd_jax.data.benchmarks import load_benchmark
from tests.experiments.test_figures import the_only
from tests.experiments.test_trained_figures import by_hand, by_sklearn, made

FAR = "digits_far"


def test_a_pair_is_the_benchmarks_own_or_the_named_one():
    """Never another in its place: photographs are no street numbers."""
    here = load_benchmark("digits")
    assert pair_of(here, None) == "digits_near"
    assert pair_of(here, FAR) == FAR
    without = here._replace(name="own", missing={"own": "get it by this"})
    with pytest.raises(InputError, match=r"own: not here: get it .*digits_far"):
        pair_of(without, None)
    assert pair_of(without, FAR) == FAR
    # One that is missing but is not the benchmark's own changes nothing.
    assert pair_of(here._replace(missing={"digits_svhn": ""}), None) == "digits_near"


def test_figure5_of_another_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(shifted, "RIVALS", ("pixel_stats", "brightness"))
    _, facts, data = made(figure5, tmp_path, "--methods", "msp", "--pair", FAR)
    assert facts["benchmark"] == FAR
    options = FigureOptions(out=tmp_path)
    far = ready(load_benchmark("digits"), FAR, "paper", options, TINY).setting
    expected = by_hand(far, "msp")(far.test_ood)
    np.testing.assert_allclose(data["msp/OoD"][0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_figure1_of_faces(tmp_path, monkeypatch):
    """The paper's kind of images, few: faces against other parts of photographs."""
    of_skimage = pytest.importorskip("skimage.data")
    images = np.uint8(255 * of_skimage.lfw_subset())[..., None]  # 100 faces, 100 others
    faces, others = images[:100], images[100:]
    # They have no names; which side the light comes from is a class as good as any.
    left, right = (half.mean((1, 2, 3)) for half in np.split(faces[:, :, :24], 2, 2))
    lit = np.int32(left > right)

    def of(split, x, y):
        named = sources.digest(x, y)
        return sources.ArrayDataset(x, y, "faces", split, "scikit-image", named)

    benchmark = load_benchmark("digits")._replace(
        name="faces",
        train=of("train", faces[:60], lit[:60]),
        test=of("test", faces[60:], lit[60:]),
        ood={"faces": of("other", others, np.zeros(100, np.int32))},
        num_classes=2,
        validation=10,
    )
    monkeypatch.setattr(figure1, "load_benchmark", lambda *_: benchmark)
    facts = figure1.run(figure1.Config(out=tmp_path, epochs=10))
    path, told, data = the_only(tmp_path / "figure1")
    assert facts["images"] == {"in-distribution": 30, "OoD": 90}
    inside, outside = (data[f"fssd/{s}"] for s in ("in-distribution", "OoD"))
    assert told["auroc"]["fssd"] == by_sklearn(inside, outside)
    assert (path / "figure1.png").stat().st_size > 1000
