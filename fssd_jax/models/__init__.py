from fssd_jax.models.lenet import LeNet

__all__ = ["LeNet"]
