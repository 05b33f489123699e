"""Damaged and malicious files: our error or a right answer, and nothing else.

Those of images by hand: `test_hostile_images.py`.
"""

import contextlib
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

import fssd_jax
from experiments.comparison import rows
from experiments.harness.files import load_arrays
from fssd_jax import InputError, bounded, saving, torch_files
from fssd_jax.data import folders, glyphs
from fssd_jax.detectors import msp
from tests.fssd_jax.saved import WEIGHTS, rewrite
from tests.hostile import judge
from tests.hostile_readers import READERS

MUTATIONS = 120


@pytest.fixture(scope="module")
def judged():
    """All in one child, because it takes seconds to import JAX."""
    return judge(list(READERS), MUTATIONS)


@pytest.mark.parametrize("name", list(READERS))
def test_mutated_files_are_refused_or_read_rightly(judged, name):
    assert judged[name].failures == []
    assert judged[name].counts.total() == MUTATIONS
    assert judged[name].counts["refused"] > MUTATIONS / 10


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "a.npz"
    array = np.array([Touch(touched)], object)
    saved = fssd_jax.Fitted("msp", {}, msp.fit())
    for name in ("x", "meta", "fssd_jax_detector"):
        for read in (
            lambda: folders.load_images(path, size=4, channels=3, progress=False),
            lambda: glyphs.read(path),
            lambda: load_arrays(path),
            lambda: rows.load(path),
            lambda: fssd_jax.load(path, WEIGHTS),
        ):
            np.savez(path, allow_pickle=True, **{name: array})
            with pytest.raises(InputError):
                read()
            path.write_bytes(pickle.dumps(Touch(touched)))
            with pytest.raises(InputError):
                read()
    fssd_jax.save(path, saved, WEIGHTS)
    with np.load(path) as entries:
        content = dict(entries)
    np.savez(path, allow_pickle=True, **content, arr_0=array)
    rewritten = path.read_bytes()
    with contextlib.suppress(ValueError):
        rewrite(path)
    with pytest.raises(InputError):
        fssd_jax.load(path, WEIGHTS)
    path.write_bytes(rewritten)
    assert not touched.exists()
    with np.load(path, allow_pickle=True) as entries:
        entries["arr_0"]  # it would have been
    assert touched.exists()


def test_the_limit_lets_what_is_large_but_no_bomb_pass():
    bounded.check_size("a", 1, 2**30)
    bounded.check_size("a", 2**40, 100 * 2**40)
    with pytest.raises(InputError, match="1 bytes would unpack to 1073741825"):
        bounded.check_size("a", 1, 2**30 + 1)


# ---- saved detectors ----------------------------------------------------------------


@pytest.fixture
def detector(tmp_path):
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1, None]}
    path = tmp_path / "detector.npz"
    fssd_jax.save(path, fssd_jax.Fitted("msp", {}, state), WEIGHTS)
    return path


def array(**changes):
    of = {"kind": "array", "shape": [2, 3], "dtype": "float32", "weak": False}
    return of | {"key": None} | changes


@pytest.mark.parametrize(
    "header",
    [
        {"state": {"kind": "dict", "items": [["a", array(shape=[3, 2])]]}},
        {"state": {"kind": "dict", "items": [["a", array(dtype="int32")]]}},
        {"state": {"kind": "dict", "items": [["a", array(dtype="O")]]}},
        {"state": {"kind": "dict", "items": [["a", array(key="threefry2x32")]]}},
        {"state": {"kind": "dict", "items": [["a", array()], ["b", array()]]}},
        {"state": {"kind": "dict"}},
        {"state": {"kind": ["a"], "items": []}},
        {"state": {"kind": "fssd_jax.\0:State", "items": []}},
        {"state": {"kind": "fssd_jax.detectors.msp:State", "items": [[["a"], 1]]}},
        {"state": []},
        {"config": []},
        {"weights": None},
        {"method": 3},
        {"version": "1"},
        {"package": None},
    ],
)
def test_a_header_that_describes_nothing(detector, header):
    fssd_jax.load(detector, WEIGHTS)
    rewrite(detector, **header)
    with pytest.raises(InputError, match=r"detector\.npz"):
        fssd_jax.load(detector, WEIGHTS)


def test_a_header_that_is_nested_without_end(detector):
    deep = "[" * 10**5 + "]" * 10**5
    rewrite(detector, state="STATE")
    content = detector.read_bytes()
    assert b'"STATE"' in content
    with np.load(io.BytesIO(content)) as entries:
        arrays = dict(entries)
    header = arrays[saving.FORMAT].tobytes().replace(b'"STATE"', deep.encode())
    arrays[saving.FORMAT] = np.frombuffer(header, np.uint8)
    np.savez(detector, **arrays)
    seal(detector)
    with pytest.raises(InputError, match="no header"):
        fssd_jax.load(detector, WEIGHTS)


def seal(path):
    """The digest that belongs to the content."""
    import hashlib

    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"-" * 64
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


# ---- state dicts --------------------------------------------------------------------


def test_dicts_that_hold_themselves(tmp_path):
    circle: dict = {"a": np.ones(1)}
    circle["b"] = circle
    many: dict = {}
    for _ in range(40):  # 2⁴⁰ paths lead to its end
        many = {"a": many, "b": many}
    for tree in (circle, many):
        with pytest.raises(InputError, match="stands there twice"):
            torch_files._flat(tmp_path, tree)
    shared: dict = {"lr": 0.1, "betas": (0.9, 0.99)}  # settings may recur
    shared["self"] = shared
    found = torch_files._flat(tmp_path, {"x": np.ones(1), "a": shared, "b": shared})
    assert found.keys() == {"x", "b.lr", "b.betas.0", "b.betas.1"}
    names = {"a": {"b.c": 1, 0: {"d": 2}}, "e": 3}
    assert torch_files._flat(tmp_path, names) == {"a.b.c": 1, "a.0.d": 2, "e": 3}
