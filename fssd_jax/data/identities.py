"""Class indices for face identities, whose numbers have gaps."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from fssd_jax import checks


class Identities(NamedTuple):
    kept: Bool[np.ndarray, " n"]  # which images
    y: Int32[np.ndarray, " kept"]  # their classes, 0 to count − 1
    names: np.ndarray  # [count] identity of each class, sorted

    @property
    def count(self) -> int:
        """Beside the 10,122 of the paper's CelebA, whose filter is unknown."""
        return len(self.names)


def number(identities: Shaped[np.ndarray, " n"], least: int = 1) -> Identities:
    """Number the identities; leave out those with fewer than `least` images.

    Once images are selected (CelebA without "blurry"), many identities have few left or
    none, and a margin loss learns nothing of a class without images.

    Args:
      identities: of each image: integers, or names.
      least: images that an identity must have.

    Raises:
      InputError: fewer than two identities are left.
    """
    checks.at_least_one("least", least)
    names, index, counts = np.unique(
        identities, return_inverse=True, return_counts=True
    )
    enough = counts >= least
    if enough.sum() < 2:
        raise checks.InputError(
            f"{int(enough.sum())} of {len(names)} identities have {least} images or "
            "more; a classifier needs two"
        )
    kept = enough[index]
    new = np.cumsum(enough) - 1
    return Identities(kept, new[index][kept].astype(np.int32), names[enough])
