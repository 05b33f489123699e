"""What PyTorch computes, as small files, so that the tests run without it.

`make_references` writes them. Weights and images are drawn on both sides, from NumPy's
legacy stream, which is frozen; only PyTorch's names, shapes and outputs are stored.
"""

import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fssd_jax.models.resnet import CIFAR10, IMAGENET

FOLDER = Path(__file__).parent.parent / "references"
# Networks of which every layer is kept: of each sort, if not of each depth.
NETWORKS = (
    *("lenet", "cifar_resnet18", "cifar_resnet34", "cifar_resnet50"),
    *("cifar_resnet20", "cifar_resnet", "wrn"),
    *("resnet34", "resnet", "resnext50", "face_resnext50"),
)
NORMAL = {
    "cifar": CIFAR10,
    "wrn": CIFAR10,
    "lenet": {"mean": (0.2860,), "std": (0.3530,)},
}
SIZES = {
    **{"lenet": 28, "face_resnext50": 112},
    **{"resnet34": 64, "resnet": 64, "resnext50": 96},
}
LABELS = np.array([0, 3, 1, 2, 6, 5], np.int32)  # of a training batch
# Of SGD: epochs after which its rate falls tenfold, and its weight decay.
SCHEDULES = {
    "cifar 350": ([150, 250], 5e-4),
    "cifar 7": ([3, 5], 5e-4),  # the same shares of fewer epochs
    "imagenet 90": ([30, 60], 1e-4),
    "face 20": ([10, 15, 18], 5e-4),
}
BINS = 256


def read(part: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{part}.npz") as file:
        return dict(file)


def make(part: str) -> dict[str, np.ndarray]:
    """What `read` returns, computed by PyTorch now."""
    from tests.fssd_jax.make_references import PARTS

    return PARTS[part]()


def weights(entries) -> dict[str, np.ndarray]:
    """A state dict of "name height width …" lines, each array drawn by its name.

    Statistics and biases too: initially many are 0 or 1.
    """
    state = {}
    for entry in entries:
        name, *sizes = str(entry).split()
        shape = tuple(map(int, sizes))
        stream = np.random.RandomState(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
            continue
        if name.endswith("running_var"):
            a = stream.uniform(0.5, 1.5, shape)
        elif len(shape) == 1 and name.endswith("weight"):
            a = stream.uniform(0.2, 0.8, shape)
        elif len(shape) == 1:
            a = stream.normal(0, 0.1, shape)
        else:
            a = stream.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        state[name] = a.astype(np.float32)
    return state


def save_weights(path, name, change=lambda state: state):
    """The random weights of a network of `torch_networks`, as safetensors."""
    save_file(change(weights(read(name)["entries"])), path)
    return path


def narrow(state, width=8):
    """A LeNet of the first channels and units of the released one's."""
    state = dict(state)
    grid = state["fc1.weight"].reshape(128, 64, 12, 12)
    state["fc1.weight"] = grid[: 4 * width, : 2 * width].reshape(4 * width, -1)
    state["conv2.weight"] = state["conv2.weight"][: 2 * width, :width]
    state["conv1.weight"] = state["conv1.weight"][:width]
    state["fc2.weight"] = state["fc2.weight"][:, : 4 * width]
    for times, name in ((1, "conv1.bias"), (2, "conv2.bias"), (4, "fc1.bias")):
        state[name] = state[name][: times * width]
    return {name: np.ascontiguousarray(a) for name, a in state.items()}


def normalisation(name):
    return NORMAL.get(name.split("_")[0], IMAGENET)


def images(name, count=2):
    channels, size = len(normalisation(name)["mean"]), SIZES.get(name, 32)
    x = np.random.RandomState(0).uniform(size=(count, size, size, channels))
    return x.astype(np.float32)


def one_hot(count, length=9):
    tokens = np.random.RandomState(0).randint(4, size=(count, length), dtype=np.int64)
    return np.eye(4, dtype=np.float32)[tokens]


def gradient(step):
    """For an optimiser of two numbers."""
    return np.cos([step, 2.0 * step])


def digest(a) -> np.ndarray:
    """The numbers themselves, if few; else their sums in bins, with random signs.

    Such a count sketch (Charikar et al. 2002) sees every number, and keeps distances:
    ‖digest(a) − digest(b)‖ = ‖a − b‖, with a standard deviation of 4 % at most.
    """
    a = np.asarray(a, np.float64).ravel()
    if a.size <= BINS:
        return a.astype(np.float32)
    stream = np.random.RandomState(a.size)
    signs = 1 - 2 * stream.randint(2, size=a.size, dtype=np.int64)
    bins = stream.randint(BINS, size=a.size, dtype=np.int64)
    return np.bincount(bins, signs * a, BINS).astype(np.float32)


def error(found, expected) -> float:
    """Of an array, relative to a digest that was stored."""
    return np.linalg.norm(digest(found) - expected) / np.linalg.norm(expected)
