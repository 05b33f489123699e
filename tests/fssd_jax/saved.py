"""A small saved detector for the tests of saving, and how to change its file."""

import hashlib
import json
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np

from fssd_jax.detectors import fssd
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
