"""One network of infinite width: what training makes of one f_0, own or drawn.

    f_t(x) = f_0(x) + A_t(x) (Y − f_0(X)),
    A_t(x) = Θ(x, X) Θ(X, X)⁻¹ (I − exp(−ηt/n Θ(X, X))).

`infinite_width` has its mean over f_0 ~ N(0, K), and that of its squares. With the f_0
of a finite network it is a regression that knows where this network began, and its
limit's kernel; with one that is drawn it is another network of infinite width. Jacot,
Gabriel and Hongler (2018); Lee et al. (2019).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis import infinite_width
from analysis.infinite_width import Kernels, readouts
from analysis.ntk import Images
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax.checks import InputError
from fssd_jax.data.inputs import as_input, joined
from fssd_jax.shown import brief


class Twin(NamedTuple):
    """What decides f_t at some points, but f_0; in float64."""

    operators: Float[np.ndarray, "time point n"]  # A_t(x)
    targets: Float[np.ndarray, "n c"]  # Y
    root: Float[np.ndarray, "n+point n+point"]  # √K of training images, then points

    __repr__ = brief


def twin(
    network: Perceptron | ConvNet,
    x_train: Images,
    targets: Float[np.ndarray, "n c"],
    times: list[float],
    x: Images,
    *,
    batch_size: int = 64,
) -> Twin:
    """O((n + points)³).

    Args:
      network: its width is of no account.
      x_train: X, as of `infinite_width.kernels`.
      targets: Y.
      times: ηt, as of `infinite_width.readouts`.
      x: points, such as test images and, after them, noise.
      batch_size: images on either side of a block.
    """
    # Each by itself: beside floats in [0, 1], integers would stay 0 to 255.
    x_train, x = (as_input(joined(of)) for of in (x_train, x))
    n = len(x_train)
    both = np.concatenate([x_train, x])
    nngp, ntk = infinite_width.kernels(network, both, batch_size=batch_size)
    # Of targets that are the identity, the readout is Θ⁻¹ (I − e^{−ηtΘ/n}) itself.
    of_train = readouts(Kernels(nngp[:n, :n], ntk[:n, :n]), np.eye(n), times)
    operators = np.stack([ntk[n:, :n] @ readout.labels for readout in of_train])
    values, vectors = np.linalg.eigh(nngp)
    root = vectors * np.sqrt(np.maximum(values, 0))[None]
    return Twin(operators, np.asarray(targets, np.float64), root)


def trained(
    twin: Twin,
    initial: Float[np.ndarray, "point c"],
    initial_train: Float[np.ndarray, "n c"],
) -> Float[np.ndarray, "time point c"]:
    """f_t(x) of the points, after each time, from f_0(x) and f_0(X)."""
    n, points = twin.operators.shape[2], twin.operators.shape[1]
    for name, f, rows in (("", initial, points), ("_train", initial_train, n)):
        expected = (rows, twin.targets.shape[1])
        if np.shape(f) != expected:
            raise InputError(
                f"initial{name}: expected f_0 of shape {expected}, a row for each "
                f"image, got {np.shape(f)}"
            )
    gap = twin.targets - initial_train
    return np.asarray(initial)[None] + twin.operators @ gap


def draw(
    twin: Twin, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "point c"], Float[np.ndarray, "n c"]]:
    """f_0 ~ N(0, K), independent in each output: of the points, and of X."""
    n, c = twin.targets.shape
    drawn = twin.root @ rng.normal(size=(len(twin.root), c))
    return drawn[n:], drawn[:n]
