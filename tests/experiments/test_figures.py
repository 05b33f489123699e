"""The figures' scripts on the embedded digits, for seconds."""

import json
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments import figure2, figure3
from experiments.kernel_study import movement, untrained
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.models import LeNet, ResNet
from fssd_jax.models.resnet import CIFAR10
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits


def the_only(folder):
    (path,) = folder.iterdir()
    with np.load(path / "scores.npz") as scores:
        arrays = dict(scores)
    return path, json.loads((path / "metrics.json").read_text()), arrays


def auroc(inside, outside):
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    return pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])))


def test_figure2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(movement, "LeNet", partial(LeNet, width=4))
    args = ["--benchmark", "digits", "--epochs", "2", "--probes", "30"]
    args += ["--moments", "4", "--gradient", "100", "--out", str(tmp_path)]
    assert figure2.main(args) == 0
    path, facts, data = the_only(tmp_path / "figure2")
    assert facts["steps"] == data["steps"].tolist() == [0, 1, 4, 16]
    assert data["distance/OoD"].shape == (4, 30, 4)
    assert data["moved/OoD"].shape == data["parameter step/noise"].shape == (3, 30, 4)
    assert data["logits/in-distribution"].shape == (4, 30, 5)
    # The mean of the noise's features, and what the distances are from.
    star = data["singularity"]
    np.testing.assert_allclose(data["logits/noise"].mean(axis=1), star, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(data["logits/OoD"] - star[:, None], axis=2),
        data["distance/OoD"][:, :, -1],
        rtol=1e-4,
        atol=1e-6,
    )
    # What is told of a layer is the data's.
    for k, layer in enumerate(LeNet.feature_layers):
        for quantity in (*figure2.QUANTITIES, "moved"):
            told = facts["layers"][layer][quantity]
            inside, outside = (
                data[f"{quantity}/{s}"][:, :, k] for s in ("in-distribution", "OoD")
            )
            quartiles = np.quantile(outside, [0.25, 0.5, 0.75], axis=1).T
            np.testing.assert_allclose(told["OoD"], quartiles, rtol=1e-5)
            assert len(told["auroc"]) == len(inside)
            for found, *pair in zip(told["auroc"], inside, outside, strict=True):
                assert found == auroc(*pair)
    check_records(path, facts)
    assert np.all(data["displacement/OoD"][0] == 0)
    assert "data:image/png" in (path / "report.html").read_text()
    for name in ("figure2a", "figure2b", "dynamics"):
        assert (path / f"{name}.png").stat().st_size > 1000
        assert (path / f"{name}.pdf").exists()
    shown = ["layer", "quantity", "set", "step 16", "in-distribution", "displacement"]
    assert_it_fits(capsys.readouterr().out, shown)


def check_records(path, facts):
    """Of Figure 2: every quartile, and every AUROC."""
    told, count = recorded(path), 0
    for layer, quantities in facts["layers"].items():
        for name, of in quantities.items():
            at = {"layer": layer, "seed": 0}
            quantity = {"moved": "moved by a step"}.get(name, name)
            for i, auroc in enumerate(of["auroc"]):
                at["step"] = facts["steps"][i]
                assert told(quantity="AUROC", method=quantity, **at)[0][0] == auroc
                for of_set in ("in-distribution", "OoD", "noise"):
                    found = told(quantity=quantity, set=of_set, **at)
                    assert [value for value, *_ in found] == of[of_set][i]
                count += 10
    assert count == len(told())


