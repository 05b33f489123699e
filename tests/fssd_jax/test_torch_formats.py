"""What a state dict tells of its network: depth, sort of block, groups, width, classes.

That names and arithmetic are PyTorch's, `test_torch_weights` tests.
"""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fssd_jax import InputError, models, torch_weights
from fssd_jax.torch_formats import FORMATS, KINDS, wanted

NORMAL = {"mean": (0.5,) * 3, "std": (0.2,) * 3}


def state_of(kind, network):
    """Random weights, as PyTorch calls and lays them out."""
    rng = np.random.default_rng(0)
    entries = wanted(FORMATS[kind], network).values()
    return {e.name: rng.uniform(1, 2, e.shape).astype(np.float32) for e in entries}


@pytest.fixture
def load(tmp_path):
    def load(state, model):
        path = tmp_path / "weights"
        save_file(state, path)
        return torch_weights.load(path, model, **NORMAL)[0]

    return load


SMALL = {"num_classes": 3, **NORMAL}
CIFAR = {"stem": "cifar", **SMALL}
NETWORKS = {
    "four stages": models.ResNet((1, 2, 1, 1), width=4, **CIFAR),
    "bottlenecks": models.ResNet((1, 1, 2, 1), width=4, bottleneck=True, **CIFAR),
    "padded": models.ResNet((1, 1, 2), width=4, shortcut="pad", **CIFAR),
    "three stages": models.ResNet((2, 1, 1), width=4, **CIFAR),
    "three, bottlenecks": models.ResNet((1, 1, 1), width=4, bottleneck=True, **CIFAR),
}
DEEP = {
    "basic": models.ResNet((1, 1, 1, 2), width=4, **SMALL),
    "wide": models.ResNet(
        (1, 2, 1, 1), width=8, bottleneck=True, group_width=128, **SMALL
    ),
    "groups": models.ResNet(
        (1, 1, 1, 1), width=16, bottleneck=True, groups=4, group_width=8, **SMALL
    ),
}
WIDE = {
    "deep": models.WideResNet((1, 3, 1), 2, width=4, **SMALL),
    "as wide as its stem": models.WideResNet((1, 1, 1), 1, width=4, **SMALL),
}
CASES = [
    *(("cifar_resnet", network) for network in NETWORKS.values()),
    *(("resnet", network) for network in DEEP.values()),
    *(("wrn", network) for network in WIDE.values()),
]


@pytest.mark.parametrize(("kind", "network"), CASES)
def test_all_is_told_by_the_file(load, kind, network):
    assert load(state_of(kind, network), kind) == network


def test_a_named_network_takes_its_shortcuts_from_the_file(load):
    for shortcut in ("pad", "conv"):
        network = models.cifar_resnet20(width=4, shortcut=shortcut, **SMALL)
        found = load(state_of("cifar_resnet", network), "cifar_resnet20")
        assert found == network
    state = state_of("cifar_resnet", network)
    del state["layer2.0.shortcut.0.weight"]
    with pytest.raises(InputError, match=r"missing \(1\): layer2\.0\.shortcut\.0\.wei"):
        load(state, "cifar_resnet20")


@pytest.mark.parametrize(
    ("kind", "network", "asked", "words"),
    [
        (
            *("cifar_resnet", models.cifar_resnet20, "cifar_resnet32"),
            r"those of cifar_resnet20\n.*missing \(60\)",
        ),
        (
            *("resnet", models.resnet18, "cifar_resnet18"),
            r"those of resnet18\n.*conv1\.weight \(4, 3, 7, 7\), expected \(4, 3, 3,",
        ),
        (
            *("cifar_resnet", models.cifar_resnet18, "resnet18"),
            r"those of cifar_resnet18\n",
        ),
        ("wrn", models.wrn40_2, "wrn28_10", r"those of wrn40_2\n"),
        (
            *("wrn", lambda **of: models.WideResNet((1, 1, 1), 3, **of)),
            *("cifar_resnet", r"those of wrn\n"),
        ),
    ],
)
def test_of_another_network_it_says_which(load, kind, network, asked, words):
    state = state_of(kind, network(width=4, **SMALL))
    with pytest.raises(InputError, match=rf"(?s)does not fit {asked}; .*{words}"):
        load(state, asked)


@pytest.mark.parametrize("model", ["cifar_resnet", "resnet", "resnext50", "wrn"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3, 3, 3), (3,), (2, 0, 7, 7)])
def test_sizes_that_no_network_has(load, model, shape):
    """They are listed; nothing divides by them."""
    state = state_of("cifar_resnet", NETWORKS["four stages"])
    strange = ("conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv3.weight")
    state |= {name: np.ones(shape, np.float32) for name in strange}
    with pytest.raises(InputError, match=rf"does not fit {model}"):
        load(state, model)


def test_more_blocks_than_are_believed(load):
    state = state_of("cifar_resnet", NETWORKS["padded"])
    state |= {f"layer1.{i}.conv1.weight": np.ones(1, np.float32) for i in range(2000)}
    with pytest.raises(InputError, match=r"surplus \(2009\)"):
        load(state, "cifar_resnet")


def test_kinds_hold_all_formats():
    """An error names a network by its kind: by names and fields."""
    for format in FORMATS.values():
        assert format.renames in [FORMATS[kind].renames for kind in KINDS]
