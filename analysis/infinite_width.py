"""Networks of infinite width: their kernels, and how far training moves their outputs.

Under gradient flow on L = 1/(2n) Σ_m ‖f(x_m) − y_m‖² with the learning rate η, a
network of infinite width in NTK parametrisation obeys, after time t,

    f_t(x) − f_0(x) = A (Y − f_0(X)),    A = Θ(x, X) Θ(X, X)⁻¹ (I − exp(−ηt/n Θ(X, X))),

and f_0(X) ~ N(0, K(X, X)) independently in each of its c outputs, so that

    E‖f_t(x) − f_0(x)‖² = ‖A Y‖² + c · A K(X, X) Aᵀ:

Eq. (4) in expectation, squared; a detector by it: `analysis.infinite_detector`. Jacot,
Gabriel and Hongler (2018); Lee et al. (2019), "Wide Neural Networks of Any Depth Evolve
as Linear Models Under Gradient Descent".
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from analysis import ntk_networks
from analysis.ntk import Images, assemble
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import joined
from fssd_jax.shown import brief


def kernel_fn(network: Perceptron | ConvNet):
    """neural-tangents' `kernel_fn` of the network with infinitely many hidden units.

    It takes normalised images. `ConvNet` needs `max_pool=False`: the maximum has no
    such limit in closed form.

    Raises:
      InputError: a network that has no twin.
      ImportError: neural-tangents is not installed; the message says how to.
    """
    # Here, because the rest of this file works without neural-tangents.
    from analysis.neural_tangents_compat import stax

    if network.parametrisation != "ntk":
        raise InputError(
            'the infinite-width twin: expected parametrisation="ntk", got '
            f"{network.parametrisation!r}, whose limit is not the one computed here"
        )
    if network.activation is not nn.relu:
        raise InputError("the infinite-width twin: expected activation=nn.relu")
    of_layer = {
        "W_std": ntk_networks.WEIGHT_STD,
        "b_std": ntk_networks.BIAS_STD,
        "parameterization": "ntk",
    }
    dense = partial(stax.Dense, 1, **of_layer)
    if isinstance(network, Perceptron):
        layers = [stax.Flatten(), dense(), stax.Relu(), dense(), stax.Relu(), dense()]
    elif network.max_pool:
        raise InputError(
            "max-pooling has no infinite-width twin; use ConvNet(max_pool=False), "
            "with strides=2 for layers of the same size"
        )
    else:
        strides = (network.strides, network.strides)
        conv = partial(stax.Conv, 1, (3, 3), strides, "VALID", **of_layer)
        layers = [conv(), stax.Relu(), conv(), stax.Relu(), stax.Flatten()]
        layers += [dense(), stax.Relu(), dense()]
    return stax.serial(*layers)[2]


class Kernels(NamedTuple):
    nngp: Float[np.ndarray, "n1 n2"]  # K: the covariance of an output at initialisation
    ntk: Float[np.ndarray, "n1 n2"]  # Θ

    __repr__ = brief


def kernels(
    network: Perceptron | ConvNet,
    x1: Images,
    x2: Images | None = None,
    *,
    batch_size: int = 64,
) -> Kernels:
    """K and Θ of an output of the network with infinite width, in float64.

    In float32 the arc cosine of nearly equal images costs half of the digits: Θ(x, x)
    would be off by 1e-4, as much as Θ's smallest eigenvalues.
    """
    with jax.enable_x64(True):
        both = assemble(partial(_block, network), x1, x2, batch_size)
    return Kernels(both[..., 0], both[..., 1])


def initial_variance(
    network: Perceptron | ConvNet, x: Images, *, batch_size: int = 64
) -> Float[np.ndarray, " image"]:
    """K(x, x) of each image: the variance of an output at initialisation."""
    one = jax.vmap(lambda a: _block(network, a[None], a[None])[0])
    x = joined(x)
    with jax.enable_x64(True):
        # The second set is of one image, and is not looked at.
        both = assemble(lambda a, _: one(a), x, x[:1], batch_size)
    return both[:, 0, 0]


@compiled(static=1)
def _block(network, x1, x2):
    mean, std = (
        jnp.asarray(a, jnp.float64)[None, None, None]
        for a in (network.mean, network.std)
    )
    x1, x2 = ((jnp.asarray(x, jnp.float64) - mean) / std for x in (x1, x2))
    both = kernel_fn(network)(x1, x2, ("nngp", "ntk"))
    return jnp.stack([both.nngp, both.ntk], axis=-1)


def centred_one_hot(
    y: Int[np.ndarray, " n"], num_classes: int
) -> Float[np.ndarray, "n {num_classes}"]:
    """One-hot labels less the mean of these labels, so that Σ_m y_m = 0.

    Without it, much of the movement is towards the mean label, for any image alike.
    """
    hot = np.eye(num_classes)[checks.labels(y, len(y), num_classes)]
    return hot - hot.mean(axis=0)[None]


class Readout(NamedTuple):
    """E‖f_t(x) − f_0(x)‖² = ‖Θ(x, X) [labels, initial]‖²."""

    labels: Float[np.ndarray, "n c"]  # Θ⁻¹ (I − e^{−ηtΘ/n}) Y
    initial: Float[np.ndarray, "n n"]  # Θ⁻¹ (I − e^{−ηtΘ/n}) √c K^½

    __repr__ = brief


def readouts(
    train: Kernels, targets: Float[np.ndarray, "n c"], times: list[float]
) -> list[Readout]:
    """The readout after each of several times ηt, from one eigendecomposition of Θ.

    With Θ(X, X) = U Λ Uᵀ, Θ⁻¹(I − e^{−sΘ}) = U g(Λ) Uᵀ, g(λ) = (1 − e^{−sλ})/λ, which
    tends to s as λ → 0: no inverse, and no ridge. Eigenvalues that rounding makes
    negative count as 0.

    Args:
      train: K and Θ of the training images with themselves.
      targets: Y, such as `centred_one_hot`.
      times: ηt, learning rate × time, or × steps of gradient descent on L; may be inf.

    Raises:
      InputError: a negative time, or an infinite one where Θ(X, X) is singular.
    """
    n, c = targets.shape
    values, vectors = _eigh(train.ntk)
    spread, directions = _eigh(train.nngp)
    root = directions * np.sqrt(spread)[None]
    # What follows is a product with [Y, √c K^½], whatever the time.
    right = vectors.T @ np.concatenate([targets, math.sqrt(c) * root], axis=1)
    found = []
    for time in times:
        if not time >= 0:
            raise InputError(f"times: expected 0 or more, got {time}")
        if math.isinf(time) and values[0] <= n * np.finfo(np.float64).eps * values[-1]:
            raise InputError(
                "times: inf needs a Θ(X, X) without eigenvalue 0, and the smallest is "
                f"{values[0]:.3g} of {values[-1]:.3g}; leave out repeated images"
            )
        whole = vectors @ (_gain(values, time / n)[:, None] * right)
        found.append(Readout(whole[:, :c], whole[:, c:]))
    return found


def _eigh(kernel) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = scipy.linalg.eigh(np.asarray(kernel, np.float64))
    return np.maximum(values, 0), vectors


def _gain(values: np.ndarray, s: float) -> np.ndarray:
    """(1 − e^{−sλ})/λ, at λ = 0 its limit s."""
    positive = np.where(values > 0, values, 1)
    return np.where(values > 0, -np.expm1(-s * positive) / positive, s)


class SquaredDisplacement(NamedTuple):
    labels: Float[np.ndarray, " image"]  # ‖A Y‖²
    initial: Float[np.ndarray, " image"]  # c · A K Aᵀ

    __repr__ = brief

    @property
    def total(self) -> np.ndarray:
        return self.labels + self.initial


def expected_squared_displacement(
    readout: Readout, ntk: Float[np.ndarray, "image n"]
) -> SquaredDisplacement:
    """E‖f_t(x) − f_0(x)‖² over initialisations, from Θ(x, X): both of its terms."""
    of_labels, of_initial = (
        np.square(ntk @ np.asarray(part)).sum(axis=1) for part in readout
    )
    return SquaredDisplacement(of_labels, of_initial)


class ExpectedSquares(NamedTuple):
    displacement: Float[np.ndarray, " image"]  # E‖f_t(x) − f_0(x)‖²
    fssd: Float[np.ndarray, " image"]  # E‖f_t(x) − F*_t‖²

    __repr__ = brief


def expected_squares(
    network: Perceptron | ConvNet,
    x_train: Images,
    targets: Float[np.ndarray, "n c"],
    times: list[float],
    x: Images,
    noise: Images,
    *,
    batch_size: int = 64,
) -> list[ExpectedSquares]:
    """Displacement and FSSD of the logits, in expectation over initial weights.

    F*_t is the mean of f_t over the noise, so that with a(x) = A(x) − mean A(noise) and
    g(x) = f_0(x) − mean f_0(noise), which is Gaussian,

        E‖f_t(x) − F*_t‖² = ‖aY‖² + c (Var g − 2 a Cov(f_0(X), g) + a K(X, X) aᵀ).

    Args:
      network: its width is of no account.
      x_train: X: integers 0–255 or floats, as many as fit an n × n matrix in memory.
      targets: Y.
      times: ηt, as of `readouts`; a result for each.
      x: images.
      noise: images whose mean logits are F*.
      batch_size: images on either side of a block.
    """
    of = partial(kernels, network, batch_size=batch_size)
    train, c = of(x_train), targets.shape[1]
    (k_x, theta_x), (k_z, theta_z) = (of(part, x_train) for part in (x, noise))
    variance = initial_variance(network, x, batch_size=batch_size)
    variance = variance - 2 * of(x, noise).nngp.mean(1) + of(noise).nngp.mean()
    covariance = k_x - k_z.mean(0)[None]
    found = []
    # Of targets that are the identity, the readout is Θ⁻¹ (I − e^{−ηtΘ/n}) itself.
    for readout in readouts(train, np.eye(len(train.ntk)), times):
        a_x, a_z = (theta @ readout.labels for theta in (theta_x, theta_z))
        a = a_x - a_z.mean(0)[None]

        def square(rows, prior):
            labels = np.square(rows @ targets).sum(1)
            return labels + c * (prior + ((rows @ train.nngp) * rows).sum(1))

        prior = variance - 2 * (a * covariance).sum(1)
        found.append(ExpectedSquares(square(a_x, 0.0), square(a, prior)))
    return found
