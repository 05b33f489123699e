"""What people would use instead: PyTorch, on our weights, images and threads.

The networks are the twins that the tests compare ours with; no gradient by a weight is
taken where none is needed. "released" is the procedure of the released code, for each
layer and ε: forward, backward, forward, each up to that layer. "shared" takes one
forward pass for all layers and one backward pass a layer, for all ε, as ours does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from flax.traverse_util import flatten_dict
from sklearn.covariance import ShrunkCovariance
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks import inputs
from benchmarks.inputs import CLASSES, EPSILON, NETWORKS
from benchmarks.ours import CHECKED_STEPS
from fssd_jax import recipes
from fssd_jax.ensemble import EPSILONS
from fssd_jax.torch_formats import FORMATS, wanted
from tests.fssd_jax import torch_networks

RIDGE = 1e-6  # as that of ours


class Place(NamedTuple):
    """Where images lie, and how."""

    layout: Any
    device: str
    resident: bool  # on the device before; else each batch is sent


def prepare(
    task: str,
    name: str,
    count: int,
    batch: int = 64,
    channels_last: bool = False,
    device: str = "cpu",
    resident: bool = False,
    tf32: bool = False,
    repeats: int = 1,
) -> Callable[[], Any]:
    """A function that does the task once and returns its numbers.

    Args:
      task: one of `TASKS`.
      name: of the network.
      count: images.
      batch: images at once, but in training.
      channels_last: how PyTorch lays images out.
      device: "cpu", or "cuda", where it may try algorithms out and take the fastest.
      resident: whether the images are on the device before.
      tf32: whether a GPU may multiply in TF32.
      repeats: how often it is done.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def allow():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = device == "cuda"

    allow()
    once = TASKS[task](name, count, batch, Place(layout, device, resident))

    def run():
        allow()
        found = [once() for _ in range(repeats)][-1]
        # To NumPy it waits for the device.
        return found.cpu().numpy() if isinstance(found, torch.Tensor) else found

    return run


def _cuda(*_) -> Callable[[], bool]:
    return torch.cuda.is_available


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


def _pixels(x: np.ndarray, place: Place):
    """As a user has them: channels first, still uint8, and ready to be sent."""
    first = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    first = first.contiguous(memory_format=place.layout)
    if place.resident:
        return first.to(place.device)
    return first.pin_memory() if place.device == "cuda" else first


def _sent(pixels, place: Place):
    """uint8 to floats in [0, 1], on the device."""
    return pixels.to(place.device, non_blocking=True).float() / 255


def _scored(
    procedure: Callable, name: str, count: int, batch: int, place: Place
) -> Callable:
    network = Parts(name, place).eval().requires_grad_(False)
    x = _pixels(inputs.pictures(name, count)[0], place)
    with torch.inference_mode():
        noise = _pixels(inputs.noise(name), place).to(place.device)
        noise = network.up_to(noise, network.features)
    # Cloned out of inference mode: gradients go through what reads them.
    centers = [f.flatten(1).double().mean(0).float().clone() for f in noise]

    def run():
        """[(epsilon,) n, layer]"""
        parts = [procedure(network, centers, _sent(p, place)) for p in x.split(batch)]
        return torch.cat(parts, -2)

    return run


def _distance(feature, center):
    return torch.linalg.vector_norm(feature.flatten(1) - center, dim=1)


@torch.inference_mode()
def plain(network: Parts, centers: list, x):
    features = network.up_to(x, network.features)
    return torch.stack(list(map(_distance, features, centers)), -1)


def released(network: Parts, centers: list, x, epsilons):
    rows = []
    for epsilon in epsilons:
        row = []
        for k, center in enumerate(centers):
            x.requires_grad_(True)
            d = _distance(network.up_to(x, k + 1)[-1], center)
            (slope,) = torch.autograd.grad(d.sum(), x)
            with torch.no_grad():
                stepped = x + epsilon * slope.sign()
                row.append(_distance(network.up_to(stepped, k + 1)[-1], center))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows)


def shared(network: Parts, centers: list, x, epsilons):
    x.requires_grad_(True)
    features = network.up_to(x, network.features)
    signs = []
    for k, center in enumerate(centers):
        d = _distance(features[k], center).sum()
        kept = k + 1 < len(centers)
        signs.append(torch.autograd.grad(d, x, retain_graph=kept)[0].sign())
    rows = []
    with torch.no_grad():
        for epsilon in epsilons:
            stepped = [network.up_to(x + epsilon * s, k + 1)[-1]
                       for k, s in enumerate(signs)]  # fmt: skip
            rows.append(torch.stack(list(map(_distance, stepped, centers)), -1))
    return torch.stack(rows)


