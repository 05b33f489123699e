"""Tangent kernels of any layer of any network, after Eq. (3), and RBF fits of them.

    Θ(x, x')_de = Σ_p ∂F_d(x)/∂θ_p · ∂F_e(x')/∂θ_p        (F flattened)

θ is `variables["params"]`, or all of `variables` if there is no such entry; other
collections (BatchNorm's statistics) are constants, and no image's feature may depend on
another image. Kernels are computed in blocks: the device holds two batches and their
block, NumPy the result. A missing `x2` is `x1`, at half the cost. Reuse one
`feature_fn`: what is compiled is found by its identity.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Array, Float

from analysis.forward import has_rule
from analysis.parameters import of_layer, parameters, wide, with_parameters
from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import as_input, joined
from fssd_jax.data.pipeline import fitting, pad
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool

Axes = Literal["trace", "diagonal", "full"]
Images = Any  # data [n, ...], as of `fssd_jax.data.pipeline.batches`

# neural-tangents' (trace_axes, diagonal_axes), and the same as a contraction.
AXES = {"trace": ((-1,), ()), "diagonal": ((), (-1,)), "full": ((), ())}
EINSUM = {"trace": "idp,jdp->ij", "diagonal": "idp,jdp->ijd", "full": "idp,jep->ijde"}


def tangent_kernel(
    feature_fn: FeatureFn,
    variables: Variables,
    layer: str,
    x1: Images,
    x2: Images | None = None,
    *,
    axes: Axes = "trace",
    direct: bool = False,
    batch_size: int = 32,
) -> Float[np.ndarray, "n1 n2 ..."]:
    """Θ(x1, x2) by neural-tangents' structured derivatives, or from Jacobians.

    Args:
      feature_fn: see `make_feature_fn`.
      variables: the network's variables.
      layer: one of its layers.
      x1: images [n1, ...].
      x2: images [n2, ...]; by default `x1`.
      axes: "trace": [n1, n2], 1/dim Σ_d Θ_dd; "diagonal": [n1, n2, dim], Θ_dd; "full":
        [n1, n2, dim, dim], Θ_de with d of x1 and e of x2.
      direct: without neural-tangents, for small networks: it holds two Jacobians of
        batch × dim × parameters numbers.
      batch_size: images on either side of a block.

    Raises:
      ImportError: neural-tangents is not installed; the message says how to.
    """
    of_block = _direct if direct else _structured
    block = partial(of_block, feature_fn, layer, axes, variables)
    return assemble(block, x1, x2, batch_size)


def trace_directions(key: Array, count: int, dim: int) -> Float[Array, "sketch dim"]:
    """For `sketched_kernel`: random signs, or √dim · I where that is no more rows."""
    if dim <= count:
        return math.sqrt(dim) * jnp.eye(dim)
    return jax.random.rademacher(key, (count, dim), jnp.float32)


def sketched_kernel(
    feature_fn: FeatureFn,
    variables: Variables,
    layer: str,
    x1: Images,
    x2: Images | None = None,
    *,
    directions: Float[Array, "sketch dim"],
    batch_size: int = 32,
) -> Float[np.ndarray, "n1 n2"]:
    """Estimate of the trace kernel, 1/(s·dim) Σ_v ⟨J(x)ᵀv, J(x')ᵀv⟩, for wide layers.

    Unbiased if E vvᵀ = I, as of random signs (Hutchinson 1990), exact for the rows of
    √dim · I: see `trace_directions`. All images share them. It costs s gradients an
    image and block, whatever the layer's width; a block's gradients, batch × parameters
    numbers on either side, are held at once.
    """
    if not len(directions):
        raise InputError("directions: none; see trace_directions")
    block = partial(_sketched, feature_fn, layer, variables)
    total = sum(assemble(partial(block, v), x1, x2, batch_size) for v in directions)
    return np.asarray(total) / directions.size


def self_similarity(
    feature_fn: FeatureFn,
    variables: Variables,
    layer: str,
    x: Images,
    *,
    directions: Float[Array, "sketch dim"] | None = None,
    batch_size: int = 32,
) -> Float[np.ndarray, " image"]:
    """Θ(x, x) = ‖J(x)‖²/dim of each image: the trace kernel's diagonal, and no more.

    Args:
      directions: as of `sketched_kernel`; None: exact, by neural-tangents.
    """
    vs = [None] if directions is None else list(directions)
    own = partial(_own, feature_fn, layer, variables)
    x = joined(x)
    parts = [sum(np.asarray(own(v, a)) for v in vs) for a in _batches(x, batch_size)]
    whole = np.concatenate(parts)[: len(x)]
    return whole if directions is None else whole / directions.size


def normalised(
    kernel: Float[np.ndarray, "n1 n2"],
    own1: Float[np.ndarray, " n1"],
    own2: Float[np.ndarray, " n2"],
) -> Float[np.ndarray, "n1 n2"]:
    """Θ(x, x') / √(Θ(x, x) Θ(x', x')); 0 where the gradient of either is 0."""
    scale = np.sqrt(own1)[:, None] * np.sqrt(own2)[None]
    return np.divide(kernel, scale, out=np.zeros_like(kernel), where=scale > 0)


def mean_similarity(
    kernel: Float[np.ndarray, "n1 n2"],
    own: tuple[Float[np.ndarray, " n1"], Float[np.ndarray, " n2"]] | None = None,
) -> Float[np.ndarray, " n1"]:
    """Mean of Θ(x, x_m) over m; normalised first if Θ(x, x) of both sets are given."""
    return (kernel if own is None else normalised(kernel, *own)).mean(axis=1)


class RBFFit(NamedTuple):
    length: float  # ℓ, in the units of the distances
    amplitude: float  # a
    offset: float  # b
    r2: float  # share of the variance explained; below 0 if worse than a constant
    spearman: float  # rank correlation of kernel and distance


def rbf_fit(
    distances: Float[np.ndarray, "..."],
    similarities: Float[np.ndarray, "..."],
    *,
    affine: bool = False,
) -> RBFFit:
    """Least squares of a·exp(−d²/2ℓ²) + b on the normalised kernel (remark on Eq. 4).

    Args:
      distances: ‖x − x_m‖.
      similarities: the normalised kernel, of the same shape.
      affine: fit a ≥ 0 and b too; otherwise a = 1 and b = 0.
    """
    d, k = (np.asarray(a, np.float64).ravel() for a in (distances, similarities))
    if d.size != k.size or np.ptp(d) == 0 or np.ptp(k) == 0:
        raise InputError(
            "rbf_fit: expected as many similarities as distances, neither all equal; "
            f"got shapes {np.shape(distances)} and {np.shape(similarities)}"
        )

    def fitted(log_length):  # the sum of squares, and the best a and b for this ℓ
        shape, a, b = np.exp(-np.square(d * np.exp(-log_length)) / 2), 1.0, 0.0
        if affine:
            centred = shape - shape.mean()
            a = max(centred @ k / max(centred @ centred, 1e-300), 0.0)
            b = k.mean() - a * shape.mean()
        return np.square(k - a * shape - b).sum(), a, b

    # A grid first, because the sum of squares may have several minima.
    grid = np.log(np.median(d[d > 0])) + np.linspace(-5, 5, 101)
    start = grid[np.argmin([fitted(g)[0] for g in grid])]
    best: Any = scipy.optimize.minimize_scalar(
        lambda g: fitted(g)[0], bounds=(start - 0.1, start + 0.1), method="bounded"
    )
    squares, a, b = fitted(best.x)
    r2 = 1 - squares / np.square(k - k.mean()).sum()
    rank: Any = scipy.stats.spearmanr(d, k)
    return RBFFit(*map(float, (np.exp(best.x), a, b, r2, rank.statistic)))


def _differentiable(feature_fn, variables, layer):
    """`(params, x) -> [batch, dim]` of one layer, and the parameters."""

    def features(params, x):
        found = features_of(feature_fn, with_parameters(variables, params), x)
        of = of_layer(found, layer)
        return pool(OrderedDict([(layer, of)]), "flatten")[layer]

    params = parameters(variables)
    if any(map(jnp.iscomplexobj, jax.tree.leaves(params))):
        raise InputError(
            "variables: tangent kernels are of real parameters, and some are complex; "
            "make their real and imaginary parts parameters, and join them in the "
            "network"
        )
    return features, params


@compiled(static=3)
def _structured(feature_fn, layer, axes, variables, x1, x2):
    # Here, because all else works without neural-tangents.
    from analysis.neural_tangents_compat import nt

    features, params = _differentiable(feature_fn, variables, layer)
    if has_rule(features, params, x1):
        raise InputError(
            "tangent_kernel: the network has a jax.custom_vjp, of which "
            "neural-tangents knows no structure; take direct=True, or sketched_kernel "
            "(KernelRecorder with a number of directions)"
        )

    def of_wide(wider, x):
        return features(jax.tree.map(lambda w, p: w.astype(p.dtype), wider, params), x)

    # Parameters in 32 bits, so that what is summed over them is.
    wider = jax.tree.map(lambda p: p.astype(wide(p)), params)
    trace, diagonal = AXES[axes]
    how = nt.NtkImplementation.STRUCTURED_DERIVATIVES
    return nt.empirical_ntk_fn(of_wide, trace, diagonal, 0, how)(x1, x2, wider)


@compiled(static=3)
def _direct(feature_fn, layer, axes, variables, x1, x2):
    features, params = _differentiable(feature_fn, variables, layer)
    jacobian = jax.jacrev(lambda p, x: features(p, x[None])[0])
    j1, j2 = (jax.vmap(jacobian, (None, 0))(params, x) for x in (x1, x2))
    dim = jax.eval_shape(features, params, x1).shape[1]
    return _contract(EINSUM[axes], j1, j2, dim) / (dim if axes == "trace" else 1)


@compiled(static=2)
def _sketched(feature_fn, layer, variables, v, x1, x2):
    features, params = _differentiable(feature_fn, variables, layer)
    gradient = jax.grad(lambda p, x: features(p, x[None])[0] @ v)
    g1, g2 = (jax.vmap(gradient, (None, 0))(params, x) for x in (x1, x2))
    return _contract(EINSUM["trace"], g1, g2, 1)


def _contract(equation, tree1, tree2, dim):
    """Sum over all parameters; each leaf becomes [batch, dim, parameter]."""
    leaves1, leaves2 = (
        [leaf.reshape(len(leaf), dim, -1) for leaf in jax.tree.leaves(tree)]
        for tree in (tree1, tree2)
    )
    # Sums over all parameters, which 16 bits could not hold.
    return sum(
        jnp.einsum(equation, a, b, precision="highest", preferred_element_type=wide(a))
        for a, b in zip(leaves1, leaves2, strict=True)
    )


@compiled(static=2)
def _own(feature_fn, layer, variables, v, x):
    """Diagonal of the trace kernel, or of dim times its estimate along v."""
    if v is None:
        block = partial(_structured, feature_fn, layer, "trace", variables)
    else:
        block = partial(_sketched, feature_fn, layer, variables, v)
    return jax.vmap(lambda a: block(a[None], a[None])[0, 0])(x)


def assemble(block: Callable, x1: Images, x2: Images | None, batch_size: int):
    """[n1, n2, ...] from block(a, b) [b1, b2, ...] on pairs of padded batches."""
    x1, x2 = joined(x1), None if x2 is None else joined(x2)
    left = _batches(x1, batch_size)
    right = left if x2 is None else _batches(x2, batch_size)
    rows: list[list[np.ndarray]] = []
    for i, a in enumerate(left):
        rows.append([])
        for j, b in enumerate(right):
            if x2 is None and j < i:  # Θ_de(x, x') = Θ_ed(x', x)
                upper = rows[j][i]
                part = upper.transpose(1, 0, *range(2, upper.ndim)[::-1])
            else:
                part = np.asarray(block(a, b))
            rows[i].append(part)
    whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return whole[: len(x1), : len(x1 if x2 is None else x2)]


def _batches(x, batch_size) -> list[np.ndarray]:
    """Batches of one size, integers as floats in [0, 1]; the last one is padded."""
    checks.at_least_one("batch_size", batch_size)
    x = np.asarray(checks.images(x, unit_range=False))
    x = x if np.issubdtype(x.dtype, np.floating) else as_input(x)
    size = fitting(len(x), batch_size)
    return [pad(x[i : i + size], size) for i in range(0, len(x), size)]
