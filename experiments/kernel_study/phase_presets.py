"""How large the grids of `kernel_phases` are, and how fast they learn."""

from typing import NamedTuple


class Preset(NamedTuple):
    widths: dict[str, tuple[int, ...]]
    train: int  # images
    points: int  # test images of each set
    noise: int
    batch_size: int
    moments: tuple[int, ...]  # steps of SGD at which to look, up to …
    steps: dict[str, int]  # … those of each network
    starts: tuple[int, ...]  # where networks are linearised
    twin_points: int  # test images of each set that are compared with it


PRESETS = {
    "tiny": Preset(
        widths={
            "perceptron": (4, 8),
            "strided": (2, 4),
            "resnet": (2, 4),
            "convnet": (2,),
        },
        train=40,
        points=20,
        noise=20,
        batch_size=20,
        moments=(1, 3, 6),
        steps={"perceptron": 6, "strided": 6, "resnet": 6, "convnet": 6},
        starts=(0, 3),
        twin_points=10,
    ),
    "small": Preset(
        widths={
            "perceptron": (32, 128, 512, 2048),
            "strided": (8, 16, 32, 64),
            "resnet": (8, 16, 32),
            "convnet": (8, 16, 32),
        },
        train=1000,
        points=1000,
        noise=500,
        batch_size=100,
        moments=(1, 3, 10, 30, 100, 300, 1000, 3000),
        steps={"perceptron": 3000, "strided": 1000, "resnet": 1000, "convnet": 1000},
        starts=(0, 30),
        twin_points=200,
    ),
    "paper": Preset(
        widths={
            "perceptron": (128, 512, 2048, 8192),
            "strided": (32, 64, 128, 256),
            "resnet": (32, 64, 128, 256),
            "convnet": (32, 64, 128, 256),
        },
        train=10_000,
        points=2000,
        noise=1000,
        batch_size=100,
        moments=(1, 10, 100, 1000, 10_000, 30_000),
        steps=dict.fromkeys(("perceptron", "strided", "resnet", "convnet"), 30_000),
        starts=(0, 100),
        twin_points=200,
    ),
}


# η at a network's base width, below 2/λ of every width of the small preset in NTK
# parametrisation, λ the largest eigenvalue of Θ(X, X)/n: above it the linearised
# network diverges, and the network itself goes where its kernel is smaller. (A narrow
# one in "standard", which learns faster there, may be above: of digits one of five
# ResNets of width 8 is; see tests/by_hand/largest_rates.py. The cross-entropy's Hessian
# by the logits has eigenvalues of 1/2 at most, so there the limit is 4/λ, or more.)
RATES = {
    "squared": {"perceptron": 0.15, "strided": 0.1, "resnet": 0.1, "convnet": 0.05},
    "cross_entropy": {"perceptron": 0.6, "strided": 0.4, "resnet": 0.4, "convnet": 0.2},
}