def _one(procedure: Callable, network, centers, x):
    return procedure(network, centers, x, (EPSILON,))[0]


def _swept(procedure: Callable, network, centers, x):
    return procedure(network, centers, x, EPSILONS)


def _training(name: str, count: int, _: int, place: Place) -> Callable:
    return _from_start(Parts(name, place), name, count, 1, place)


def _steps(name: str, _: int, __: int, place: Place) -> Callable:
    """The loss of each of a few steps on one batch, without dropout."""
    network = Parts(name, place, dropout=False)
    return _from_start(network, name, NETWORKS[name].batch, CHECKED_STEPS, place)


def _from_start(
    network: Parts, name: str, count: int, epochs: int, place: Place
) -> Callable:
    initial = {k: a.clone() for k, a in network.state_dict().items()}
    x, y = inputs.pictures(name, count)
    place = place._replace(layout=torch.contiguous_format)
    data = _pixels(x, place), torch.from_numpy(y).long().to(place.device)

    def run() -> np.ndarray:
        network.load_state_dict(initial)
        return _train(network, name, *data, epochs, place)

    return run


def _optimiser(name: str, parameters, epochs: int):
    """The recipe of ours, and what lowers its rate after an epoch."""
    if name == "LeNet":
        found = torch.optim.Adadelta(parameters, lr=1.0, rho=0.9, eps=1e-6)
        return found, torch.optim.lr_scheduler.StepLR(found, 1, 0.7 ** (14 / epochs))
    of_imagenet = NETWORKS[name].recipe is recipes.imagenet
    decay = 1e-4 if of_imagenet else 5e-4
    shares = (30 / 90, 60 / 90) if of_imagenet else (150 / 350, 250 / 350)
    found = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=decay)
    drops = [round(share * epochs) for share in shares]
    return found, torch.optim.lr_scheduler.MultiStepLR(found, drops)


def _train(network: Parts, name: str, x, y, epochs: int, place: Place) -> np.ndarray:
    """[epoch, 1] mean loss of the batches."""
    count, batch, losses = len(x), NETWORKS[name].batch, []
    optimiser, rate = _optimiser(name, network.parameters(), epochs)
    network.train()
    for _ in range(epochs):
        total, order = torch.zeros((), device=place.device), torch.randperm(count)
        for index in order[: count // batch * batch].split(batch):
            pixels, labels = x[index.to(x.device)], y[index.to(y.device)]
            loss = functional.cross_entropy(network(_sent(pixels, place)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach()
        rate.step()
        losses.append(total.item() / (count // batch))
    return np.array(losses)[:, None]


def _mahalanobis(name: str, count: int, batch: int, place: Place) -> Callable:
    """As Lee et al. released it: scikit-learn's covariance of each layer's features.

    Its shrinkage is a ridge, to the sixth digit.
    """
    network = Parts(name, place).eval().requires_grad_(False)
    pixels, y = inputs.pictures(name, count)
    x, classes = _pixels(pixels, place), range(CLASSES)

    @torch.inference_mode()
    def features() -> list:
        """Each layer's means over space, of all images."""
        parts = [
            [f.mean((2, 3)) if f.ndim == 4 else f for f in found]
            for found in (
                network.up_to(p.float() / 255, network.features) for p in x.split(batch)
            )
        ]
        return [torch.cat(of_layer).double() for of_layer in zip(*parts, strict=True)]

    def fit(f):
        means = torch.stack([f[torch.from_numpy(y == c)].mean(0) for c in classes])
        found = ShrunkCovariance(assume_centered=True, shrinkage=RIDGE)
        found.fit((f - means[torch.from_numpy(y).long()]).numpy())
        return means, torch.from_numpy(found.precision_)

    def confidence(f, means, precision):
        gaps = f[:, None] - means
        return -((gaps @ precision) * gaps).sum(-1).amin(1)

    def run() -> np.ndarray:
        fitted = [fit(f) for f in features()]
        # Scored images are others, as a rule: their features are computed anew.
        scored = zip(features(), fitted, strict=True)
        return torch.stack([confidence(f, *of) for f, of in scored], -1).numpy()

    return run


TASKS: dict[str, Callable] = {
    "plain": partial(_scored, plain),
    "one, released": partial(_scored, partial(_one, released)),
    "one, shared": partial(_scored, partial(_one, shared)),
    "sweep, released": partial(_scored, partial(_swept, released)),
    "sweep, shared": partial(_scored, partial(_swept, shared)),
    "training": _training,
    "steps": _steps,
    "mahalanobis": _mahalanobis,
    "cuda": _cuda,
}
