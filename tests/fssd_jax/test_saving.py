import hashlib
import json
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

import fssd_jax
from fssd_jax import Fitted, InputError, load, save, saving
from fssd_jax.detectors import fssd, msp
from fssd_jax.ensemble import Ensemble
from fssd_jax.fssd import Singularity

CONFIG = {"mean": (0.25, 0.5), "std": (0.3, 0.1), "threshold": -1.25}
WEIGHTS = {
    "params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)}
}
LAYERS = ["second", "first"]  # not in alphabetical order


def small_state():
    center = OrderedDict((k, jnp.full(2, len(k), jnp.float32)) for k in LAYERS)
    spread = OrderedDict((k, jnp.float32(0.1)) for k in LAYERS)
    weights = Ensemble(*(jnp.full(2, i, jnp.float32) for i in range(4)))
    none = jnp.zeros(0)
    return fssd.State(
        Singularity(center, spread, jnp.int32(9)), None, weights, none, none
    )


@pytest.fixture
def path(tmp_path):
    """A saved detector."""
    save(tmp_path / "detector.npz", Fitted("fssd", CONFIG, small_state()), WEIGHTS)
    return tmp_path / "detector.npz"


def rewrite(path, **changes):
    """Another header in an otherwise valid file, with a digest that is right."""
    with np.load(path) as entries:
        content = dict(entries)
    header = json.loads(content["fssd_jax_detector"].tobytes()) | changes
    content["fssd_jax_detector"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"-" * 64
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


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


def test_a_flipped_bit_is_found(path):
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in [*range(0, len(good), 5), *range(len(good) - 100, len(good))]:
        bad = bytearray(good)
        bad[i] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(InputError, match="damaged or cut off"):
            load(path, WEIGHTS)
    path.write_bytes(good)
    load(path, WEIGHTS)


def test_a_truncated_or_longer_file_is_found(path):
    good = path.read_bytes()
    for size in [*range(0, len(good), 40), len(good) - 1]:
        path.write_bytes(good[:size])
        known = size > 60  # the name of the first entry is there
        match = "damaged or cut off" if known else "something else|damaged"
        with pytest.raises(InputError, match=match):
            load(path, WEIGHTS)
    path.write_bytes(good + b"\n")
    with pytest.raises(InputError, match="damaged"):
        load(path, WEIGHTS)


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "file"
    np.savez(tmp_path / "file.npz", a=np.ones(3))
    foreign = (tmp_path / "file.npz").read_bytes()
    contents = [b"", b"mean,std\n" * 99, foreign, pickle.dumps({"a": 1}), bytes(500)]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"fssd_jax\.save wrote, but .*something else"
        ):
            load(path, WEIGHTS)
    for missing in (tmp_path / "none.npz", tmp_path, path / "below"):
        with pytest.raises(InputError, match=r"cannot be read \(.*; give a file"):
            load(missing, WEIGHTS)


def test_a_newer_format_is_refused(path):
    rewrite(path)
    load(path, WEIGHTS)  # so it is the version alone
    rewrite(path, version=2, package="7.8", state="of another kind")
    with pytest.raises(InputError, match=r"version 2, of fssd_jax 7\.8.*update"):
        load(path, WEIGHTS)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": np.nextafter(WEIGHTS["params"]["a"], 9)}, "only the values differ"),
        (
            {"a": np.arange(6, dtype=np.float32).reshape(3, 2)},
            r"'a'\]: float32\[2, 3\] t",
        ),
        ({"a": np.arange(6).reshape(2, 3)}, r"'a'\]: .* then, int64\[2, 3\] now"),
        ({"b": -np.ones(2)}, "only the values differ"),
        ({"aa": np.ones(1)}, r"'aa'\]: none then, float64\[1\] now"),
        ({"b": {"c": np.ones(2)}}, r"'b'\]: float64\[2\] then, none now"),
    ],
)
def test_other_weights(path, other, message):
    with pytest.raises(InputError, match=rf"other weights \(.*{message}.*fit again"):
        load(path, {"params": {**WEIGHTS["params"], **other}})


def test_the_same_weights_in_another_guise(path):
    a, b = WEIGHTS["params"]["a"], WEIGHTS["params"]["b"]
    load(path, {"params": {"b": b, "a": jnp.asarray(a)}})
    load(path, {"params": OrderedDict(b=b, a=np.asfortranarray(a))})
    load(path, dict(freeze(WEIGHTS)))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"mean": (0.25, 0.6)}, r"mean \[0\.25, 0\.5\], expected \[0\.25, 0\.6\]"),
        ({"mean": (0.25,)}, r"expected \[0\.25\]"),
        ({"mean": CONFIG["mean"], "std": (1.0, 1.0)}, r"std \[0\.3, 0\.1\], expected"),
        ({"threshold": None}, r"threshold -1\.25, expected None"),
        ({"seed": 0}, "seed nothing, expected 0"),
        ({"seed": "nothing"}, "seed nothing, expected nothing"),
        ({"seed": None}, "seed nothing, expected None"),
        ({"layers": ["first"]}, r"layers \['first', 'second'\], expected \['first'\]"),
        ({"layers": [*LAYERS, "third"]}, r"expected \['first', 'second', 'third'\]"),
        ({"mean": np.ones(2)}, "mean: not JSON data"),
    ],
)
def test_other_expectations(path, expected, message):
    with pytest.raises(InputError, match=message):
        load(path, WEIGHTS, **expected)
    load(path, WEIGHTS, **CONFIG, layers=LAYERS)


