"""Benchmarks of colour images, on a few of them in CIFAR-10's layout."""

import json
from functools import partial

import numpy as np
import pytest
import scipy.special

import fssd_jax
from experiments import table2
from experiments.comparison import networks, retrained
from experiments.comparison.chosen import brought_network, outliers_for
from experiments.comparison.setting import Options, make_training, prepare
from fssd_jax import InputError, torch_weights
from fssd_jax.data import benchmarks
from fssd_jax.data.inputs import as_input
from fssd_jax.models.resnet import CIFAR10
from tests.experiments.recorded import recorded
from tests.fssd_jax import references
from tests.image_folders import SVHN, drawn, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("colour")
    write(path / "cifar10" / "train", *drawn(1, 8))
    write(path / "cifar10" / "test", *drawn(2, 20))
    write(path / "svhn_cropped" / "test", *drawn(3, 9), SVHN)
    return path


def only(pair, name, data_dir):
    benchmark = benchmarks.load_benchmark(name, data_dir)
    return benchmark._replace(ood={pair: benchmark.ood[pair]})


def run(folder, out, *args):
    given = ["--tiny", "--data-dir", str(folder), "--out", str(out), *args]
    assert table2.main(given) == 0
    (path,) = (out / "table2").glob("*/metrics.json")
    return path.parent, json.loads(path.read_text())


SOME = (
    *("layers", "fssd_clean", "displacement", "knn", "deep_ensemble", "mc_dropout"),
    *("outlier_exposure", "mahalanobis", "fssd", "ensembles"),
)


