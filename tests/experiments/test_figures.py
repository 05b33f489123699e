"""The figures' scripts on the embedded digits, for seconds."""

import json
from functools import partial

import numpy as np
import pytest

from experiments import figure2, figure3
from fssd_jax.data import load
from fssd_jax.data.pipeline import as_float
from fssd_jax.models import LeNet, ResNet
from fssd_jax.models.resnet import CIFAR10


def the_only(folder):
    (path,) = folder.iterdir()
    return path, json.loads((path / "metrics.json").read_text())


def test_figure2(tmp_path):
    args = ["--benchmark", "digits", "--epochs", "2", "--probes", "30"]
    args += ["--moments", "4", "--gradient", "100", "--out", str(tmp_path)]
    assert figure2.main(args) == 0
    path, facts = the_only(tmp_path / "figure2")
    data = np.load(path / "dynamics.npz")
    assert facts["steps"] == data["steps"].tolist() == [0, 1, 4, 16]
    assert data["distance/OoD"].shape == (4, 30, 4)
    assert data["moved/OoD"].shape == data["parameter step/noise"].shape == (3, 30, 4)
    assert data["logits/in-distribution"].shape == (4, 30, 5)
    # What is told of a layer is the data's.
    k = LeNet.feature_layers.index("fc1")
    told = facts["layers"]["fc1"]
    np.testing.assert_allclose(
        np.asarray(told["speed"]["OoD"])[:, 1],
        np.median(data["speed/OoD"][:, :, k], axis=1),
        rtol=1e-5,
    )
    inside, outside = (
        data[f"distance/{s}"][3, :, k] for s in ("in-distribution", "OoD")
    )
    wins = (inside[:, None] > outside[None]) + 0.5 * (inside[:, None] == outside[None])
    assert told["distance"]["auroc"][3] == pytest.approx(wins.mean())
    assert np.all(data["displacement/OoD"][0] == 0)
    assert "data:image/png" in (path / "report.html").read_text()
    for name in ("figure2a", "figure2b", "dynamics"):
        assert (path / f"{name}.png").stat().st_size > 1000
        assert (path / f"{name}.pdf").exists()


def test_figure3(tmp_path):
    args = ["--benchmark", "digits", "--network", "mlp", "--seeds", "0", "1"]
    assert figure3.main([*args, "--images", "40", "--out", str(tmp_path)]) == 0
    path, facts = the_only(tmp_path / "figure3")
    assert list(facts["layers"]) == [
        *("pixels", "normalised pixels", "fc1", "fc2", "logits")
    ]
    first, second = facts["layers"]["pixels"]
    assert first == second  # which know nothing of the weights
    first, second = facts["layers"]["logits"]
    assert first != second
    assert (path / "figure3.png").stat().st_size > 1000


def test_figure3_of_a_resnet(tmp_path, monkeypatch):
    """On an array of photographs' patches, in colour on black, and digits."""
    short = partial(ResNet, (1, 1, 1, 1), stem="cifar", **CIFAR10)
    monkeypatch.setitem(figure3.NETWORKS, "cifar_resnet18", short)
    patches = load("photo_patches", "test").x[:300]
    colour = figure3.coloured(as_float(patches))
    assert colour.shape == (300, 32, 32, 3)
    np.testing.assert_array_equal(colour[:, 2:30, 2:30, 1], as_float(patches)[..., 0])
    assert colour.sum() == pytest.approx(3 * as_float(patches).sum(), rel=1e-4)
    np.savez(tmp_path / "photos.npz", x=colour)
    args = ["--network", "cifar_resnet18", "--width", "4", "--seeds", "0"]
    args += ["--images", "30", "--in", str(tmp_path / "photos.npz"), "--ood", "digits"]
    assert figure3.main([*args, "--out", str(tmp_path)]) == 0
    path, facts = the_only(tmp_path / "figure3")
    stages = [f"stage{i}" for i in range(1, 5)]
    assert list(facts["layers"]) == [
        *("pixels", "normalised pixels", "stem", *stages),
        *(f"{layer}, with statistics" for layer in ("stem", *stages)),
    ]
    assert facts["layers"]["stem"] != facts["layers"]["stem, with statistics"]
    assert (path / "figure3-statistics.png").stat().st_size > 1000
    # The first 256 of the others are for statistics.
    assert figure3.main([*args, "--images", "50", "--out", str(tmp_path)]) == 1


def test_mistakes_are_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path), "--benchmark", "digits"]
    assert figure2.main([*out, "--epochs", "1"]) == 1
    assert "--epochs" in capsys.readouterr().err
    assert figure3.main([*out, "--images", "1"]) == 1
    assert "--images" in capsys.readouterr().err
