from fssd_jax.models.lenet import LeNet
from fssd_jax.models.mlp import MLP

__all__ = ["MLP", "LeNet"]
