from fssd_jax.models.lenet import LeNet
from fssd_jax.models.lstm import BiLSTM
from fssd_jax.models.mlp import MLP
from fssd_jax.models.resnet import (
    ResNet,
    cifar_resnet18,
    cifar_resnet34,
    cifar_resnet50,
    face_resnext50,
    resnet34,
    resnext50,
)

__all__ = [
    "MLP",
    "BiLSTM",
    "LeNet",
    "ResNet",
    "cifar_resnet18",
    "cifar_resnet34",
    "cifar_resnet50",
    "face_resnext50",
    "resnet34",
    "resnext50",
]
