"""Scores of a training of ours, by the folder that it left."""

import json
import shutil

import jax
import numpy as np
import pytest

import fssd_jax
from experiments import score
from experiments.comparison import loaded
from experiments.harness.keys import Use, of_seed
from fssd_jax import checkpoint, models
from fssd_jax.checks import InputError
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from fssd_jax.features import make_init_fn
from fssd_jax.models import LeNet
from fssd_jax.train import TrainState, train
from tests.npz import read_npz

NORMAL = ["--mean", "0.286", "--std", "0.353"]


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A LeNet after an epoch of 64 images; and images."""
    folder = tmp_path_factory.mktemp("training")
    digits = load("digits", "train")
    found = train(
        LeNet(mean=(0.286,), std=(0.353,)),
        *(digits.x[:64], digits.y[:64]),
        **{"num_classes": 10, "seed": 3, "epochs": 1, "progress": False},
        folder=folder / "lenet",
    )
    np.savez(folder / "digits.npz", x=load("digits", "test").x[:190])
    np.savez(folder / "photos.npz", x=load("photo_patches", "test").x[:20])
    return folder, found


def main(folder, out, *args):
    given = ["--weights", str(folder / "lenet"), "--model", "lenet", *NORMAL]
    given += ["--in", str(folder / "digits.npz"), "--ood", str(folder / "photos.npz")]
    return score.main([*given, "--noise", "20", "--out", str(out), *args])


@pytest.mark.usefixtures("undrawn")
def test_scores_are_of_the_last_and_of_the_first_weights(training, tmp_path):
    """The untrained control is the network that this very training began with."""
    folder, found = training
    assert main(folder, tmp_path) == 0
    (path,) = (tmp_path / "score").iterdir()
    assert json.loads((path / "metrics.json").read_text())["failed"] == {}
    scores = read_npz(path / "scores.npz")
    model = LeNet(mean=(0.286,), std=(0.353,))
    feature_fn = fssd_jax.make_feature_fn(model)
    photos = as_input(load("photo_patches", "test").x[:20])
    noise = fssd_jax.uniform_noise(of_seed(0, Use.BROUGHT_NOISE), 20, (28, 28, 1))
    for prefix, variables in (
        ("fssd", found.variables),
        ("control: untrained,", found.initial),
    ):
        of_photos, of_noise = (feature_fn(variables, x) for x in (photos, noise))
        for layer, f in of_photos.items():
            center = np.asarray(of_noise[layer]).mean(0)
            gaps = (np.asarray(f) - center).reshape(20, -1)
            np.testing.assert_allclose(
                scores[f"{prefix} {layer}/ood"],
                np.linalg.norm(gaps, axis=1),
                rtol=1e-4,
                err_msg=f"{prefix} {layer}",
            )


NETWORKS = {
    "lenet": LeNet(num_classes=4),
    "cifar_resnet": models.ResNet(
        (1, 2, 1), stem="cifar", num_classes=4, width=4, shortcut="pad"
    ),
    "resnet": models.ResNet((1, 1, 1, 1), bottleneck=True, num_classes=4, width=4),
    "wrn": models.WideResNet((1, 1, 1), 2, num_classes=4, width=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_variables_tell_the_network(tmp_path, name):
    """Depth, width, classes, sort of block and shortcut, of those of any depth, too."""
    model = NETWORKS[name]
    side = 28 if name == "lenet" else 32
    x = np.zeros((1, side, side, len(model.mean)), np.float32)
    variables = make_init_fn(model)(jax.random.key(0), x)
    checkpoint.save(tmp_path / checkpoint.INITIAL, variables)
    later = jax.tree.map(lambda a: a + 1, variables)
    state = TrainState(later, ())
    checkpoint.save(checkpoint.epoch_path(tmp_path, 7), (state, np.zeros((7, 2))))
    network = loaded.load_network(
        *(tmp_path, name),
        **{"mean": model.mean, "std": model.std},
        **{"part": None, "dtype": "float32", "layers": None},
    )
    assert network.model == model
    for found, expected in ((network.variables, later), (network.initial, variables)):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def damage(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])


WRONG = {
    "empty": (lambda f: [shutil.rmtree(p) for p in f.iterdir() if p.is_dir()], "holds"),
    "no epoch": (lambda f: shutil.rmtree(f / "epoch-00001"), "a finished epoch; give"),
    "no initial": (lambda f: shutil.rmtree(f / "initial"), "a finished epoch; give"),
    "damaged": (lambda f: damage(f / "epoch-00001"), "epoch-00001: this checkpoint"),
    "initial": (lambda f: damage(f / "initial"), "initial: this checkpoint cannot be"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_folders_that_hold_no_training(training, tmp_path, capsys, change, message):
    copy = shutil.copytree(training[0], tmp_path / "copy")
    change(copy / "lenet")
    assert main(copy, tmp_path) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("score/*"))


CIFAR = ["--model", "cifar_resnet", "--mean", *["0.5"] * 3, "--std", *["0.5"] * 3]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mean", "0.1"], "was trained with 0.286; give that"),
        (["--std", "0.36"], "was trained with 0.353; give that"),
        (["--mean", "0.286", "0.286"], "was trained with 0.286; give that"),
        (["--std", "90"], "divided by 255"),
        (["--mean", "--std"], "--mean, --std: needed"),
        (["--part", "ema"], "--part: "),
        (["--channels", "last"], "--channels: of --features only"),
        (["--noise", "1"], "noise: 1 sample"),
        (["--layers", "conv9"], "conv9"),
        (["--train-features", "x.npz"], "--features, --ood-features, --noise-features"),
    ],
)
def test_mistakes_are_one_line(training, tmp_path, capsys, args, message):
    assert main(training[0], tmp_path, *args) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error


@pytest.mark.usefixtures("undrawn")
def test_another_network_is_told_apart(training, tmp_path, capsys):
    """Of a folder that has no record of its normalisation, as older ones."""
    copy = shutil.copytree(training[0], tmp_path / "copy")
    (copy / "lenet" / checkpoint.RUN).unlink()
    assert main(copy, tmp_path, *CIFAR) == 1
    told = capsys.readouterr().err
    assert "does not hold a cifar_resnet for 3 channels: " in told
    assert "choose the --model that was trained" in told
    assert main(copy, tmp_path, "--mean", "0.5", "--std", "0.25") == 0


def test_a_training_that_goes_on_is_read(training, tmp_path, monkeypatch):
    """The epoch that was found is removed while it is read, and a later one there."""
    folder = shutil.copytree(training[0] / "lenet", tmp_path / "lenet")
    seen = iter([1, 2, 2])
    shutil.copytree(folder / "epoch-00001", folder / "epoch-00002")
    shutil.rmtree(folder / "epoch-00001")
    monkeypatch.setattr(checkpoint, "last_epoch", lambda _: next(seen))
    variables, _ = checkpoint.trained(folder)
    jax.tree.map(np.testing.assert_array_equal, variables, training[1].variables)


def test_the_record_tells_the_normalisation(training):
    folder, _ = training
    expected = {"mean": [0.286], "std": [0.353]}
    assert checkpoint.recorded(folder / "lenet") == expected
    assert checkpoint.recorded(folder) == {}
    with pytest.raises(InputError, match="lenet was trained with"):
        loaded.load_network(
            *(folder / "lenet", "lenet"),
            **{"mean": (0.5,), "std": (0.353,)},
            **{"part": None, "dtype": "float32", "layers": None},
        )
