"""Writes what PyTorch computes into tests/references.

make test-peers                                     # installs PyTorch
.venv/bin/python -m tests.fssd_jax.make_references [PART …]
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from fssd_jax import torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax import references
from tests.fssd_jax.torch_networks import build, entries, randomised

COUNTED = ("cifar_resnet18", "cifar_resnet34", "cifar_resnet50", "resnet34")
COUNTED = (*COUNTED, "resnext50", "cifar_resnet20")


def numbers(tensor):
    return tensor.detach().numpy()


def seen_by_torch(name, x):
    normal = references.normalisation(name)
    x = (x - np.float32(normal["mean"])) / np.float32(normal["std"])
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def channels_last(feature):
    a = numbers(feature)
    return a.transpose(0, 2, 3, 1) if a.ndim == 4 else a


def features(name):
    """Every layer of a network, of two images; and the network's names and sizes."""
    # A group of a ResNeXt has 64 channels of 2,048.
    network = randomised(build(name, 32 if "resnext" in name else 8))
    made = {"entries": np.array(entries(network))}
    for i, layer in enumerate(network(seen_by_torch(name, references.images(name)))):
        made[f"shape{i}"] = np.array(channels_last(layer).shape)
        made[f"layer{i}"] = references.digest(channels_last(layer))
    if name in COUNTED:
        flax = torch_weights.FORMATS[name].build()
        full = build(name, flax.width, flax.num_classes)
        made["parameters"] = np.array(sum(p.numel() for p in full.parameters()))
    return made


def training():
    """Two steps of SGD, as far as each weight moves; and a gradient by the images."""
    images = references.images("cifar_resnet18", 6)
    network = randomised(build("cifar_resnet18"))
    # In float64: rounding in float32 puts some ReLU on another side.
    x = seen_by_torch("cifar_resnet18", images.astype(np.float64)).requires_grad_()
    network.double()(x)[4].square().sum().backward()
    gradient = channels_last(x.grad) / np.float32(CIFAR10["std"])

    network = randomised(build("cifar_resnet18"))
    x = seen_by_torch("cifar_resnet18", images)

    def weights():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "r18.safetensors")
            save_file(network.state_dict(), path)
            found = torch_weights.load(path, "cifar_resnet18", **CIFAR10)[1]
        return {
            jax.tree_util.keystr(key): np.asarray(leaf)
            for key, leaf in jax.tree_util.tree_leaves_with_path(found)
        }

    before = weights()
    optimiser = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    network.train()
    losses = 0.0
    for _ in range(2):
        optimiser.zero_grad()
        labels = torch.from_numpy(references.LABELS).long()
        loss = nn.functional.cross_entropy(network(x)[-1], labels)
        loss.backward()
        optimiser.step()
        losses += loss.item()
    moved = {
        key: references.digest(leaf - before[key]) for key, leaf in weights().items()
    }
    return {"losses": np.array(losses), "gradient": references.digest(gradient)} | moved


class LSTM(nn.Module):
    """The rival of `BiLSTM(num_classes=3, hidden=8, positions=(0, 2, 5))`."""

    def __init__(self):
        super().__init__()
        self.embedding, self.logits = nn.Embedding(4, 4), nn.Linear(16, 3)
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        embedded = x @ self.embedding.weight
        # The product is PyTorch's own look-up of tokens.
        torch.testing.assert_close(embedded, self.embedding(x.argmax(-1)))
        states = self.lstm(embedded)[0]
        return {
            "embedding": embedded,
            **{f"position{i}": states[:, i] for i in (0, 2, 5)},
            "last": states[:, -1],
            "logits": self.logits(states[:, -1]),
        }


def lstm():
    """Features and logits, and the gradient of the sum of each one's squares by x."""
    network = randomised(LSTM())
    x = torch.from_numpy(references.one_hot(5)).requires_grad_()
    made = {"entries": np.array(entries(network))}
    for name, feature in network(x).items():
        made[name] = numbers(feature)
        squares = (feature**2).sum()
        made[f"{name} by x"] = torch.autograd.grad(squares, x, retain_graph=True)[0]
    return {name: np.asarray(a) for name, a in made.items()}


def sgd():
    """Where SGD takes a weight of two numbers, after each step of each schedule."""
    made = {}
    for name, (drops, decay) in references.SCHEDULES.items():
        weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
        optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, gamma=0.1)
        path = []
        for step in range(2 * int(name.split()[1])):
            weight.grad = torch.from_numpy(references.gradient(step))
            optimiser.step()
            path.append(numbers(weight).copy())
            if step % 2 == 1:
                schedule.step()
        made[name] = np.stack(path)
    return made


PARTS = {name: partial(features, name) for name in references.NETWORKS}
PARTS |= {"training": training, "lstm": lstm, "sgd": sgd}


def main(*parts):
    for part in parts or PARTS:
        make = PARTS[part]
        path = references.FOLDER / f"{part}.npz"
        np.savez_compressed(path, **make())
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
