"""Every reader of the package, a small good file for each, and what it may answer."""

import json
import lzma
import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import fssd_jax
from experiments.comparison import report, rows
from experiments.harness.files import load_arrays, load_json, save_arrays, write_json
from fssd_jax import checkpoint, torch_files, torch_formats, torch_weights
from fssd_jax.data import sequence_files
from fssd_jax.detectors import fssd
from fssd_jax.ensemble import Ensemble
from fssd_jax.fssd import Singularity
from tests import hostile
from tests.fssd_jax.saved import CONFIG, LAYERS, WEIGHTS
from tests.hostile import Reader
from tests.hostile_images import IMAGES, RGB


def equal(answer, good) -> bool:
    """Of what carries a checksum: nothing but what was written."""
    answer, good = jax.tree.map(_bits, (answer, good))
    a, b = jax.tree.leaves(answer), jax.tree.leaves(good)
    same = jax.tree.structure(answer) == jax.tree.structure(good)
    return same and all(map(np.array_equal, a, b))


def _bits(leaf):
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
    return jax.random.key_data(leaf) if is_key else leaf


# ---- detectors and weights ----------------------------------------------------------


def write_detector(folder: Path) -> None:
    center = OrderedDict((k, jnp.full(2, len(k), jnp.bfloat16)) for k in LAYERS)
    spread = OrderedDict((k, jnp.float32(0.1)) for k in LAYERS)
    weights = Ensemble(*(jnp.full(2, i, jnp.float32) for i in range(4)))
    state = fssd.State(
        Singularity(center, spread, jnp.int32(9)),
        None,
        weights,
        jnp.zeros(0),
        [jax.random.key(3), 2.5],  # what else a state may hold
    )
    fitted = fssd_jax.Fitted("fssd", CONFIG, state)
    fssd_jax.save(folder / "detector.npz", fitted, WEIGHTS)


def read_detector(folder: Path):
    return fssd_jax.load(folder / "detector.npz", WEIGHTS)


def is_detector(answer, good) -> bool:
    """One that was sealed again may hold what it likes, if it can be saved."""
    leaves = jax.tree.leaves(answer.state)
    kinds = all(isinstance(a, jax.Array | int | float | bool) for a in leaves)
    return kinds and isinstance(answer.config, dict)


def state_dict() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1.weight": rng.normal(size=(2, 1, 3, 3)).astype(np.float32),
        "conv1.bias": rng.normal(size=2).astype(np.float32),
        "bn.running_var": rng.uniform(size=2).astype(np.float32),
        "bn.num_batches_tracked": np.zeros((), np.int64),
        "fc.weight": rng.normal(size=(3, 8)).astype(np.float16),
    }


def write_torch(folder: Path, **options) -> None:
    import torch

    state = {k: torch.from_numpy(np.asarray(v)) for k, v in state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "args": {"lr": 0.1}}
    torch.save(content, folder / "weights.pth", **options)


def read_weights(folder: Path):
    (path,) = folder.iterdir()
    return torch_files.read(path)


def are_weights(answer, good) -> bool:
    """Weights have no checksum; how many are read is bounded by the file's size."""
    return all(isinstance(a, np.ndarray) and a.dtype == np.float32
               for a in answer.values()) and 0 < sum(
        a.size for a in answer.values()) < 10_000  # fmt: skip


def write_safetensors(folder: Path) -> None:
    save_file(state_dict(), folder / "weights.safetensors")


@cache
def lenet_shapes() -> dict[str, tuple[int, ...]]:
    format = torch_formats.FORMATS["lenet"]
    network = format.build(mean=(0.3,), std=(0.4,))
    return {e.name: e.shape for e in torch_formats.wanted(format, network).values()}


def write_lenet(folder: Path) -> None:
    rng = np.random.default_rng(0)
    state = {
        name: rng.normal(size=shape).astype(np.float16)
        for name, shape in lenet_shapes().items()
    }
    save_file(state, folder / "lenet.safetensors")


def read_lenet(folder: Path):
    path = folder / "lenet.safetensors"
    return torch_weights.load(path, "lenet", mean=(0.3,), std=(0.4,))[1]


def is_lenet(answer, good) -> bool:
    shapes = jax.tree.map(jnp.shape, (answer, good))
    finite = all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(answer))
    return finite and shapes[0] == shapes[1]


TREE = {"params": {"a": np.arange(12, dtype=np.float32).reshape(3, 4)}, "step": 7}


def write_checkpoint(folder: Path) -> None:
    checkpoint.save(folder / "epoch-00001", jax.tree.map(jnp.asarray, TREE))


def read_checkpoint(folder: Path):
    return checkpoint.restore(folder / "epoch-00001", jax.tree.map(jnp.asarray, TREE))


# ---- results of the experiments -----------------------------------------------------


