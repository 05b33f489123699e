"""A three-layer perceptron: another architecture for the same images."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Num

from fssd_jax.models.inputs import normalised
from fssd_jax.models.lenet import DenseRelu


class MLP(nn.Module):
    """Two hidden layers with relu, then logits; the normalisation is inside."""

    num_classes: int = 10
    mean: tuple[float, ...] = (0.2860,)  # of FashionMNIST
    std: tuple[float, ...] = (0.3530,)
    hidden: tuple[int, int] = (256, 256)

    feature_layers = ("fc1", "fc2", "logits")

    @nn.compact
    def __call__(
        self,
        x: Num[Array | np.ndarray, "batch height width channel"],
        train: bool = False,
    ) -> Float[Array, "batch {self.num_classes}"]:
        del train  # it has neither dropout nor statistics
        x = normalised(x, self.mean, self.std).reshape(x.shape[0], -1)
        for i, features in enumerate(self.hidden):
            x = DenseRelu(features, name=f"fc{i + 1}")(x)
        return nn.Dense(self.num_classes, name="logits")(x)
