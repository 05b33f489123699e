"""Files that PyTorch itself writes, which it takes PyTorch to read."""

import argparse
import os
import zipfile

import jax
import numpy as np
import pytest

from fssd_jax import InputError, torch_files, torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax import references
from tests.fssd_jax.test_torch_files import ENDINGS, torch_zip

pytestmark = pytest.mark.peers


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


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", [*ENDINGS, ".safetensors"])
def test_files_of_pytorch_are_known_by_their_content(save, state, ending, zipped):
    few = {name: a for name, a in list(state.items())[:3]}
    path = save(few, ending, _use_new_zipfile_serialization=zipped)
    found = torch_files.read(path)
    assert found.keys() == few.keys()
    for name, a in found.items():
        np.testing.assert_array_equal(a, few[name])


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


def test_what_is_cut_off_is_told(save, state):
    for zipped in (True, False):
        path = save(state, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for size in (len(whole) - 30, len(whole) // 2, 200, 60):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match="cut off"):
                load(path)


def test_a_program_is_not_run(tmp_path):
    import torch

    path = tmp_path / "program.pt"
    example = torch.ones(1, 2)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), example), path)
    with pytest.raises(InputError, match=r"a program \(TorchScript\)"):
        torch_files.read(path)


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
