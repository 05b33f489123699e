"""What kernels of images tell: how far they moved, what they align with, their rank.

Of tangent kernels (`analysis.ntk`) or any others, as arrays; computed in float64.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.shown import brief

ROUNDING = 1e-12  # relative, below which a centred kernel is 0
SYMMETRIC = 1e-3  # of the largest entry, what two halves may differ by
INDEFINITE = 1e-2  # of the largest eigenvalue, that one below 0 may owe to rounding

Kernel = Float[np.ndarray, "n n"]
# Class indices [n] stand for the kernel that is 1 within a class and 0 elsewhere.
Other = Kernel | Int[np.ndarray, " n"]
Spectrum = Float[np.ndarray, " n"]


# ---- how far a kernel moved ---------------------------------------------------------


def drift(before: Float[np.ndarray, "..."], after: Float[np.ndarray, "..."]) -> float:
    """‖Θ_t − Θ_0‖_F / ‖Θ_0‖_F."""
    start, end = (np.asarray(k, np.float64).ravel() for k in (before, after))
    return float(np.linalg.norm(end - start) / np.linalg.norm(start))


def kernel_distance(
    before: Float[np.ndarray, "..."], after: Float[np.ndarray, "..."]
) -> float:
    """1 − tr(Θ_t Θ_0ᵀ) / (‖Θ_t‖_F ‖Θ_0‖_F): how far the shape moved, not the scale.

    The kernel distance of Fort et al. (2020), "Deep learning versus kernel learning",
    without centring; in [0, 1] for positive semidefinite kernels.

    Raises:
      InputError: a kernel that is 0, or not finite.
    """
    units = []
    for kernel in (before, after):
        flat = np.asarray(kernel, np.float64).ravel()
        size = np.linalg.norm(flat)
        if not (size > 0 and np.isfinite(size)):
            raise InputError(
                f"kernel_distance: a kernel of norm {size:g} has no shape to compare"
            )
        units.append(flat / size)
    # Half the squared chord: 1 − cosine would cancel where nothing moved.
    return float(np.square(units[1] - units[0]).sum() / 2)


# ---- alignment with the labels, or with another kernel ------------------------------


def alignment(kernel: Kernel, other: Other) -> float:
    """⟨K_c, K'_c⟩_F / (‖K_c‖_F ‖K'_c‖_F), K_c = HKH, H = I − 11ᵀ/n; in [0, 1].

    Centred alignment, Def. 4 of Cortes, Mohri and Rostamizadeh (2012), "Algorithms for
    Learning Kernels Based on Centered Alignment". Class indices [n] stand for the
    kernel that is 1 within a class and 0 elsewhere. It is not 0 by chance: see
    `alignment_floor`.
    """
    return _cosine(*_centred(kernel, other))


def alignment_floor(kernel: Kernel, other: Other) -> float:
    """The mean of `alignment` over all n! permutations of `other`.

        tr K_c · tr K'_c / ((n − 1) ‖K_c‖_F ‖K'_c‖_F),

    because the mean of PK'_cPᵀ over permutations P is tr K'_c/(n − 1) · H. Diagonals
    make it positive: 0.43 for the identity, 50 images and 10 equal classes.
    """
    a, b = _centred(kernel, other)
    return float(np.trace(a) * np.trace(b) / ((len(a) - 1) * _sizes(a, b)))


def debiased_alignment(kernel: Kernel, other: Other) -> float:
    """HSIC₁(K, K') / √(HSIC₁(K, K) HSIC₁(K', K')), in [−1, 1]: no diagonal counts.

    HSIC₁ is the unbiased estimator of Song et al. (2012), "Feature Selection via
    Dependence Maximization"; the ratio is that of Nguyen, Raghu and Kornblith (2021),
    "Do Wide and Deep Networks Learn the Same Things?". It is the cosine of the
    U-centred kernels (Székely and Rizzo 2014, "Partial Distance Correlation"), so over
    all n! permutations of `other` its mean is 0 and its variance 2/(n(n − 3)), whatever
    the kernels.

    Raises:
      InputError: fewer than four images, or a kernel that is a sum a_i + a_j beside its
        diagonal, as the identity, a constant, or the labels of one class are.
    """
    return _cosine(*_u_centred(kernel, other))


class Null(NamedTuple):
    """An alignment, and what it is where the labels are permuted."""

    value: float
    mean: float
    sd: float
    p_value: float  # (1 + permutations that reach `value`) / (1 + count)
    count: int

    __repr__ = brief


def permutation_null(
    kernel: Kernel,
    other: Other,
    key: PRNGKeyArray,
    count: int = 999,
    *,
    debiased: bool = True,
) -> Null:
    """The alignment among those with `other` permuted at random, images and all.

    One-sided: small if K aligns with K' more than by chance (Phipson and Smyth 2010,
    "Permutation P-values Should Never Be Zero").

    Args:
      kernel: K.
      other: K', or class indices.
      key: of the permutations.
      count: how many; the least p-value is 1/(1 + count).
      debiased: of `debiased_alignment`, or else of `alignment`.
    """
    checks.at_least_one("count", count)
    a, b = (_u_centred if debiased else _centred)(kernel, other)
    a = a / _sizes(a, b)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(checks.random_key(key))))
    found = np.zeros(count)
    for i in range(count):
        order = rng.permutation(len(a))
        found[i] = np.vdot(a, b[np.ix_(order, order)])
    value = float(np.vdot(a, b))
    # Less rounding: permutations within the classes leave it as it is.
    reached = np.count_nonzero(found >= value - 1e-12)
    p_value = (1 + reached) / (1 + count)
    return Null(value, float(found.mean()), float(found.std()), p_value, count)


def _pair(kernel, other) -> tuple[np.ndarray, np.ndarray]:
    kernel, other = (checks.to_numpy(a, "alignment") for a in (kernel, other))
    classes = other.ndim == 1 and other.dtype.kind in "iub"
    square = kernel.ndim == 2 and kernel.shape == (len(kernel),) * 2
    for k in (kernel, other):
        if np.iscomplexobj(k) or (square and k.shape == kernel.shape and _turns(k)):
            raise InputError("alignment: a kernel is real, and symmetric")
    if not square or other.shape != ((len(kernel),) if classes else kernel.shape):
        raise InputError(
            "alignment: expected a kernel [n, n], and with it another, or class "
            f"indices [n], got {kernel.shape} and {other.dtype}{list(other.shape)}; "
            "of one-hot labels Y the kernel is Y @ Y.T"
        )
    if classes:
        other = other[:, None] == other[None]
    return np.asarray(kernel, np.float64), np.asarray(other, np.float64)


def _turns(k: np.ndarray) -> bool:
    """Whether a matrix and its transpose are others, but for rounding."""
    return bool(np.abs(k - k.T).max(initial=0) > SYMMETRIC * np.abs(k).max(initial=0))


def _centred(kernel, other) -> tuple[np.ndarray, ...]:
    """HKH of both; 0 if it is but for rounding."""
    found = []
    for k in _pair(kernel, other):
        centred = k - k.mean(0)[None] - k.mean(1)[:, None] + k.mean()
        found.append(_unless_rounding(centred, k))
    return tuple(found)


def _u_centred(kernel, other) -> tuple[np.ndarray, ...]:
    """Both without diagonals, and then such that the rest of each row adds up to 0.

    HSIC₁(K, K') = ⟨K_u, K'_u⟩_F / (n(n − 3)).
    """
    found = []
    for k in _pair(kernel, other):
        n = len(k)
        if n < 4:
            raise InputError(
                f"alignment: expected four images or more, got {n}; fewer can be made "
                "any sum of rows and columns"
            )
        beside = k - np.diag(np.diag(k))
        rows, columns = beside.sum(1)[:, None], beside.sum(0)[None]
        total = beside.sum() / ((n - 1) * (n - 2))
        centred = beside - rows / (n - 2) - columns / (n - 2) + total
        np.fill_diagonal(centred, 0)
        found.append(_unless_rounding(centred, beside))
    return tuple(found)


def _unless_rounding(centred: np.ndarray, k: np.ndarray) -> np.ndarray:
    small = np.linalg.norm(centred) <= ROUNDING * np.linalg.norm(k)
    return np.zeros_like(centred) if small else centred


def _sizes(a: np.ndarray, b: np.ndarray) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not (sizes > 0 and np.isfinite(sizes)):
        raise InputError(
            "alignment: a constant kernel, or one class only, has none; debiased, one "
            "that is constant beside its diagonal has none either; nor has one that "
            "is not finite"
        )
    return sizes


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b)) / _sizes(a, b)


# ---- the spectrum -------------------------------------------------------------------


def spectrum(kernel: Kernel) -> Spectrum:
    """Eigenvalues in falling order, divided by the trace: they add up to 1.

    Raises:
      InputError: a kernel that is 0, not finite, or has an eigenvalue below 0 that is
        no rounding.
    """
    k = np.asarray(kernel, np.float64)
    if not np.isfinite(k).all():
        raise InputError("spectrum: the kernel holds NaN or infinite values")
    values = np.linalg.eigvalsh((k + k.T) / 2)[::-1]
    if values[0] <= 0 or values[-1] < -INDEFINITE * values[0]:
        raise InputError(
            "spectrum: expected a positive semidefinite kernel other than 0, got "
            f"eigenvalues from {values[-1]:g} to {values[0]:g}"
        )
    values = np.maximum(values, 0)
    return values / values.sum()


def effective_rank(of: Kernel | Spectrum) -> float:
    """exp(−Σ p_i log p_i), p the `spectrum`: from 1 to n, the number if all are equal.

    Roy and Vetterli (2007), "The effective rank: a measure of effective
    dimensionality", of the kernel itself (the Jacobian's singular values are roots).

    Args:
      of: a kernel, or its `spectrum`.
    """
    p = of if of.ndim == 1 else spectrum(of)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def stable_rank(of: Kernel | Spectrum) -> float:
    """tr K / λ_max, from 1 to n: ‖J‖²_F/‖J‖²₂ of a kernel JJᵀ.

    Args:
      of: a kernel, or its `spectrum`.
    """
    p = of if of.ndim == 1 else spectrum(of)
    return float(1 / p[0])
