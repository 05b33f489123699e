"""Arrays of a .npz file, which is closed: Python 3.13 tells of one that is not."""

import numpy as np


def read_npz(path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)