@pytest.mark.parametrize(
    "methods", [SOME, pytest.param(("all",), marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("undrawn")
def test_methods_on_cifar6(methods, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table2, "load_benchmark", partial(only, "cifar6"))
    monkeypatch.setattr(retrained, "MEMBERS", 2)  # each is another training
    monkeypatch.setattr(retrained, "RATES", (0.05,))
    path, told = run(folder, tmp_path, "--benchmark", "cifar6", "--methods", *methods)
    assert told["failed"] == {}
    assert list(told["left_out"]) == ["outlier_exposure"]
    assert "the paper takes imagenet2012" in told["left_out"]["outlier_exposure"]
    layers = ("stem", "stage1", "stage2")
    assert [layer["name"] for layer in told["layers"]] == list(layers)
    rows = {*told["methods"], *told["variants"], *told["controls"]}
    assert rows >= {
        *("mc dropout", "deep ensemble", "displacement", "knn", "mahalanobis"),
        *(f"fssd {layer}" for layer in layers),
        *("fssd, ResNet and perceptron, clean", "control: untrained"),
        *("control: raw pixels", "fssd clean, photographs"),
    }
    assert told["paper"] is None
    assert recorded(path)(network="resnet", quantity="accuracy")
    table = next((tmp_path / "table2").glob("cifar6-paper-*.md")).read_text()
    assert "outlier_exposure is left out" in table
    assert "| cifar6_mnist | not run |" in table
    assert "cifar6_mnist is not run: mnist/test" in capsys.readouterr().err


# ---- weights in place of training ---------------------------------------------------


def of_ten_classes(state):
    kernel = np.random.default_rng(0).normal(size=(10, 32)).astype(np.float32)
    assert state["fc.weight"].shape[1] == kernel.shape[1]
    return state | {"fc.weight": kernel, "fc.bias": np.zeros(10, np.float32)}


def by_our_reader(path, x):
    model, variables = torch_weights.load(path, "cifar_resnet", **CIFAR10)
    return fssd_jax.make_logit_fn(model)(variables, x)


def by_pytorch(path, x):
    import torch

    from tests.fssd_jax.torch_networks import Classifier

    net = Classifier((1, 2, 1), 8, cifar=True, classes=10)
    net.load_state_dict(torch.load(path))
    mean, std = (np.float32(CIFAR10[name]) for name in ("mean", "std"))
    images = torch.from_numpy((x - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return net.eval()(images)[-1].numpy()


def save_for_pytorch(path):
    import torch

    state = of_ten_classes(
        references.weights(references.read("cifar_resnet")["entries"])
    )
    torch.save({name: torch.from_numpy(a) for name, a in state.items()}, path)
    return path


WEIGHTS = {
    "w.safetensors": (
        lambda path: references.save_weights(path, "cifar_resnet", of_ten_classes),
        by_our_reader,
    ),
    "w.pth": (save_for_pytorch, by_pytorch),
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "name", ["w.safetensors", pytest.param("w.pth", marks=pytest.mark.peers)]
)
def test_weights_stand_for_training(name, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(table2, "load_benchmark", partial(only, "cifar10"))
    save, logits_by = WEIGHTS[name]
    path = save(tmp_path / name)
    asked = ["msp", "deep_ensemble", "outlier_exposure", "displacement"]
    where, told = run(
        *(folder, tmp_path, "--benchmark", "cifar10", "--network", "cifar_resnet"),
        *("--weights", str(path), "--protocol", "clean", "--methods", *asked),
    )
    assert told["failed"] == {}
    assert set(told["left_out"]) == set(asked[1:])
    for why in told["left_out"].values():
        assert "the network was brought" in why
    assert told["model"]["weights"] == name
    table = (where / "metrics.md").read_text()
    assert f"Network: cifar_resnet, the weights {name}; test" in table
    assert "Accuracy at chance: the weights' classes are in another order" in table
    assert told["paper"] is None  # it is no ResNet-34
    assert "control: untrained, clean" in told["controls"]
    assert not list((tmp_path / "weights").glob("*"))
    # By the network in the file, of all images, of which some are for validation.
    benchmark = only("cifar10", "cifar10", folder)
    inside, outside = (
        np.asarray(logits_by(path, as_input(data.x)), np.float64)
        for data in (benchmark.test, benchmark.ood["cifar10"])
    )
    right = np.mean(inside.argmax(1) == benchmark.test.y)
    assert told["model"]["accuracy"] == pytest.approx(right)
    p = scipy.special.softmax(outside, axis=1).max(1)
    found = np.load(where / "scores.npz")["msp/ood"]
    gaps = np.abs(found[:, None] - scipy.special.logit(p)[None])
    assert gaps.min(1).max() < 1e-3
    assert np.unique(gaps.argmin(1)).size == len(found)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    seven = references.save_weights(tmp_path / "seven", "cifar_resnet")
    benchmark = benchmarks.load_benchmark("cifar10", folder)
    with pytest.raises(InputError, match=r"classes of cifar_resnet are \(32, 32, 3, 7"):
        brought_network(benchmark, seven, "cifar_resnet")
    with pytest.raises(InputError, match="bilstm is not read; choose from"):
        brought_network(benchmark, seven, "bilstm")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--std", "0.2"], "--std: leave out, only of --weights"),
        (["--weights", "w", "--epochs", "3"], "--epochs: leave out, nothing is"),
        (["--width", "1"], "--width: expected 2 or more, got 1"),
        (["--benchmark", "digits", "--network", "cifar_resnet20"], "trained with len"),
    ],
)
def test_options_that_do_not_fit(args, message, tmp_path, capsys):
    assert table2.main([*args, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_all_that_decides_the_network_decides_the_folder(folder, tmp_path):
    benchmark = benchmarks.load_benchmark("cifar10", folder)
    paths = [
        references.save_weights(tmp_path / str(times), "cifar_resnet", changed)
        for times in (1, 2)
        for changed in (lambda s, t=times: times_bias(of_ten_classes(s), t),)
    ]
    brought = {"network": "cifar_resnet", "weights": paths[0]}
    changes = [
        {}, {"network": "cifar_resnet20"}, {"width": 8}, {"tiny": True},
        brought, {**brought, "weights": paths[1]}, {**brought, "std": (0.3,) * 3},
        {"dtype": "bfloat16"}, {**brought, "dtype": "bfloat16"},
    ]  # fmt: skip
    found = set()
    for change in changes:
        config = table2.Config(benchmark="cifar10", out=tmp_path, **change)
        chosen = table2.chosen_network(config, benchmark)
        at = table2.place(config, benchmark, chosen, "cifar10", 0, None)
        found.add(at.path)
    assert len(found) == len(changes)


def times_bias(state, times):
    return state | {"fc.weight": times * state["fc.weight"]}


# ---- the network and the outliers ---------------------------------------------------


def test_grey_outliers_that_cannot_be_had_are_told_unless_they_are_named(tmp_path):
    found, why = outliers_for(benchmarks.digits(), "auto", tmp_path)
    assert found is None
    assert "cns_glyphs/train: there is no" in why["outliers"]
    assert why["outliers"].endswith("or give images: --outliers PATH")
    with pytest.raises(InputError, match="no outliers could be had"):
        outliers_for(benchmarks.digits(), "kmnist", tmp_path)


def test_epochs_are_the_networks_own(folder):
    benchmark = benchmarks.load_benchmark("cifar10", folder)
    for name, epochs in (("cifar_resnet34", 350), ("cifar_resnet20", 30)):
        network = networks.network_of(benchmark, name)
        assert make_training(benchmark, Options(), network).epochs == epochs
        short = make_training(benchmark, Options(epochs=4), network)
        assert (short.epochs, short.short_epochs) == (4, 4)


def test_the_untrained_network_has_statistics_of_training_images(folder, tmp_path):
    """Those of the first normalisation are of the first convolution, drawn as it is."""
    benchmark = benchmarks.load_benchmark("cifar6", folder)
    prepared = prepare(benchmark, 0, Options(tiny=True, out=tmp_path))
    start, x = prepared.network.initial, prepared.training.images.x
    conv = fssd_jax.make_feature_fn(prepared.model, ["stem/conv1/conv"])
    (found,) = conv(start, as_input(x)).values()
    told = prepared.initial["batch_stats"]["stem"]["conv1"]["norm"]
    np.testing.assert_allclose(told["mean"], found.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(told["var"], found.var((0, 1, 2)), rtol=1e-3)
    assert prepared.initial["params"] is start["params"]


def test_outliers_of_ones_own_are_made_as_large(folder, tmp_path):
    benchmark = benchmarks.load_benchmark("cifar10", folder)
    image = np.full((40, 60, 3), (250, 10, 90), np.uint8)
    write(tmp_path, [image], [0], ["any"])
    found, why = outliers_for(benchmark, str(tmp_path), None)
    assert found is not None
    assert found.x.shape == (1, 32, 32, 3)
    assert np.all(found.x == image[0, 0])
    assert why == {}
    found, why = outliers_for(benchmark, "auto", tmp_path)
    assert found is None
    assert why["outliers"].endswith("or give images: --outliers PATH")
    with pytest.raises(InputError, match="--outliers kmnist: there is no such folder"):
        outliers_for(benchmark, "kmnist", None)
