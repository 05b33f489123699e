"""Files that PyTorch itself writes: .pt and .pth, which it takes PyTorch to read."""

import os
import zipfile

import jax
import numpy as np
import pytest

from fssd_jax import InputError, torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax import references

pytestmark = pytest.mark.peers


@pytest.fixture
def save(tmp_path):
    """(ending, change) → path of what `torch.save` makes of the state dict."""
    import torch

    def save(ending=".pth", change=lambda state: state):
        state = references.weights(references.read("cifar_resnet18")["entries"])
        path = tmp_path / f"weights{ending}"
        torch.save(change({k: torch.from_numpy(a) for k, a in state.items()}), path)
        return path

    return save


def load(path, name="cifar_resnet18"):
    return torch_weights.load(path, name, **CIFAR10)


def test_checkpoints_are_looked_into(save, tmp_path):
    path = references.save_weights(tmp_path / "same.safetensors", "cifar_resnet18")
    _, same = load(path)
    _, plain = load(save())
    jax.tree.map(np.testing.assert_array_equal, same, plain)

    def packed(state):
        net = {f"module.{name}": a for name, a in state.items()}
        return {"net": net, "acc": 95.2, "epoch": 3}

    _, unpacked = load(save(".pt", packed))
    jax.tree.map(np.testing.assert_array_equal, plain, unpacked)

    def halved(state):  # as a float16 file of a compiled network would be
        return {f"_orig_mod.{k}": a.half() for k, a in state.items()}

    _, half = load(save(".bin", halved))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(half))


def test_the_released_face_file_is_two_state_dicts_in_one(tmp_path):
    import torch

    from tests.fssd_jax.torch_networks import build, randomised

    network = randomised(build("face_resnext50", 32))
    path = tmp_path / "face.pth"
    parts = {"backbone": network.backbone, "head": network.head}
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    normal = {"mean": (0.5,) * 3, "std": (1.0,) * 3}
    model, variables = torch_weights.load(path, "face_resnext50", **normal)
    assert (model.mean, model.std) == (normal["mean"], normal["std"])
    kernel = variables["params"]["logits"]["kernel"]
    np.testing.assert_array_equal(kernel, network.head.kernel.detach())


def test_what_is_no_state_dict_is_an_error(save, tmp_path):
    import torch

    from tests.fssd_jax.torch_networks import build

    # A checkpoint of another kind, with an optimiser's state, whose keys are numbers.
    def other(state):
        return {"weights": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}

    with pytest.raises(InputError, match=r"surplus .*optimizer\.state\.0\.step"):
        load(save(change=other))
    with pytest.raises(InputError, match=r"no state dict, but \['epoch'\]"):
        load(save(change=lambda state: {"epoch": 3}))
    whole = tmp_path / "whole.pth"
    torch.save(build("lenet"), whole)  # the module itself, pickled
    with pytest.raises(InputError, match="weights only"):
        load(whole, "lenet")


class Calls:
    """Unpickled, it is what the function returns."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_is_run_and_memory_is_bounded(tmp_path):
    import _codecs

    import torch

    path, touched = tmp_path / "bomb.pth", tmp_path / "touched"
    one = torch.ones(1)
    circle: dict = {"a": one}
    circle["b"] = circle
    for content, words in (
        (Calls(os.mkdir, str(touched)), "weights only"),
        (Calls(bytearray, 3 * 10**9), "makes a bytearray"),
        (Calls(_codecs.encode, b"", "hex"), "no state dict holds"),
        (Calls(torch.FloatTensor, 10), "makes a FloatTensor"),  # of what was there
        (one.expand(10**10), "a decompression bomb"),
        (one.half().expand(10**10), "a decompression bomb"),
        (circle, "stands there twice"),
        (torch.eye(3).to_sparse(), "no dense array"),
        (torch.ones(3, device="meta"), "no dense array"),
    ):
        for zipped in (True, False):
            torch.save({"a": content}, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match=words):
                torch_weights.read(path)
    assert not touched.exists()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(2**30 + 1))
    with pytest.raises(InputError, match="a decompression bomb"):
        torch_weights.read(path)