def write_arrays(folder: Path) -> None:
    save_arrays(folder / "a.npz", {"x": RGB, "y|z": np.arange(3.0), "s": np.array("é")})


def are_arrays(answer, good) -> bool:
    return all(isinstance(a, np.ndarray) for a in answer.values())


def write_rows(folder: Path) -> None:
    rng = np.random.default_rng(1)
    d = [rng.normal(size=(n, 2)).astype(np.float32) for n in (5, 4, 5, 4)]
    layers = rows.LayerScores(
        ["a|b", "c"], [3, 4], np.ones(2), np.ones(2), 0.1, np.zeros(0), np.zeros(0), *d
    )
    of = partial(rows.Scored, d[0][:, 0], d[1][:, 0])
    rows.save(folder / "a.npz", {"one": of(layers=layers), "two": of(seconds=0.5)})


def are_rows(answer, good) -> bool:
    return all(
        row.ind.ndim == row.ood.ndim == 1
        and isinstance(row.note, str)
        and isinstance(row.seconds, float | int | None)
        for row in answer.values()
    )


def write_result(folder: Path) -> None:
    row = {"auroc": 0.9, "auprc": 0.8, "fpr80": 0.1, "fpr95": 0.2, "note": "ε = 0.1"}
    kinds = {kind: {"msp": row, "fssd": row} for kind in report.KINDS}
    path = folder / "pair-clean-0-0123abcd"
    path.mkdir()
    write_json(path / "metrics.json", {"seed": 0, "paper": None, **kinds})
    times = {"scoring_seconds_per_1000_images": {"msp": 0.5, "fssd": None}}
    write_json(path / "timing.json", times)


def read_result(folder: Path):
    (path,) = folder.iterdir()
    return report.read(path), report.read_seconds(path), report.aggregate(folder)


def is_result(answer, good) -> bool:
    json.dumps(answer[2], allow_nan=False)
    return True


def read_json(folder: Path):
    (path,) = folder.iterdir()
    return load_json(path / "metrics.json", "delete it")


# ---- sequences ----------------------------------------------------------------------


def write_sequences(folder: Path, text: str, pack: Callable[[bytes], bytes]) -> None:
    (folder / "strain").write_bytes(pack(text.encode()))


def read_sequences(folder: Path):
    return sequence_files.read(folder / "strain")


def is_genome(answer, good) -> bool:
    """FASTA has no checksum: what is read is bases, in records that hold some."""
    ends = answer.starts
    known = answer.codes.dtype == np.uint8 and answer.codes.max() <= 4
    whole = ends[0] == 0 and ends[-1] == len(answer.codes) and (np.diff(ends) > 0).all()
    return bool(known and whole) and len(answer.names) == len(ends) - 1


FASTA = ">one\nACGTNACGT\n>two\nGATTACA\n"
GENBANK = "LOCUS  A  13 bp  DNA\nORIGIN\n  1 gattacagat\n 11 tac\n//\n"


READERS: dict[str, Reader] = {
    **IMAGES,
    "detector": Reader(write_detector, read_detector, equal),
    "detector, sealed": Reader(
        write_detector, read_detector, is_detector, hostile.in_detector
    ),
    "safetensors": Reader(write_safetensors, read_weights, are_weights),
    "LeNet, safetensors": Reader(write_lenet, read_lenet, is_lenet),
    "checkpoint": Reader(write_checkpoint, read_checkpoint, equal),
    "arrays": Reader(write_arrays, lambda f: load_arrays(f / "a.npz"), equal),
    "arrays, sealed": Reader(
        write_arrays, lambda f: load_arrays(f / "a.npz"), are_arrays, hostile.in_zip
    ),
    "rows": Reader(
        write_rows, lambda f: rows.load(f / "a.npz"), are_rows, hostile.in_zip
    ),
    "result": Reader(write_result, read_result, is_result),
    "JSON": Reader(write_result, read_json, lambda answer, good: True),
    "FASTA, .xz": Reader(
        partial(write_sequences, text=FASTA, pack=lzma.compress), read_sequences, equal
    ),
    "GenBank": Reader(
        partial(write_sequences, text=GENBANK, pack=bytes), read_sequences, is_genome
    ),
}
if find_spec("torch"):
    READERS["state dict, .pth"] = Reader(
        write_torch, read_weights, are_weights, hostile.in_zip
    )
    READERS["state dict, before PyTorch 1.6"] = Reader(
        partial(write_torch, _use_new_zipfile_serialization=False),
        read_weights,
        are_weights,
    )


@cache
def foreign_files() -> list[bytes]:
    """One of every kind, and some that are of none."""
    found = [b"", b"<html>", bytes(300), pickle.dumps({"a": np.ones(3)}), b"[" * 99999]
    writers: list[Callable[[Path], Any]] = [
        reader.write for name, reader in READERS.items() if name != "checkpoint"
    ]
    for write in writers:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            found += [p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()]
    return found
