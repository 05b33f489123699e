"""What `load` and `save` refuse: damaged, foreign and unfitting files."""

import pickle
import sys
import types
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from fssd_jax import Fitted, InputError, load, save, saving
from fssd_jax.detectors import msp
from tests.fssd_jax.saved import CONFIG, LAYERS, WEIGHTS, rewrite, small_state


@pytest.fixture
def path(tmp_path):
    """A saved detector."""
    save(tmp_path / "detector.npz", Fitted("fssd", CONFIG, small_state()), WEIGHTS)
    return tmp_path / "detector.npz"


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
