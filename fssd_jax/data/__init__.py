from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds
    from fssd_jax.data import (
        augment,
        benchmarks,
        corrupted_sets,
        corruptions,
        crops,
        folders,
        imagenet_c,
        openood,
        pipeline,
        records,
        sequences,
    )
    from fssd_jax.data.sources import ArrayDataset, load
else:
    from fssd_jax.lazy import attach

    __getattr__, __dir__ = attach(
        __name__, {"ArrayDataset": "sources", "load": "sources"}
    )

__all__ = [
    "ArrayDataset",
    "augment",
    "benchmarks",
    "corrupted_sets",
    "corruptions",
    "crops",
    "folders",
    "imagenet_c",
    "load",
    "openood",
    "pipeline",
    "records",
    "sequences",
]