@pytest.mark.parametrize(
    "bad", [np.ones(2), jnp.float32(1), float("nan"), len, {("a", "b"): 1}, {1, 2}]
)
def test_a_config_that_is_not_json(tmp_path, bad):
    config = {"mean": [bad]}
    with pytest.raises(InputError, match=r"config: not JSON.*tolist"):
        save(tmp_path / "d", Fitted("msp", config, msp.fit()), WEIGHTS)
    assert list(tmp_path.iterdir()) == []


class Foreign(NamedTuple):
    a: int = 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (len, "builtin_function"),
        ("text", "str"),
        (1j, "complex"),
        ({1, 2}, "set"),
        ({("a",): 1}, "dict"),
        (Foreign(), "Foreign"),
        (namedtuple("State", "a")(1), "State"),
        (freeze({"a": 1}), "FrozenDict"),
        (np.array([None]), "array of object"),
        (np.array(["a"]), "array of <U1"),
        (np.zeros(1, [("a", "f4")]), "array of"),
    ],
)
def test_a_state_that_cannot_be_saved(tmp_path, bad, message):
    state = small_state()._replace(epsilon={"inner": [0, bad]})
    with pytest.raises(InputError, match=f"state/epsilon/inner/1: .* this {message}"):
        save(tmp_path / "d", Fitted("fssd", {}, state), WEIGHTS)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"variables\['bad'\].*cannot save"):
        save(tmp_path / "d", Fitted("msp", {}, ()), {"bad": len})


def test_64_bits_need_to_be_switched_on(tmp_path):
    fitted = Fitted("fssd", {}, (np.array([1 + 1e-15]),))
    with pytest.raises(InputError, match="state/0: JAX would shorten float64"):
        save(tmp_path / "d", fitted, WEIGHTS)
    with jax.enable_x64(True):
        save(tmp_path / "d", fitted, WEIGHTS)
        assert_same(fitted.state, load(tmp_path / "d", WEIGHTS).state)
    with pytest.raises(InputError, match=r"float64.*jax_enable_x64"):
        load(tmp_path / "d", WEIGHTS)


def test_unknown_methods(path):
    with pytest.raises(
        InputError, match=r"method: 'sspf' is none of \[.*'fssd'.*'msp'"
    ):
        save(path, Fitted("sspf", {}, ()), WEIGHTS)
    assert load(path, WEIGHTS).method == "fssd"
    rewrite(path, method="sspf")
    with pytest.raises(InputError, match="'sspf' is none of"):
        load(path, WEIGHTS)


@pytest.mark.parametrize(
    "kind",
    """antigravity:fly os:stat_result set fssd_jax.detectors.fssd fssd_jax_other:State
    fssd_jax.saving:os fssd_jax.saving:Path fssd_jax.saving:OrderedDict
    fssd_jax.saving:NamedTuple fssd_jax.saving:save fssd_jax.checks:InputError
    fssd_jax.detectors.fssd:Gone fssd_jax.gone:State""".split(),
)
def test_a_file_can_name_no_class_but_our_named_tuples(path, kind):
    rewrite(path, state={"kind": kind, "items": []})
    with pytest.raises(InputError, match=f"no NamedTuple {kind} with the fields"):
        load(path, WEIGHTS)
    assert "antigravity" not in sys.modules
    rewrite(path, state={"kind": "fssd_jax.detectors.msp:State", "items": []})
    assert load(path, WEIGHTS).state == msp.State()


def test_nor_one_that_is_found_there_but_not_ours(path, monkeypatch):
    plain = type("Plain", (tuple,), {"__module__": saving.__name__})
    alike = types.ModuleType("fssd_jax_alike")
    cls = type("Foreign", (Foreign,), {"__module__": alike.__name__})
    monkeypatch.setattr(alike, "Foreign", cls, raising=False)
    monkeypatch.setitem(sys.modules, alike.__name__, alike)
    for cls in (Foreign, plain):
        monkeypatch.setattr(saving, cls.__name__, cls, raising=False)
    field = ["a", {"kind": "number", "value": 1}]
    for kind, items in (
        ("fssd_jax.saving:Foreign", [field]),
        ("fssd_jax_alike:Foreign", [field]),
        ("fssd_jax.saving:Plain", []),
    ):
        rewrite(path, state={"kind": kind, "items": items})
        with pytest.raises(InputError, match=f"no NamedTuple {kind}"):
            load(path, WEIGHTS)


def test_a_named_tuple_whose_fields_have_changed(path):
    number = {"kind": "number", "value": 1}
    state = {"kind": "fssd_jax.detectors.msp:State", "items": [["old", number]]}
    rewrite(path, state=state, package="0.0.1")
    with pytest.raises(InputError, match=r"of 0\.0\.1: .*fields \['old'\].*fit again"):
        load(path, WEIGHTS)


def test_where_it_cannot_be_written(path, monkeypatch):
    fitted = Fitted("msp", {}, msp.fit())
    for bad in (path.parent / "none" / "d.npz", path / "d.npz", path.parent, "x" * 300):
        with pytest.raises(
            InputError, match=r"cannot be written \(.*folder that exists"
        ):
            save(bad, fitted, WEIGHTS)
    good = path.read_bytes()

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        save(path, fitted, WEIGHTS)
    assert path.read_bytes() == good
    assert list(path.parent.iterdir()) == [path]
