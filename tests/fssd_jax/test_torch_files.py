"""Files of weights: what they are is told by their content, and nothing in them is run.

Without PyTorch; those that it writes itself: `test_torch_pickle.py`.
"""

import gzip
import json
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from fssd_jax import InputError, torch_files

ENDINGS = ["", ".th", ".t7", ".pkl", ".model", ".bin", ".ckpt", ".pth.tar"]


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
