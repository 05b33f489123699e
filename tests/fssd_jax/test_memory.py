"""The batch that the memory of a device allows, told by devices that are not there."""

from collections import OrderedDict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import memory
from fssd_jax.memory import LEAST, MOST, row_bytes, scoring_batch

W = jax.random.normal(jax.random.key(0), (12, 50))
ONE = np.zeros((1, 2, 2, 3), np.uint8)


def network(variables, x):
    hidden = jnp.tanh(x.reshape(len(x), -1) @ variables)
    return OrderedDict(hidden=hidden, squares=hidden**2)


def devices(monkeypatch, *stats, platform="gpu", count=None):
    fakes = [
        SimpleNamespace(platform=platform, memory_stats=lambda s=s: s) for s in stats
    ]
    chosen = fakes, count or len(fakes)
    monkeypatch.setattr(memory, "scoring_devices", lambda: chosen)


def holding(rows):
    """Of which half holds so many."""
    return {"bytes_limit": 2 * rows * row_bytes(network, W, ONE), "bytes_in_use": 0}


@pytest.mark.parametrize(
    ("rows", "size"),
    [(1, LEAST), (127, 64), (129, 128), (1000, 512), (4097, MOST), (1e9, MOST)],
)
def test_the_batch_grows_with_the_memory(rows, size, monkeypatch):
    devices(monkeypatch, holding(rows))
    assert scoring_batch(network, W, ONE) == size


def test_what_is_in_use_is_not_taken(monkeypatch):
    stats = holding(1100)
    devices(monkeypatch, stats | {"bytes_in_use": stats["bytes_limit"] / 4})
    assert scoring_batch(network, W, ONE) == 512
    devices(monkeypatch, stats | {"bytes_in_use": stats["bytes_limit"]})
    assert scoring_batch(network, W, ONE) == LEAST


def test_a_batch_is_divided_among_devices_and_the_fullest_decides(monkeypatch):
    devices(monkeypatch, *[holding(300)] * 4)
    assert scoring_batch(network, W, ONE) == 1024
    devices(monkeypatch, *[holding(300)] * 3, holding(150))
    assert scoring_batch(network, W, ONE) == 512
    devices(monkeypatch, holding(300), count=8)  # seven of other processes
    assert scoring_batch(network, W, ONE) == 2048


@pytest.mark.parametrize("stats", [None, {}, {"bytes_in_use": 1}])
def test_of_what_tells_no_memory_it_is_the_least(stats, monkeypatch):
    devices(monkeypatch, holding(1000), stats)
    assert scoring_batch(network, W, ONE) == LEAST


def test_cpus_have_the_least_and_compile_nothing_for_it(monkeypatch):
    monkeypatch.setattr(memory, "row_bytes", None)
    assert scoring_batch(network, W, ONE) == LEAST
    devices(monkeypatch, {"bytes_limit": 1 << 40}, platform="cpu")
    assert scoring_batch(network, W, ONE) == LEAST


def test_a_row_takes_what_its_arrays_take():
    def wide(variables, x):
        return OrderedDict(a=jnp.tanh(x.reshape(len(x), -1) @ variables))

    small, large = (row_bytes(wide, jnp.ones((12, n)), ONE) for n in (1000, 8000))
    assert small >= 4 * 1000
    assert large == pytest.approx(8 * small, rel=0.1)


def test_ids_have_no_step():
    def of_ids(variables, x):
        return OrderedDict(a=variables[x].sum(1))

    ids = np.zeros((1, 7), np.int32)
    assert row_bytes(of_ids, W, ids) >= 4 * 7