def test_figure3(tmp_path, capsys):
    args = ["--benchmark", "digits", "--network", "mlp", "--seeds", "0", "1", "0"]
    assert figure3.main([*args, "--images", "40", "--out", str(tmp_path)]) == 0
    path, facts, data = the_only(tmp_path / "figure3")
    layers = ["pixels", "normalised pixels", "fc1", "fc2", "logits"]
    assert list(facts["layers"]) == data["layers"].tolist() == layers
    assert "layers_with_statistics" not in facts
    first, second = facts["layers"]["pixels"]
    assert first == second  # which know nothing of the weights
    first, second = facts["layers"]["logits"]
    assert first != second
    told = recorded(path)
    for k, (layer, of_seeds) in enumerate(facts["layers"].items()):
        for i, of in enumerate(of_seeds):
            fssd = (
                data[f"drawn/fssd/{s}"][i, :, k] for s in ("in-distribution", "OoD")
            )
            assert of["auroc"] == auroc(*fssd)
            for name in ("in-distribution", "OoD", "noise"):
                square = data[f"drawn/square/{name}"][i, :, k].mean()
                assert of["distance"][name] == pytest.approx(np.sqrt(square), rel=1e-5)
                cosine = data[f"drawn/cosine/{name}"][i, :, k].mean()
                assert of["cosine"][name] == pytest.approx(cosine, rel=1e-5)
                at = {"layer": layer, "seed": i, "set": name, "condition": "drawn"}
                for key, quantity in (
                    ("distance", "relative distance"),
                    ("cosine", "cosine with F*"),
                ):
                    ((value, *_),) = told(quantity=quantity, network="mlp", **at)
                    assert value == of[key][name]
            at = {"layer": layer, "seed": i, "quantity": "AUROC"}
            assert told(**at) == [(of["auroc"], None, None)]
    assert data["drawn/picture/fc1/noise"].shape == (40, 2)
    assert (path / "figure3.png").stat().st_size > 1000
    shown = ["normalised pixels", "distance, in", "cosine, OoD", "AUROC"]
    assert_it_fits(capsys.readouterr().out, shown)


def test_figure3_of_a_resnet(tmp_path, monkeypatch, capsys):
    """On an array of photographs' patches, in colour on black, and digits."""
    short = partial(ResNet, (1, 1, 1, 1), stem="cifar", **CIFAR10)
    monkeypatch.setitem(untrained.UNTRAINED_NETWORKS, "cifar_resnet18", short)
    patches = load("photo_patches", "test").x[:300]
    colour = untrained.coloured(as_input(patches))
    assert colour.shape == (300, 32, 32, 3)
    np.testing.assert_array_equal(colour[:, 2:30, 2:30, 1], as_input(patches)[..., 0])
    assert colour.sum() == pytest.approx(3 * as_input(patches).sum(), rel=1e-4)
    np.savez(tmp_path / "photos.npz", x=colour)
    args = ["--network", "cifar_resnet18", "--width", "4", "--seeds", "0"]
    args += ["--images", "30", "--in", str(tmp_path / "photos.npz"), "--ood", "digits"]
    assert figure3.main([*args, "--out", str(tmp_path)]) == 0
    path, facts, data = the_only(tmp_path / "figure3")
    of_network = ["stem", *(f"stage{i}" for i in range(1, 5))]
    layers = ["pixels", "normalised pixels", *of_network]
    assert list(facts["layers"]) == layers
    assert list(facts["layers_with_statistics"]) == of_network
    for layer in of_network:
        assert facts["layers"][layer] != facts["layers_with_statistics"][layer]
        (told,) = facts["layers_with_statistics"][layer]
        k = layers.index(layer)
        fssd = (
            data[f"with statistics/fssd/{s}"][0, :, k]
            for s in ("in-distribution", "OoD")
        )
        assert told["auroc"] == auroc(*fssd)
        at = {"layer": layer, "condition": "with statistics", "width": 4}
        found = recorded(path)(quantity="AUROC", **at)
        assert found == [(told["auroc"], None, None)]
    assert (path / "figure3-statistics.png").stat().st_size > 1000
    assert_it_fits(capsys.readouterr().out, ["normalised pixels", "cosine, noise"])
    # The first 256 of the others are for statistics.
    assert figure3.main([*args, "--images", "50", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("script", "args"),
    [
        (figure2, ["--epochs", "1"]),
        (figure3, ["--images", "1"]),
        (figure3, ["--width", "8"]),
        (figure3, ["--ood", "digits"]),
        (figure3, ["--in", "photos", "--network", "cifar_resnet18"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, script, args):
    out = ["--out", str(tmp_path), "--benchmark", "digits"]
    assert script.main([*out, *args]) == 1
    assert args[0] in capsys.readouterr().err
