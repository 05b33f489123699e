"""Weights of PyTorch networks, against what these networks compute."""

import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from fssd_jax import InputError, make_feature_fn, torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax.references import (
    error,
    images,
    normalisation,
    save_weights,
    weights,
)


@pytest.mark.parametrize("name", list(torch_weights.FORMATS))
def test_every_feature_is_the_same(name, reference, tmp_path):
    expected = reference(name)
    path = tmp_path / "weights.safetensors"
    save_file(weights(expected["entries"]), path)
    model, variables = torch_weights.load(path, name, **normalisation(name))
    layers = [*model.feature_layers]
    layers += [] if name == "lenet" else ["logits"]
    assert f"layer{len(layers)}" not in expected
    found = jax.jit(make_feature_fn(model, layers))(variables, images(name))
    for i, layer in enumerate(layers):
        ours = np.asarray(found[layer])
        assert ours.shape == tuple(expected[f"shape{i}"])
        assert error(ours, expected[f"layer{i}"]) < 1e-4, layer
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
def test_parameter_counts_are_the_published_ones(name, published, reference):
    format = torch_weights.FORMATS[name]
    model = format.build()
    x = jax.ShapeDtypeStruct((1, format.side, format.side, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == published
    assert reference(name)["parameters"] == published


def small(tmp_path, ending=".safetensors", change=lambda state: state):
    return save_weights(tmp_path / f"weights{ending}", "cifar_resnet18", change)


def load(path, name="cifar_resnet18"):
    return torch_weights.load(path, name, **CIFAR10)


def test_what_wrappers_put_before_names_is_dropped(tmp_path):
    _, plain = load(small(tmp_path))

    def parallel(state):
        return {f"module.{name}": a for name, a in state.items()}

    _, unpacked = load(small(tmp_path, change=parallel))
    jax.tree.map(np.testing.assert_array_equal, plain, unpacked)

    def halved(state):  # as a float16 file of a compiled network would be
        return {f"_orig_mod.{k}": a.astype(np.float16) for k, a in state.items()}

    _, half = load(small(tmp_path, change=halved))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(half))


def test_what_does_not_fit_is_listed(tmp_path):
    def changed(state):
        del state["layer3.1.bn2.running_var"]
        state["extra.weight"] = np.zeros(3, np.float32)
        state["layer1.0.conv2.weight"] = np.zeros((8, 8, 1, 1), np.float32)
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
    with pytest.raises(InputError, match=r"no state dict, but \['epoch'\]"):
        load(small(tmp_path, change=lambda state: {"epoch": np.int32([3])}))
    with pytest.raises(InputError, match=r"bn1.weight holds NaN"):
        load(
            small(
                tmp_path, change=lambda s: s | {"bn1.weight": s["bn1.weight"] * np.nan}
            )
        )
    with pytest.raises(InputError, match=r"expected \.safetensors"):
        load(small(tmp_path, ".h5"))


def test_without_pytorch_it_says_what_to_do(tmp_path, monkeypatch):
    path = small(tmp_path, ".pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"fssd-jax\[torch\]"):
        load(path)
