"""Twins of our networks in PyTorch, cut where the features are, and their images."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from flax.traverse_util import flatten_dict
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks import inputs
from benchmarks.inputs import CLASSES, NETWORKS
from fssd_jax.torch_formats import FORMATS, wanted
from tests.fssd_jax import torch_networks


class Place(NamedTuple):
    """Where images lie, and how."""

    layout: Any
    device: str
    resident: bool  # on the device before; else each batch is sent


def state_dict(name: str, variables) -> dict[str, Any]:
    """Our weights as PyTorch's: what `fssd_jax.torch_weights` does, backwards."""
    format, model = FORMATS[NETWORKS[name].format], NETWORKS[name].build()
    leaves: dict[tuple, Any] = flatten_dict(variables)  # pyright: ignore[reportAssignmentType]
    state = {}
    for key, entry in wanted(format, model).items():
        # `convert` moves numbers: of their places it tells whence each came.
        places = np.arange(np.prod(entry.shape)).reshape(entry.shape)
        array = np.empty(places.size, np.float32)
        array[entry.convert(places).ravel()] = np.asarray(leaves[key]).ravel()
        state[entry.name] = torch.from_numpy(array.reshape(entry.shape))
    return state


class Parts(torch.nn.Module):
    """The twin, cut where its features are; the normalisation is the first cut's."""

    def __init__(self, name: str, place: Place, dropout: bool = True):
        super().__init__()
        network, model = NETWORKS[name], NETWORKS[name].build()
        mean, std = (np.float32(getattr(model, k)) for k in ("mean", "std"))
        for key, a in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.from_numpy(a)[:, None, None])
        width = getattr(model, "width", 0)  # LeNet has none
        self.twin = torch_networks.build(network.format, width=width, classes=CLASSES)
        state = state_dict(name, inputs.weights(name))
        wrong = self.twin.load_state_dict(state, strict=False)
        assert not wrong.unexpected_keys, wrong
        assert all("num_batches" in key for key in wrong.missing_keys), wrong
        self.to(place.device).to(memory_format=place.layout)
        of = self._lenet if network.format == "lenet" else self._resnet
        self.parts: list[Callable] = of(dropout)
        self.features = len(model.feature_layers)  # pyright: ignore[reportAttributeAccessIssue]

    def _lenet(self, dropout: bool) -> list[Callable]:
        twin = self.twin
        drop = partial(functional.dropout, p=0.5 * dropout)
        channels = partial(functional.dropout2d, p=0.25 * dropout)

        def fc1(h):
            h = channels(functional.max_pool2d(h, 2), training=self.training)
            return twin.fc1(h.flatten(1)).relu()

        return [
            lambda x: twin.conv1(self._normalised(x)).relu(),
            lambda h: twin.conv2(h).relu(),
            fc1,
            lambda h: twin.fc2(drop(h, training=self.training)),
        ]

    def _resnet(self, dropout: bool) -> list[Callable]:
        twin = self.twin
        stages = [getattr(twin, f"layer{k + 1}") for k in range(twin.stages)]
        return [
            lambda x: twin.pool(twin.bn1(twin.conv1(self._normalised(x))).relu()),
            *stages,
            lambda h: getattr(twin, twin.last)(h.mean((2, 3))),
        ]

    def _normalised(self, x):
        return (x - self.mean) / self.std

    def up_to(self, x, layers: int) -> list:
        """The first `layers` features; nothing above is computed."""
        found = []
        for part in self.parts[:layers]:
            x = part(x)
            found.append(x)
        return found

    def forward(self, x):
        return self.up_to(x, len(self.parts))[-1]


def channels_first(x: np.ndarray, place: Place):
    """As a user has them: channels first, still uint8, and ready to be sent."""
    first = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    first = first.contiguous(memory_format=place.layout)
    if place.resident:
        return first.to(place.device)
    return first.pin_memory() if place.device == "cuda" else first


def sent(pixels, place: Place):
    """uint8 to floats in [0, 1], on the device."""
    return pixels.to(place.device, non_blocking=True).float() / 255
