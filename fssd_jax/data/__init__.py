from fssd_jax.data.sources import ArrayDataset, load

__all__ = ["ArrayDataset", "load"]
