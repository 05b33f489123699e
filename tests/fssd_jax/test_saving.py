"""Saved detectors come back as they were."""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import Fitted, InputError, load, save
from fssd_jax.detectors import fssd, msp
from tests.fssd_jax.saved import CONFIG, LAYERS, WEIGHTS, small_state


@pytest.fixture
def path(tmp_path):
    """A saved detector."""
    save(tmp_path / "detector.npz", Fitted("fssd", CONFIG, small_state()), WEIGHTS)
    return tmp_path / "detector.npz"


def assert_same(a, b):
    """Same containers, in the same order, and JAX arrays that agree in every bit."""
    if isinstance(a, jax.Array | np.ndarray | np.generic):
        assert isinstance(b, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert getattr(a, "weak_type", False) == getattr(b, "weak_type", False)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = (jax.random.key_data(jnp.asarray(key)) for key in (a, b))
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        return
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        a, b = a.values(), b.values()
    elif not isinstance(a, tuple | list):
        assert a == b
        return
    for one, other in zip(a, b, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("data", ["noise", "clean", "paper"])
def test_a_loaded_fssd_scores_the_same_to_the_last_bit(smooth, tmp_path, data):
    feature_fn, variables, _, _ = smooth
    rng = np.random.default_rng(0)
    noise, ind, ood, x = rng.uniform(size=(4, 40, 4, 4, 1)).astype(np.float32)
    noise = 0.2 + 0.6 * noise  # nearer to F* than the data, at every layer
    given = {"noise": (), "clean": (ind,), "paper": (ind, ood / 2)}[data]
    state = fssd.fit(feature_fn, variables, noise, *given, epsilons=(0.02,))
    assert (state.epsilon is None) == (data != "paper")
    save(tmp_path / "d.npz", Fitted("fssd", CONFIG, state), variables)
    layers = ["logits", "first", "second"]
    found = load(
        tmp_path / "d.npz", variables, mean=(0.25, 0.5), std=[0.3, 0.1], layers=layers
    )
    assert found.method == "fssd"
    assert found.config == {"mean": [0.25, 0.5], "std": [0.3, 0.1], "threshold": -1.25}
    assert_same(state, found.state)
    one, other = (
        fssd_jax.map_batches(fssd.score, feature_fn, variables, s, x)
        for s in (state, found.state)
    )
    assert np.ptp(one) > 0
    assert one.tobytes() == other.tobytes()


def test_every_kind_of_state_survives(tmp_path):
    keys = (jax.random.key(5), jax.random.split(jax.random.key(6, impl="rbg"), 3))
    state = {
        "named": small_state(),
        "b": OrderedDict(z=np.zeros((2, 0), np.float32), a={"y": (), "x": [None]}),
        "a": {3: True, "three": 3, "b": 0.1, "a": float("inf"), "big": 2**80},
        "float32": jnp.asarray([1.1, -0.0, jnp.nan, 1e-40], jnp.float32),
        "bfloat16": jnp.full((2, 3), 3e38, jnp.bfloat16),
        "small": (jnp.asarray([True, False]), jnp.float16(0.1), jnp.uint8(200)),
        "integers": [np.arange(6, dtype=np.int32).reshape(2, 3).T, np.int32(-7)],
        # What Python numbers become: bfloat16 times this remains bfloat16.
        "weak": [jnp.asarray(0.1), jnp.where(jnp.arange(3) > 1, 0.1, -2.5)],
        "keys": keys,
    }
    assert state["weak"][1].weak_type
    save(tmp_path / "d.npz", Fitted("fssd", {}, state), WEIGHTS)
    found = load(tmp_path / "d.npz", WEIGHTS).state
    assert_same(state, found)
    for one, other in zip(keys, found["keys"], strict=True):
        assert jax.random.key_impl(one) == jax.random.key_impl(other)
        one, other = (jax.vmap(jax.random.normal)(jnp.ravel(k)) for k in (one, other))
        np.testing.assert_array_equal(one, other)


def test_a_state_without_arrays(tmp_path):
    save(tmp_path / "d", Fitted("msp", {}, msp.fit()), WEIGHTS)
    assert load(tmp_path / "d", WEIGHTS) == Fitted("msp", {}, msp.State())
    with pytest.raises(InputError, match=r"layers \[\], expected \['first'\]"):
        load(tmp_path / "d", WEIGHTS, layers=["first"])
    save(tmp_path / "d", Fitted("msp", {"layers": ("b", "a")}, msp.fit()), WEIGHTS)
    load(tmp_path / "d", WEIGHTS, layers=("a", "b"))


def test_another_process_reads_the_same(path):
    code = f"""
import sys, jax, numpy as np, fssd_jax
assert "fssd_jax.detectors.fssd" not in sys.modules
a = np.arange(6, dtype=np.float32).reshape(2, 3)
found = fssd_jax.load({str(path)!r}, {{"params": {{"b": np.ones(2), "a": a}}}})
print(type(found.state))
print(*(np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(found.state)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    leaves = [np.asarray(a).tobytes().hex() for a in jax.tree.leaves(small_state())]
    expected = ["<class 'fssd_jax.detectors.fssd.State'>", " ".join(leaves)]
    assert done.stdout.split("\n")[:2] == expected


def test_the_file_is_a_plain_npz_that_says_what_it_is(path):
    assert sorted(path.parent.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as entries:
        header = json.loads(entries["fssd_jax_detector"].tobytes())
        np.testing.assert_array_equal(entries["arr_0"], [6, 6])  # "second"
    assert header["format"] == "fssd_jax_detector"
    assert (header["version"], header["package"]) == (1, fssd_jax.__version__)
    assert header["method"] == "fssd"
    assert header["config"]["threshold"] == -1.25
    assert header["weights"]["variables['params']['a']"] == "float32[2, 3]"
    center = header["state"]["items"][0][1]["items"][0][1]
    assert [key for key, _ in center["items"]] == LAYERS
    assert center["items"][0][1]["shape"] == [2]
    assert center["items"][0][1]["dtype"] == "float32"
    # The digest that the documentation describes, by hand.
    a, b = np.arange(6, dtype="<f4").tobytes(), np.ones(2, "<f8").tobytes()
    text = b"variables['params']['a'] float32[2, 3]\n" + a
    text += b"variables['params']['b'] float64[2]\n" + b
    text += b"[[0.25, 0.5], [0.3, 0.1]]"
    assert header["sha256"] == hashlib.sha256(text).hexdigest()


def test_saving_again_replaces(path):
    save(path, Fitted("msp", {}, msp.fit()), WEIGHTS)
    assert load(str(path), WEIGHTS).method == "msp"


def test_64_bits_need_to_be_switched_on(tmp_path):
    fitted = Fitted("fssd", {}, (np.array([1 + 1e-15]),))
    with pytest.raises(InputError, match="state/0: JAX would shorten float64"):
        save(tmp_path / "d", fitted, WEIGHTS)
    with jax.enable_x64(True):
        save(tmp_path / "d", fitted, WEIGHTS)
        assert_same(fitted.state, load(tmp_path / "d", WEIGHTS).state)
    with pytest.raises(InputError, match=r"float64.*jax_enable_x64"):
        load(tmp_path / "d", WEIGHTS)
