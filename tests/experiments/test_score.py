"""Scores of a checkpoint of PyTorch and of image folders, from the command line."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import fssd_jax
from experiments import score
from experiments.comparison import brought
from fssd_jax import InputError, torch_weights
from fssd_jax.data import load
from fssd_jax.data.folders import load_images
from fssd_jax.data.inputs import as_input
from fssd_jax.detectors import fssd, msp
from fssd_jax.models.resnet import CIFAR10
from tests.experiments import scored
from tests.experiments.recorded import recorded
from tests.experiments.scored import main
from tests.experiments.screen import assert_it_fits
from tests.fssd_jax.references import save_weights
from tests.npz import read_npz


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return scored.write(tmp_path_factory.mktemp("files"))


def scored_by(fitted, model, variables, x):
    """By a file, as its config says."""
    feature_fn = fssd_jax.make_feature_fn(model, fitted.config["layers"])
    if fitted.config["with_logits"]:
        logit_fn = fssd_jax.make_logit_fn(model)
        feature_fn = fssd_jax.head.with_logits(feature_fn, logit_fn)
    of = feature_fn, variables, fitted.state
    return fssd_jax.map_batches(fssd.score, *of, x)


def test_scores_are_those_of_the_library(files, tmp_path, capsys):
    assert main(files, tmp_path, "--train", str(files / "others")) == 0
    (path,) = (tmp_path / "score").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    assert facts["counts"] == {
        "validation": 24,
        "calibration": 24,
        **{"ind": 192, "ood": 60, "noise": 50},
    }
    assert list(facts["methods"]) == [
        *(f"fssd {layer}" for layer in ("conv1", "conv2", "fc1", "logits")),
        *("fssd noise", "fssd clean", "fssd clean, photographs"),
        *("fssd deep", "fssd deep, photographs"),
        *("fssd tiles", "fssd tiles, photographs"),
        *("msp", "max logit", "energy", "gen", "kl matching", "ash", "scale"),
        *("react", "dice", "vim", "fdbd", "knn", "nnguide", "she", "gram"),
        *("feature norm", "relative mahalanobis", "mahalanobis clean"),
        *("fssd + mahalanobis", "fssd + mahalanobis, photographs", "odin"),
    ]
    assert list(facts["controls"]) == [
        "control: untrained, clean",
        *(f"control: untrained, {k}" for k in ("conv1", "conv2", "fc1", "logits")),
        *("control: nearest in pixels", "control: brightness"),
    ]
    rows = facts["methods"] | facts["controls"]
    assert not any(row["target_ood"] for row in rows.values())
    scores = read_npz(path / "scores.npz")
    for name, row in rows.items():
        ind, ood = scores[f"{name}/ind"], scores[f"{name}/ood"]
        assert (len(ind), len(ood)) == (192, 60)
        expected = roc_auc_score([1] * 192 + [0] * 60, np.concatenate([ind, ood]))
        assert row["auroc"] == pytest.approx(expected)

    told = recorded(path)
    for name, row in rows.items():
        for metric in ("auroc", "fpr95"):
            found = told(method=name, quantity=metric.upper(), layer=None)
            assert found == [(row[metric], *row[f"{metric}_ci95"])]
    of_detector = {"quantity": "threshold", "method": "fssd tiles"}
    assert told(**of_detector) == [(facts["threshold"], None, None)]
    assert len(told(quantity="threshold")) == 1
    assert told(quantity="accuracy") == [(facts["accuracy"], None, None)]

    # By the library's own road.
    model, variables = torch_weights.load(
        files / "lenet.safetensors", "lenet", mean=(0.2860,), std=(0.3530,)
    )
    photos = read_npz(files / "photos.npz")["x"]
    found = fssd_jax.map_batches(
        msp.score, fssd_jax.make_logit_fn(model), variables, msp.fit(), photos
    )
    np.testing.assert_allclose(scores["msp/ood"], found, rtol=1e-5)
    # The file that is left is the detector, and knows its network.
    network = {"mean": model.mean, "std": model.std}
    fitted = fssd_jax.load(path / "fssd.npz", variables, **network)
    found = scored_by(fitted, model, variables, photos)
    np.testing.assert_allclose(scores["fssd tiles/ood"], found, rtol=1e-4, atol=1e-4)
    assert fitted.config["threshold"] == facts["threshold"]
    assert fitted.config["centre"] == "shuffled 2×2 tiles of training images"
    with pytest.raises(InputError, match="dtype"):
        fssd_jax.load(path / "fssd.npz", variables, dtype="bfloat16")

    # The page has images of both sets, in the order of the scores.
    kept = read_npz(path / "explorer.npz")
    assert set(kept["rows"]) <= set(rows)
    assert {"fssd tiles", "msp", "control: brightness"} <= set(kept["rows"])
    np.testing.assert_array_equal(kept["index/OoD"], np.arange(60))
    shown = kept["images/OoD"] / 255
    np.testing.assert_allclose(shown, as_input(photos), atol=0.002)
    brightness = kept["images/in-distribution"].mean((1, 2, 3))
    of = scores["control: brightness/ind"][kept["index/in-distribution"]]
    assert spearmanr(brightness, of).statistic > 0.999

    digits = load_images(files / "digits", size=28, channels=1, progress=False)
    told = capsys.readouterr().out
    assert_it_fits(told, ["AUROC", "FPR95", "fitted on", "chosen"])
    assert f"Accuracy {100 * facts['accuracy']:.1f} %" in told
    assert len(np.unique(digits.y)) == 10
    page = (path / "report.html").read_text()
    assert page.count("data:image/png") == 4  # three pictures, and all images in one
    assert digits.sha256 == facts["data"]["ind"]["sha256"]


@pytest.mark.usefixtures("undrawn")
def test_ood_images_change_no_other_score(files, tmp_path):
    """Nothing is fitted on them, nor chosen by them."""
    others = load("photo_patches", "test").x[60:90]
    np.savez(files / "other.npz", x=1 - as_input(others))
    for name in ("photos", "other"):
        assert main(files, tmp_path / name, "--ood", str(files / f"{name}.npz")) == 0
    first, second = (
        read_npz(next((tmp_path / name / "score").iterdir()) / "scores.npz")
        for name in ("photos", "other")
    )
    for name in first:
        if name.endswith("/ind"):
            np.testing.assert_array_equal(first[name], second[name], name)


@pytest.mark.usefixtures("undrawn")
def test_a_resnet_and_chosen_layers(files, tmp_path):
    """The stages alone; images of another size are made to fit."""
    weights = save_weights(files / "r20.safetensors", "cifar_resnet20")
    args = ["--weights", str(weights), "--model", "cifar_resnet20", "--noise", "20"]
    args += ["--mean", *map(str, CIFAR10["mean"]), "--std", *map(str, CIFAR10["std"])]
    args += ["--in", str(files / "digits"), "--ood", str(files / "others" / "3")]
    args += ["--layers", "stage1", "stage3", "--limit", "190", "--dtype", "bfloat16"]
    assert score.main([*args, "--out", str(tmp_path)]) == 0
    (path,) = (tmp_path / "score").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    assert [k for k in facts["methods"] if k.startswith("fssd")] == [
        *("fssd stage1", "fssd stage3", "fssd noise", "fssd clean"),
        *("fssd clean, photographs", "fssd deep", "fssd deep, photographs"),
        *("fssd tiles", "fssd tiles, photographs"),
    ]
    assert facts["methods"]["fssd deep"]["note"] == "ε = 0; of stage1, stage3"
    tiles = facts["methods"]["fssd tiles"]
    assert tiles["note"] == (
        "of stage3, logits; F* of shuffled 2×2 tiles of validation images"
    )
    network = {"mean": CIFAR10["mean"], "std": CIFAR10["std"]}
    given = {"dtype": "bfloat16", **network}
    model, variables = torch_weights.load(weights, "cifar_resnet20", **given)
    fitted = fssd_jax.load(path / "fssd.npz", variables, **network)
    assert fitted.config["row"] == "fssd tiles"
    tested = read_npz(path / "explorer.npz")
    x = np.float32(tested["images/OoD"]) / 255
    found = scored_by(fitted, model, variables, x)
    rows = read_npz(path / "scores.npz")["fssd tiles/ood"][tested["index/OoD"]]
    np.testing.assert_allclose(rows, found, rtol=0.02, atol=0.05)
    assert facts["accuracy"] is None  # 7 classes of the network, 10 of the images
    assert "resized to 32×32" in facts["data"]["ind"]["path"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--weights", "nowhere.pth"], "no such file"),
        (["--model", "resnet34"], "does not fit resnet34"),
        (["--part", "ema"], "has no part 'ema', but ['conv1 (2 arrays)'"),
        (["--in", "nowhere"], "no such folder"),
        (["--layers", "conv7"], "conv7"),
        (["--limit", "189"], "190 images in all"),
        (["--size", "32"], "28×28 only"),
        (["--dtype", "bfloat16"], "float32 only"),
        (["--std", "90.5"], "divided by 255"),
        (["--mean", "0.5", "0.5", "0.5"], "expected"),
        (["--train", "PHOTOS"], "images of 1 classes"),
        (["--ood", "DIGITS"], "digits hold the same 240 rows; give sets that have"),
        (["--ood", "DIGITS/3"], "3 hold the same"),
        (["--train", "DIGITS"], "digits hold the same 240 rows"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, args, message):
    places = {"PHOTOS": "photos.npz", "DIGITS": "digits", "DIGITS/3": "digits/3"}
    args = [str(files / places[a]) if a in places else a for a in args]
    assert main(files, tmp_path, *args) == 1
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert "failed" not in error
    assert not list(tmp_path.glob("score/*"))


@pytest.mark.usefixtures("undrawn")
def test_a_detector_that_fails_is_told_beside_the_rows(
    files, tmp_path, capsys, monkeypatch
):
    def singular(setting):
        raise np.linalg.LinAlgError("no inverse")

    with monkeypatch.context() as broken:
        broken.setattr(brought, "tiles_state", singular)
        assert main(files, tmp_path) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == (
        "error: failed: fssd.npz; all else is written, and the same command tries "
        "again what failed"
    )
    assert "fssd.npz failed: LinAlgError: no inverse." in told.out
    (path,) = (tmp_path / "score").iterdir()
    facts = json.loads((path / "metrics.json").read_text())
    assert facts["failed"] == {"fssd.npz": "LinAlgError: no inverse"}
    assert {"msp", "fssd tiles"} <= set(facts["methods"])
    assert not (path / "fssd.npz").exists()
    assert main(files, tmp_path) == 0
    assert (path / "fssd.npz").exists()
