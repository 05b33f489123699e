"""PyTorch networks, written from the published architectures, as the tests' rivals."""

import torch
from torch import nn

from tests.fssd_jax import references


class Pad(nn.Module):
    """He et al. (2016), section 3.3, option A: zeros for the channels that are new."""

    def __init__(self, stride, more):
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x):
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, self.more, self.more))


class Block(nn.Module):
    """He et al. (2016), Fig. 5: basic (two 3×3), or bottleneck (1×1, 3×3, 1×1).

    `shortcut` is what the state dict calls the projection, "" for one without weights.
    """

    def __init__(self, inside, out, stride, *, shortcut, inner=None, groups=1):
        super().__init__()
        if inner is None:
            plan = [(inside, out, 3, stride, 1), (out, out, 3, 1, 1)]
        else:
            plan = [(inside, inner, 1, 1, 1), (inner, inner, 3, stride, groups)]
            plan += [(inner, out, 1, 1, 1)]
        self.count, self.name = len(plan), shortcut
        for i, (a, b, k, s, g) in enumerate(plan, 1):
            conv = nn.Conv2d(a, b, k, s, k // 2, groups=g, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        if not shortcut:
            self.name, self.project = "project", Pad(stride, (out - inside) // 2)
            return
        project = nn.Sequential()
        if stride != 1 or inside != out:
            conv = nn.Conv2d(inside, out, 1, stride, bias=False)
            project = nn.Sequential(conv, nn.BatchNorm2d(out))
        setattr(self, shortcut, project)

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.count else y.relu()
        return (y + getattr(self, self.name)(x)).relu()


class Trunk(nn.Module):
    """Stem and stages; `trunk` returns the features of each."""

    def __init__(
        self,
        sizes,
        width,
        *,
        cifar,
        bottleneck=False,
        groups=1,
        base=64,
        shortcut="downsample",
    ):
        super().__init__()
        kernel, stride = (3, 1) if cifar else (7, 2)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        inside = width
        for stage, blocks in enumerate(sizes):
            planes, layers = width * 2**stage, []
            out = 4 * planes if bottleneck else planes
            inner = int(planes * base / 64) * groups if bottleneck else None
            for i in range(blocks):
                stride = 2 if i == 0 and stage > 0 else 1
                block = Block(
                    *(inside, out, stride),
                    shortcut=shortcut,
                    inner=inner,
                    groups=groups,
                )
                layers.append(block)
                inside = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.out, self.stages = inside, len(sizes)

    def trunk(self, x):
        found = [self.pool(self.bn1(self.conv1(x)).relu())]
        for stage in range(1, self.stages + 1):
            found.append(getattr(self, f"layer{stage}")(found[-1]))
        return found


class Classifier(Trunk):
    def __init__(self, *args, classes, last="fc", **kwargs):
        super().__init__(*args, **kwargs)
        self.last = last
        setattr(self, self.last, nn.Linear(self.out, classes))

    def forward(self, x):
        found = self.trunk(x)
        return [*found, getattr(self, self.last)(found[-1].mean((2, 3)))]


class Backbone(Trunk):
    """The released face network's embedding, for 112×112 images."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        size = self.out // 4
        self.conv_last = nn.Sequential(
            nn.Conv2d(self.out, size, 1, bias=False), nn.BatchNorm2d(size), nn.ReLU()
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(size, eps=2e-5, momentum=0.9, affine=False),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(size * 4 * 4, size),
            nn.BatchNorm1d(size, eps=2e-5, momentum=0.9),
        )

    def forward(self, x):
        found = self.trunk(x)
        return [*found, self.output_layer(self.conv_last(found[-1]))]


class CosFace(nn.Module):
    def __init__(self, size, classes):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(size, classes))

    def forward(self, x):
        unit = nn.functional.normalize
        return 64 * unit(x, dim=1) @ unit(self.kernel, dim=0)


class Face(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.backbone = Backbone(
            *((3, 4, 6, 3), width), cifar=False, bottleneck=True, groups=32, base=4
        )
        self.head = CosFace(8 * width, classes)

    def forward(self, x):
        found = self.backbone(x)
        return [*found[:-1], self.head(found[-1])]


class LeNet(nn.Module):
    """As released: its dropout does nothing when it is not trained."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        a = self.conv1(x).relu()
        b = self.conv2(a).relu()
        c = self.fc1(nn.functional.max_pool2d(b, 2).flatten(1)).relu()
        return [a, b, c, self.fc2(c)]


class WideBlock(nn.Module):
    """Zagoruyko and Komodakis (2016): BatchNorm and ReLU before each convolution."""

    def __init__(self, inside, out, stride):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(out)
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        if inside != out:
            self.convShortcut = nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x):
        a = self.bn1(x).relu()
        if hasattr(self, "convShortcut"):
            x = self.convShortcut(a)
        return x + self.conv2(self.bn2(self.conv1(a)).relu())


class WideStage(nn.Module):
    def __init__(self, blocks, inside, out, stride):
        super().__init__()
        first = WideBlock(inside, out, stride)
        rest = [WideBlock(out, out, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    def __init__(self, sizes, width, widen, classes):
        super().__init__()
        a, b, c = (width * widen * k for k in (1, 2, 4))
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.block1 = WideStage(sizes[0], width, a, 1)
        self.block2 = WideStage(sizes[1], a, b, 2)
        self.block3 = WideStage(sizes[2], b, c, 2)
        self.bn1, self.fc = nn.BatchNorm2d(c), nn.Linear(c, classes)

    def forward(self, x):
        found = [self.conv1(x)]
        for stage in (self.block1, self.block2, self.block3):
            found.append(stage(found[-1]))
        found.append(self.bn1(found[-1]).relu())
        return [*found, self.fc(found[-1].mean((2, 3)))]


CIFAR = {"cifar": True, "shortcut": "shortcut", "last": "linear"}
IMAGENET: dict = {"cifar": False}
# Of each name, blocks a stage, and what is special.
RESNETS: dict = {
    "cifar_resnet18": ((2, 2, 2, 2), CIFAR),
    "cifar_resnet34": ((3, 4, 6, 3), CIFAR),
    "cifar_resnet50": ((3, 4, 6, 3), CIFAR | {"bottleneck": True}),
    # Its shortcuts have no weights; those of the other of three stages have, and the
    # names of torchvision.
    "cifar_resnet20": ((3, 3, 3), CIFAR | {"shortcut": ""}),
    "cifar_resnet": ((1, 2, 1), {"cifar": True}),
    "resnet34": ((3, 4, 6, 3), IMAGENET),
    "resnext50": (
        (3, 4, 6, 3),
        IMAGENET | {"bottleneck": True, "groups": 32, "base": 4},
    ),
    # Not so deep as any that has a name, and as wide as wide_resnet50_2.
    "resnet": ((1, 2, 1, 1), IMAGENET | {"bottleneck": True, "base": 128}),
}


def build(name, width=8, classes=7):
    """The rival of a model that `fssd_jax.torch_weights` knows, narrow."""
    if name == "lenet":
        return LeNet()
    if name == "face_resnext50":
        return Face(width, classes)
    if name == "wrn":
        return Wide((1, 2, 1), width, 2, classes)
    sizes, kind = RESNETS[name]
    return Classifier(sizes, width, classes=classes, **kind)


def entries(network):
    """Names and sizes of its state dict, a line each."""
    return [
        f"{k} {' '.join(map(str, a.shape))}" for k, a in network.state_dict().items()
    ]


def randomised(network):
    """Every parameter and statistic drawn anew, as `references` draws them."""
    state = references.weights(entries(network))
    network.load_state_dict({k: torch.from_numpy(a) for k, a in state.items()})
    return network.eval()
