"""A detector for which nothing is trained: how far training would move infinite width.

E‖f_t(x) − f_0(x)‖² of `analysis.infinite_width`: what moves much is in-distribution.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from analysis.infinite_width import (
    Readout,
    centred_one_hot,
    expected_squared_displacement,
    initial_variance,
    kernels,
    readouts,
)
from analysis.ntk import Images
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax.data.inputs import joined
from fssd_jax.shown import brief


class State(NamedTuple):
    train: np.ndarray  # the training images
    readout: Readout

    __repr__ = brief


def fit(
    network: Perceptron | ConvNet,
    x_train: Images,
    y_train: Int[np.ndarray, " n"],
    time: float,
    *,
    batch_size: int = 64,
) -> State:
    """Kernels of the training images and the readout after `time`; O(n³).

    Args:
      network: its width is of no account; `num_classes`, mean and std are.
      x_train: integers 0–255 or floats, as many as fit an n × n matrix in memory.
      y_train: their classes.
      time: ηt, as of `infinite_width.readouts`.
      batch_size: images on either side of a block.
    """
    x_train = joined(x_train)
    targets = centred_one_hot(y_train, network.num_classes)
    train = kernels(network, x_train, batch_size=batch_size)
    return State(x_train, readouts(train, targets, [time])[0])


def score(
    network: Perceptron | ConvNet,
    state: State,
    x: Images,
    *,
    relative: bool = False,
    batch_size: int = 64,
) -> Float[np.ndarray, " image"]:
    """E‖f_t(x) − f_0(x)‖²: what moves much is in-distribution.

    Args:
      network: that of `fit`.
      state: see `fit`.
      x: images [n, ...].
      relative: divide by E‖f_0(x)‖² = c K(x, x), because either grows with contrast.
      batch_size: images on either side of a block.
    """
    size = max(1, 2**22 // len(state.train))  # images whose Θ(x, X) is held at once
    x, parts = joined(x), []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        ntk = kernels(network, part, state.train, batch_size=batch_size).ntk
        moved = expected_squared_displacement(state.readout, ntk).total
        if relative:
            variance = initial_variance(network, part, batch_size=batch_size)
            moved = moved / (state.readout.labels.shape[1] * variance)
        parts.append(moved)
    return np.concatenate(parts)
