"""Files of weights: what they are is told by their content, and nothing in them is run.

Those that PyTorch itself writes it takes PyTorch to read.
"""

import argparse
import gzip
import json
import os
import pickle
import sys
import tarfile
import zipfile

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from fssd_jax import InputError, torch_files, torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax import references

ENDINGS = ["", ".th", ".t7", ".pkl", ".model", ".bin", ".ckpt", ".pth.tar"]


@pytest.fixture
def save(tmp_path):
    """(content, ending) → path of what `torch.save` makes of it."""
    import torch

    def save(content, ending=".pth", **options):
        path = tmp_path / f"weights{ending}"
        torch.save(content, path, **options)
        return path

    return save


@pytest.fixture
def state():
    import torch

    arrays = references.weights(references.read("cifar_resnet")["entries"])
    return {name: torch.from_numpy(a) for name, a in arrays.items()}


def load(path, name="cifar_resnet", **options):
    return torch_weights.load(path, name, **CIFAR10, **options)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one[1], other[1])


# ---- without PyTorch -----------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_safetensors_are_known_by_their_content(tmp_path, ending):
    a = np.arange(6, dtype=np.float16).reshape(2, 3)
    path = tmp_path / f"weights{ending}"
    save_file({"a.b": a, "n": np.arange(3)}, path)
    found = torch_files.read(path)
    assert found.keys() == {"a.b"}
    assert found["a.b"].dtype == np.float32
    np.testing.assert_array_equal(found["a.b"], a)


def test_what_has_no_name_is_passed_over_and_nothing_behind_it(tmp_path):
    tree = {(0, 1): 2, "a": {None: 3, "b": np.ones(2)}, "c": [np.zeros(1)]}
    assert torch_files._flat(tmp_path, tree).keys() == {"a.b", "c.0"}


