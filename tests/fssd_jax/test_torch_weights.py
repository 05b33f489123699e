"""Weights of PyTorch networks, against these networks themselves."""

import jax
import numpy as np
import pytest

from fssd_jax import InputError, make_feature_fn, torch_weights
from fssd_jax.models.resnet import CIFAR10, IMAGENET

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
from tests.fssd_jax.torch_networks import build, randomised  # noqa: E402

NORMAL = {"cifar": CIFAR10, "lenet": {"mean": (0.2860,), "std": (0.3530,)}}
SIZES = {"lenet": 28, "face_resnext50": 112, "resnet34": 64, "resnext50": 96}


def normalisation(name):
    return NORMAL.get(name.split("_")[0], IMAGENET)


def images(name, count=2):
    channels, size = len(normalisation(name)["mean"]), SIZES.get(name, 32)
    return (
        np.random.default_rng(0)
        .uniform(size=(count, size, size, channels))
        .astype(np.float32)
    )


def seen_by_torch(name, x):
    normal = normalisation(name)
    x = (x - np.float32(normal["mean"])) / np.float32(normal["std"])
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def channels_last(feature):
    a = feature.detach().numpy()
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


@pytest.mark.parametrize("name", list(torch_weights.FORMATS))
def test_every_feature_is_the_same(name, tmp_path):
    width = 32 if "resnext" in name else 8  # a group has 64 channels of 2,048
    network = randomised(build(name, width))
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(network.state_dict(), path)
    model, variables = torch_weights.load(path, name, **normalisation(name))
    x = images(name)
    expected = network(seen_by_torch(name, x))
    layers = [*model.feature_layers]
    layers += [] if name == "lenet" else ["logits"]
    found = jax.jit(make_feature_fn(model, layers))(variables, x)
    for layer, theirs in zip(layers, expected, strict=True):
        ours, theirs = np.asarray(found[layer]), channels_last(theirs)
        assert ours.shape == theirs.shape
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert error < 1e-4, layer
        # Noise between the images, not between the networks.
        assert np.linalg.norm(ours[0] - ours[1]) > 1e-2 * np.linalg.norm(ours), layer


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cifar_resnet18", 11_173_962),
        ("cifar_resnet34", 21_282_122),
        ("cifar_resnet50", 23_520_842),
        ("resnet34", 21_797_672),
        ("resnext50", 25_028_904),
    ],
)
def test_parameter_counts_are_the_published_ones(name, published):
    format = torch_weights.FORMATS[name]
    model = format.build()
    x = jax.ShapeDtypeStruct((1, format.side, format.side, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == published
    theirs = build(name, 64, model.num_classes)
    assert sum(p.numel() for p in theirs.parameters()) == published


def small(tmp_path, ending=".pth", change=lambda state: state):
    state = change(dict(randomised(build("cifar_resnet18")).state_dict()))
    path = tmp_path / f"weights{ending}"
    torch.save(state, path)
    return path


def load(path, name="cifar_resnet18"):
    return torch_weights.load(path, name, **CIFAR10)


def test_checkpoints_are_looked_into(tmp_path):
    _, plain = load(small(tmp_path))

    def packed(state):
        net = {f"module.{name}": a for name, a in state.items()}
        return {"net": net, "acc": 95.2, "epoch": 3}

    _, unpacked = load(small(tmp_path, ".pt", packed))
    jax.tree.map(np.testing.assert_array_equal, plain, unpacked)

    def halved(state):  # as a float16 file of a compiled network would be
        return {f"_orig_mod.{k}": a.half() for k, a in state.items()}

    _, half = load(small(tmp_path, ".bin", halved))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(half))


def test_the_released_face_file_is_two_state_dicts_in_one(tmp_path):
    network = randomised(build("face_resnext50", 32))
    path = tmp_path / "face.pth"
    parts = {"backbone": network.backbone, "head": network.head}
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    normal = {"mean": (0.5,) * 3, "std": (1.0,) * 3}
    model, variables = torch_weights.load(path, "face_resnext50", **normal)
    assert (model.mean, model.std) == (normal["mean"], normal["std"])
    kernel = variables["params"]["logits"]["kernel"]
    np.testing.assert_array_equal(kernel, network.head.kernel.detach())


def test_what_does_not_fit_is_listed(tmp_path):
    def changed(state):
        del state["layer3.1.bn2.running_var"]
        state["extra.weight"] = torch.zeros(3)
        state["layer1.0.conv2.weight"] = torch.zeros(8, 8, 1, 1)
        return state

    with pytest.raises(InputError) as caught:
        load(small(tmp_path, change=changed))
    message = str(caught.value)
    assert "missing (1): layer3.1.bn2.running_var" in message
    assert "surplus (1): extra.weight" in message
    assert "layer1.0.conv2.weight (8, 8, 1, 1), expected (8, 8, 3, 3)" in message
    # Another network's weights: the error knows whose.
    with pytest.raises(InputError, match=r"those of cifar_resnet18\n.* and 1"):
        load(small(tmp_path), "cifar_resnet50")

    # A checkpoint of another kind, with an optimiser's state, whose keys are numbers.
    def other(state):
        return {"weights": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}

    with pytest.raises(InputError, match=r"surplus .*optimizer\.state\.0\.step"):
        load(small(tmp_path, change=other))
    with pytest.raises(InputError, match="divided by 255"):
        torch_weights.load(
            *(small(tmp_path), "cifar_resnet18"), mean=(125.3,) * 3, std=(63.0,) * 3
        )
    with pytest.raises(InputError, match=r"conv1.weight \(8, 3, 3, 3\), expected"):
        torch_weights.load(small(tmp_path), "cifar_resnet18", mean=(0.5,), std=(0.2,))


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"choose from .*'cifar_resnet18'"):
        load(tmp_path / "none.pth", "resnet7")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not this")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load(broken)
    whole = tmp_path / "whole.pth"
    torch.save(build("lenet"), whole)  # the module itself, pickled
    with pytest.raises(InputError, match="weights only"):
        load(whole, "lenet")
    with pytest.raises(InputError, match=r"no state dict, but \['epoch'\]"):
        load(small(tmp_path, change=lambda state: {"epoch": 3}))
    with pytest.raises(InputError, match=r"bn1.weight holds NaN"):
        load(small(tmp_path, change=lambda s: s | {"bn1.weight": s["bn1.weight"] / 0}))
    with pytest.raises(InputError, match=r"expected \.safetensors"):
        load(small(tmp_path, ".h5"))


def test_without_pytorch_it_says_what_to_do(tmp_path, monkeypatch):
    path = small(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        load(path)
