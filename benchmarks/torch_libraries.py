"""The same detectors by libraries for PyTorch, on our weights, images and threads.

As their users call them: a `DataLoader`, a network that ends in its last layer, `fit`,
then scores batch by batch. Scores are theirs, higher for OoD.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.utils.data import (  # pyright: ignore[reportMissingImports]
    DataLoader,
    TensorDataset,
)

from benchmarks import inputs
from benchmarks.inputs import EPSILON
from benchmarks.ours import DIM, TEMPERATURE
from benchmarks.torch_parts import Parts, Place, channels_first

MODULES = {"pytorch-ood": "pytorch_ood.detector", "oodeel": "oodeel.methods"}


class _Step(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network_of(name: str):
    """Modules; the last is the network's last layer, and takes [batch, dim]."""
    parts = Parts(name, Place(torch.contiguous_format, "cpu", True))
    twin = parts.eval().requires_grad_(False).twin
    hidden = [_Step(part) for part in parts.parts[:-1]]
    if hasattr(twin, "last"):  # a ResNet: averaged over space
        head = getattr(twin, twin.last)
        return torch.nn.Sequential(*hidden, _Step(lambda h: h.mean((2, 3))), head)
    return torch.nn.Sequential(*hidden, twin.fc2)


def prepare(library: str, method: str, name: str, count: int, batch: int = 64):
    """A function that fits a method, if it is to be fitted, and scores the images."""
    network = network_of(name)
    pixels, y = inputs.pictures(name, count)
    place = Place(torch.contiguous_format, "cpu", True)
    x = channels_first(pixels, place).float() / 255
    loader = DataLoader(TensorDataset(x, torch.from_numpy(y).long()), batch_size=batch)
    of = import_module(MODULES[library])
    return partial(LIBRARIES[library][method], of, network, loader)


# ---- pytorch-ood --------------------------------------------------------------------


def _predicted(detector: Any, loader) -> np.ndarray:
    return torch.cat([detector.predict(x).detach() for x, _ in loader]).numpy()


def _fitted(detector: Any, loader) -> np.ndarray:
    return _predicted(detector.to("cpu").fit(loader), loader)


def _vim(of, network, loader) -> np.ndarray:
    head = network[-1]
    return _fitted(of.ViM(network[:-1], DIM, head.weight, head.bias), loader)


# ---- oodeel -------------------------------------------------------------------------


def _scored(detector: Any, network, loader, **how) -> np.ndarray:
    detector.fit(network, loader, **how)
    return detector.score(loader)[0]


LAST = {"feature_layers_id": [-2]}
LIBRARIES: dict[str, dict[str, Callable]] = {
    "pytorch-ood": {
        "one layer": lambda of, net, x: _fitted(of.Mahalanobis(net[:-1]), x),
        "one layer, step": lambda of, net, x: _fitted(
            of.MahalanobisODIN(net[:-1], EPSILON), x
        ),
        "odin": lambda of, net, x: _predicted(
            of.ODIN(net, eps=EPSILON, temperature=TEMPERATURE), x
        ),
        "vim": _vim,
    },
    "oodeel": {
        # `eps` is of a step that raises the softmax, as ODIN's: 0 takes none.
        "one layer": lambda of, net, x: _scored(of.Mahalanobis(eps=0), net, x, **LAST),
        "odin": lambda of, net, x: _scored(
            of.ODIN(eps=EPSILON, temperature=TEMPERATURE), net, x
        ),
        "vim": lambda of, net, x: _scored(of.VIM(princ_dims=DIM), net, x, **LAST),
    },
}