def torch_zip(path, files=("archive/data.pkl",)):
    """A file as `torch.save` names its parts."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, pickle.dumps({}, protocol=2))
    return path.read_bytes()


def test_without_pytorch_it_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    torch_zip(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"fssd-jax\[torch\]"):
        torch_files.read(path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FOREIGN = {
    "a pointer": (POINTER, r"pointer of Git LFS .* run git lfs pull"),
    "a page": (b"\n<!DOCTYPE html>\n<html><body>404", r"a web page, .* download"),
    "a bare page": (b"<HTML>", "a web page"),
    "an answer in XML": (b'<?xml version="1.0"?><Error/>', "a web page"),
    "JSON": (json.dumps({"a": [1.0]}).encode(), "is JSON"),
    "an index": (
        json.dumps({"metadata": {}, "weight_map": {}}).encode(),
        "several fil",
    ),
    "nothing": (b"", "is empty; copy or download"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5, as Keras writes it"),
    "TensorFlow": (b'model_checkpoint_path: "model"', "TensorFlow's list"),
    "gzip": (gzip.compress(b"a"), r"compressed by gzip: unpack it by gunzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "is compressed: unpack it"),
    "NumPy": (b"\x93NUMPY\x01\x00" + bytes(100), "array of NumPy's"),
    "a pickle": (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    "an old pickle": (pickle.dumps({"a": 1}, 2), "a pickle that torch.save did not"),
    "text": (b"not this", r"begins with b'not this', as no file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), r"begins with b'.x89PNG"),
    "a header only": (b"\xff\0\0\0\0\0\0\0{", "not a whole safetensors.* 255 bytes"),
    "half a header": (b"\x02\0\0\0\0\0\0\0{a", "not a whole safetensors file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_what_a_file_is_instead(tmp_path, kind, ending):
    content, words = FOREIGN[kind]
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        torch_files.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_archives_folders_and_files_of_tensorflow(tmp_path):
    path = tmp_path / "weights.pth"
    whole = torch_zip(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=rf"is cut off: .*\({len(whole) - 20} bytes"):
        torch_files.read(path)
    torch_zip(path, ["net/data.pkl", "net/constants.pkl", "net/code/net.py"])
    with pytest.raises(InputError, match=r"a program \(TorchScript\)"):
        torch_files.read(path)
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    with pytest.raises(InputError, match=r"did not write, with \['a\.npy'\]"):
        torch_files.read(path.with_suffix(".npz"))
    with tarfile.open(path, "w") as tar:
        tar.add(path.with_suffix(".npz"), "a.npz")
    with pytest.raises(InputError, match="a tar archive"):
        torch_files.read(path)
    for name in ("model.ckpt-100.data-00000-of-00001", "saved_model.pb"):
        (tmp_path / name).write_bytes(bytes(30))
        with pytest.raises(InputError, match="named as TensorFlow's files are"):
            torch_files.read(tmp_path / name)
    with pytest.raises(InputError, match=r"is a folder, with \['model\.ckpt"):
        torch_files.read(tmp_path)


# ---- with PyTorch --------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", [*ENDINGS, ".safetensors"])
def test_files_of_pytorch_are_known_by_their_content(save, state, ending, zipped):
    few = {name: a for name, a in list(state.items())[:3]}
    path = save(few, ending, _use_new_zipfile_serialization=zipped)
    found = torch_files.read(path)
    assert found.keys() == few.keys()
    for name, a in found.items():
        np.testing.assert_array_equal(a, few[name])


@pytest.mark.peers
def test_checkpoints_are_looked_into(save, state, tmp_path):
    plain = load(save(state))
    path = references.save_weights(tmp_path / "same.safetensors", "cifar_resnet")
    same(load(path), plain)
    net = {f"module.{name}": a for name, a in state.items()}
    same(load(save({"net": net, "acc": 95.2, "epoch": 3, "args": {"lr": 0.1}})), plain)
    same(load(save([net, {"lr": 0.1}])), plain)

    halves = {f"_orig_mod.{k}": a.half() for k, a in state.items()}
    _, half = load(save(halves))
    for a, b in zip(jax.tree.leaves(plain[1]), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own code
def test_what_pytorch_itself_wraps(save):
    """Its own wrappers and optimiser make the names, not we."""
    import torch
    from torch.optim.swa_utils import AveragedModel

    from tests.fssd_jax.torch_networks import build, randomised

    network = randomised(build("cifar_resnet"))
    plain = load(save(network.state_dict()))
    averaged = AveragedModel(network)
    averaged.update_parameters(network)
    same(load(save(averaged.state_dict())), plain)
    for wrapped in (
        torch.nn.DataParallel(network),
        torch.compile(torch.nn.DataParallel(network)),
        torch.nn.ModuleDict({"net": network}),
    ):
        same(load(save({"state_dict": wrapped.state_dict()})), plain)
    network.layer3 = torch.compile(network.layer3)
    assert any("layer3._orig_mod." in name for name in network.state_dict())
    same(load(save(network.state_dict())), plain)
    optimiser = torch.optim.Adam(network.parameters())
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    state = {k: a.clone() for k, a in network.state_dict().items()}
    optimiser.step()
    content = {"model": state, "optimizer": optimiser.state_dict()}
    with pytest.warns(UserWarning, match=r"passed over: optimizer \(\d+ arrays\)$"):
        same(load(save(content)), plain)
    # Settings that stand twice: groups of an optimiser share a tuple.
    groups = [{"betas": (0.9, 0.99)}] * 2
    content = {"state_dict": state, "groups": groups, "type": torch.float32}
    same(load(save(content)), plain)


@pytest.mark.peers
def test_what_is_refused_is_named_and_the_advice_can_be_followed(save, state):
    import torch

    plain = load(save(state))
    args = argparse.Namespace(lr=0.1, arch="resnet20")
    path = save({"state_dict": state, "epoch": 3, "args": args})
    with pytest.raises(InputError, match=r"globals\(\[argparse\.Namespace\]\)"):
        load(path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        same(load(path), plain)
    same(load(save(torch.load(path, weights_only=False)["state_dict"])), plain)

    path = save({"state_dict": state, "acc": np.float64(0.93)})
    with pytest.raises(InputError, match=r"NumPy's numbers .*multiarray\.scalar"):
        load(path)
    same(load(save(torch.load(path, weights_only=False)["state_dict"])), plain)

    for content, words in (
        ({"state_dict": state, "cut": slice(1)}, "asks for slice"),
        (torch.nn.Linear(2, 3), r"a whole module .*torch\.nn\.modules\.linear\.Linear"),
    ):
        for zipped in (True, False):
            path = save(content, _use_new_zipfile_serialization=zipped)
            with pytest.raises(InputError, match=words):
                load(path)
    with pytest.raises(InputError, match=r"weights only: Unsupported operand 149"):
        load(save(state, pickle_protocol=4))


@pytest.mark.peers
def test_what_is_cut_off_is_told(save, state):
    for zipped in (True, False):
        path = save(state, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for size in (len(whole) - 30, len(whole) // 2, 200, 60):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match="cut off"):
                load(path)


@pytest.mark.peers
def test_a_program_is_not_run(tmp_path):
    import torch

    path = tmp_path / "program.pt"
    example = torch.ones(1, 2)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), example), path)
    with pytest.raises(InputError, match=r"a program \(TorchScript\)"):
        torch_files.read(path)


@pytest.mark.peers
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


@pytest.mark.peers
def test_what_is_no_state_dict_is_an_error(save):
    import torch

    with pytest.raises(InputError, match=r"no state dict, but \['epoch'\]"):
        load(save({"epoch": 3}))
    with pytest.raises(InputError, match=r"holds a Tensor, not a state dict"):
        load(save(torch.ones(3)))


class Calls:
    """Unpickled, it is what the function returns."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.peers
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
                torch_files.read(path)
    assert not touched.exists()
    # What PyTorch takes for a pickle, by its start, ends as a zip archive does.
    torch.save({"a": Calls(bytearray, 9)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + torch_zip(tmp_path / "tail"))
    with pytest.raises(InputError, match="makes a bytearray"):
        torch_files.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(2**30 + 1))
    with pytest.raises(InputError, match="a decompression bomb"):
        torch_files.read(path)
