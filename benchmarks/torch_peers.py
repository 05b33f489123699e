"""What people would use instead: PyTorch, on our weights, images and threads.

The networks are the twins that the tests compare ours with; no gradient by a weight is
taken where none is needed. "released" is the procedure of the released code, for each
layer and ε: forward, backward, forward, each up to that layer. "shared" takes one
forward pass for all layers and one backward pass a layer, for all ε, as ours does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from sklearn.covariance import ShrunkCovariance
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks import inputs
from benchmarks.inputs import CLASSES, EPSILON, NETWORKS
from benchmarks.ours import CHECKED_STEPS
from benchmarks.torch_parts import Parts, Place, channels_first, sent
from fssd_jax import recipes
from fssd_jax.ensemble import EPSILONS

RIDGE = 1e-6  # as that of ours


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


def _scored(
    procedure: Callable, name: str, count: int, batch: int, place: Place
) -> Callable:
    network = Parts(name, place).eval().requires_grad_(False)
    x = channels_first(inputs.pictures(name, count)[0], place)
    with torch.inference_mode():
        noise = channels_first(inputs.noise(name), place).to(place.device)
        noise = network.up_to(noise, network.features)
    # Cloned out of inference mode: gradients go through what reads them.
    centers = [f.flatten(1).double().mean(0).float().clone() for f in noise]

    def run():
        """[(epsilon,) n, layer]"""
        parts = [procedure(network, centers, sent(p, place)) for p in x.split(batch)]
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
    data = channels_first(x, place), torch.from_numpy(y).long().to(place.device)

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
            loss = functional.cross_entropy(network(sent(pixels, place)), labels)
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
    x, classes = channels_first(pixels, place), range(CLASSES)

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
